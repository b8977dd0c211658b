"""Training data in any form that a classifier takes them, as one packed dataset."""

from __future__ import annotations

import dataclasses
import difflib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mm_keras.estimator.cells import absolute, image_cell, text_cell
from mm_keras.estimator.labels import LabelCodec, LabelForm
from mm_keras.solving.folds import assign_folds
from tfrecords_tools.dataset.folder import Dataset
from tfrecords_tools.dataset.info import DATASET_FILE
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.sources import table
from tfrecords_tools.sources.table_cells import LabelFlags
from tfrecords_tools.sources.table_rows import open_table
from tfrecords_tools.sources.text_rows import BadRow

if TYPE_CHECKING:
    import pandas

_ROLES = {"image": "_image", "label": "_label", "id": "_id", "split": "_split"}
_LEAST_VALIDATED = 40  # examples; of fewer none is held out to find the best epoch
_PARTS = 7  # of which one is held out


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Which columns a classifier reads.

    Attributes:
        image: the column of pictures; None: there is none.
        texts: the text columns.
        base64_images: whether texts in the image column are base64 and not paths.
        image_root: the folder of relative paths; None: that of the table, or the working folder.
    """

    image: str | None
    texts: tuple[str, ...]
    base64_images: bool = False
    image_root: str | None = None

    @property
    def columns(self) -> list[str]:
        """All of them, the picture first."""
        return [*([self.image] if self.image else []), *self.texts]

    def check(self, frame: pandas.DataFrame) -> None:
        """Raises ValueError if a column is missing from a frame, or stands there twice."""
        for column in self.columns:
            check_column(frame, column)

    def images(self, frame: pandas.DataFrame, root: Path) -> list[str | bytes | None]:
        """The picture of each row, as a path or as bytes.

        Raises:
            ValueError: for a cell of another kind; the message names the row.
        """
        root, cells = Path(self.image_root or root).absolute(), []
        for index, cell in frame[self.image].items():
            try:
                cells.append(absolute(image_cell(cell, self.base64_images), root))
            except ValueError as error:
                raise ValueError(f"row {index}, column {self.image!r}: {error}") from None
        return cells


def check_column(frame: pandas.DataFrame, column: str) -> None:
    """Raises ValueError if a frame lacks a column, or has several of that name."""
    count = list(frame.columns).count(column)
    if count > 1:
        raise ValueError(f"the table has {count} columns named {column!r}; rename all but one")
    if not count:
        near = difflib.get_close_matches(str(column), list(map(str, frame.columns)), 1, 0.4)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"the table has no column {column!r}{hint} Its columns are {list(frame.columns)}")


def open_frame(data: Any) -> tuple[pandas.DataFrame, Path]:
    """Opens examples.

    Args:
        data: a DataFrame, the path of a table in a form that packing reads, a dict of columns, or a list of dicts.

    Returns:
        (the examples, the folder of their relative image paths).

    Raises:
        TypeError: for anything else.
        ValueError: if the table cannot be read.
    """
    import pandas

    if isinstance(data, pandas.DataFrame):
        return data, Path()
    if isinstance(data, str | Path):
        opened = open_table(Path(data))
        rows = [row for _, row in opened.iter_rows(())]
        bad = sum(row.rows for row in rows if isinstance(row, BadRow))
        if bad:
            first = next(row for row in rows if isinstance(row, BadRow))
            warnings.warn(f"{data}: {bad:,} rows cannot be read and are left out, the first: {first}", stacklevel=3)
        return pandas.DataFrame([row for row in rows if not isinstance(row, BadRow)]), opened.folder
    if isinstance(data, dict) or (isinstance(data, list) and all(isinstance(row, dict) for row in data)):
        return pandas.DataFrame(data), Path()
    raise TypeError(
        f"examples are a DataFrame, the path of a table, a dict of columns or a list of dicts. Received: {type(data).__name__}"
    )


def label_cells(frame: pandas.DataFrame, y: Any, form: LabelForm) -> tuple[list[list | None], bool]:
    """The labels of each row, None where they are unknown, and whether a row may have several.

    Args:
        frame: the examples.
        y: a column of the frame; a list of its columns that hold 0 and 1 for one label each; or the labels themselves, one cell
            a row.
        form: how labels are written.

    Raises:
        ValueError: if there is no such column, if there are more or fewer labels than rows, or if a cell of a column of one
            label is neither 0 nor 1.
    """
    if isinstance(y, list | tuple) and len(y) > 1 and all(isinstance(name, str) and name in frame.columns for name in y):
        flags, rows = LabelFlags(tuple(y)), frame[list(y)].to_dict("records")
        return form.filled([flags.read(row) for row in rows], several=True), True
    if isinstance(y, str):
        check_column(frame, y)
        y = frame[y]
    cells = list(y)
    if len(cells) != len(frame):
        raise ValueError(f"there are {len(frame):,} examples and {len(cells):,} labels")
    return form.read(cells)


@dataclasses.dataclass(frozen=True)
class Part:
    """Some examples with their labels.

    Attributes:
        frame: the examples.
        root: the folder of their relative image paths.
        labels: the names of the labels of each of them.
    """

    frame: pandas.DataFrame
    root: Path
    labels: list[list[str]]


def make_part(frame: pandas.DataFrame, root: Path, cells: Sequence[list | None], codec: LabelCodec) -> Part:
    """Names the labels; examples whose labels are unknown are left out with a warning.

    Raises:
        ValueError: for a label that the codec does not know.
    """
    kept = [number for number, cell in enumerate(cells) if cell or (cell is not None and codec.multi_label)]
    if len(kept) < len(cells):
        hint = "; where empty cells say that no label applies: empty_means_none=True" if codec.multi_label else ""
        warnings.warn(
            f"{len(cells) - len(kept):,} of {len(cells):,} examples have no label and are left out{hint}", stacklevel=4
        )
    return Part(frame.iloc[kept], root, [[codec.name(label) for label in cells[number]] for number in kept])


def pack_training(
    data: Any, y: Any, validation: Any, inputs: Inputs, form: LabelForm, folder: Path, validate: bool, seed: int
) -> tuple[Dataset, LabelCodec]:
    """Packs training data, or finds them packed.

    Args:
        data: examples as for `open_frame`, or a dataset folder.
        y: the labels as for `label_cells`; None for a dataset folder.
        validation: examples with labels as in `y`, or a pair (examples, labels); None: a part of the training examples is held
            out, if `validate` is True and there are enough.
        inputs: the columns that are read.
        form: how labels are written.
        folder: the dataset folder to make, with the splits "train" and, if there is something in it, "val".
        validate: whether a validation split is of use.
        seed: of what is held out.

    Returns:
        (the dataset, its classes).

    Raises:
        ValueError: for missing columns, labels that do not fit, or cells that are no picture or text.
    """
    if isinstance(data, str | Path) and (Path(data) / DATASET_FILE).is_file():
        dataset = Dataset.open(data)
        return dataset, LabelCodec.of(dataset.info.labels.names, dataset.info.multi_label)
    if y is None:
        raise ValueError("fit needs labels: fit(X, 'category'), with the label column, or fit(X, y) with the labels")
    frame, root = open_frame(data)
    inputs.check(frame)
    cells, several = label_cells(frame, y, form)
    codec = LabelCodec.learn(cells, several)
    train, val = make_part(frame, root, cells, codec), None
    if validation is not None:
        examples, labels = validation if isinstance(validation, tuple) else (validation, y)
        frame, root = open_frame(examples)
        inputs.check(frame)
        val = make_part(frame, root, label_cells(frame, labels, form)[0], codec)
    _pack(inputs, train, val, codec, folder, validate, seed)
    return Dataset.open(folder), codec


def _pack(inputs: Inputs, train: Part, val: Part | None, codec: LabelCodec, folder: Path, validate: bool, seed: int) -> None:
    import pandas

    splits = ["train"] * len(train.labels)
    if val is None and validate and len(train.labels) >= _LEAST_VALIDATED:
        splits = _hold_out(train.labels, codec, seed)
    parts = [train] if val is None else [train, val]
    splits += ["val"] * (len(val.labels) if val else 0)
    columns: dict[str, list] = {_ROLES["id"]: [f"row-{number:09}" for number in range(len(splits))], _ROLES["split"]: splits}
    columns[_ROLES["label"]] = [labels if codec.multi_label else labels[0] for part in parts for labels in part.labels]
    if inputs.image:
        columns[_ROLES["image"]] = [cell for part in parts for cell in inputs.images(part.frame, part.root)]
    for field in inputs.texts:
        columns[field] = [_text(cell, index, field) for part in parts for index, cell in part.frame[field].items()]
    roles = table.Columns(
        image=_ROLES["image"] if inputs.image else None,
        text=inputs.texts,
        label=_ROLES["label"],
        id=_ROLES["id"],
        split=_ROLES["split"],
    )
    source = table.make_source([pandas.DataFrame(columns)], roles, multi_label=codec.multi_label)
    # In this process: others would import a script that has no `if __name__ == "__main__":`, and start all over.
    info = pack(source, folder, PackOptions(seed=seed, workers=1, allow_outside=True))
    for action, count in info.provenance["rejected"].items():
        warnings.warn(f"{count:,} of {len(splits):,} examples {action}: {_first_reason(folder)}", stacklevel=5)


def _hold_out(labels: Sequence[list[str]], codec: LabelCodec, seed: int) -> list[str]:
    """The split of each example; a label whose only examples would be held out is learned instead."""
    targets = np.zeros((len(labels), len(codec.names)), np.float32)
    for row, names in zip(targets, labels, strict=True):
        row[[codec.names.index(name) for name in names]] = 1
    folds = assign_folds(targets if codec.multi_label else targets.argmax(axis=1), np.arange(len(labels)), _PARTS, seed)
    held_out = folds == 0
    only = targets[~held_out].sum(axis=0) == 0
    held_out &= ~targets[:, only].any(axis=1)
    return ["val" if out else "train" for out in held_out]


def _text(cell: Any, index: Any, field: str) -> str | list[str]:
    try:
        return text_cell(cell)
    except ValueError as error:
        raise ValueError(f"row {index}, column {field!r}: {error}") from None


def _first_reason(folder: Path) -> str:
    with open(folder / "rejected.jsonl", encoding="utf-8") as lines:
        return f"the first for {json.loads(lines.readline())['reason']}"
