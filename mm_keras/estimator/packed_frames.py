"""Training data in any form that a classifier takes them, as one packed dataset."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mm_keras.estimator.cells import text_cell
from mm_keras.estimator.data import Inputs, label_cells, open_frame
from mm_keras.estimator.kept_folders import KeptFolder, folder_of
from mm_keras.estimator.labels import LabelCodec, LabelForm
from mm_keras.packed import pack_once
from mm_keras.solving.folds import assign_folds
from tfrecords_tools.dataset.folder import Dataset
from tfrecords_tools.dataset.info import DATASET_FILE
from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.dataset.splits import hash_id
from tfrecords_tools.dataset.stratify import draw_within_classes
from tfrecords_tools.packing.image_digest import ImageDigest
from tfrecords_tools.packing.options import PackOptions
from tfrecords_tools.sources import table
from tfrecords_tools.sources.example import Source, SourceExample

if TYPE_CHECKING:
    import pandas

_ROLES = {"image": "_image", "label": "_label", "id": "_id", "split": "_split"}
_LEAST_VALIDATED = 40  # examples; of fewer none is held out to find the best epoch
_PARTS = 7  # of which one is held out


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


class Packed(NamedTuple):
    """Training data as a dataset.

    Attributes:
        dataset: the dataset, with the splits "train" and, if there is something in it, "val".
        codec: its classes.
        folders: the temporary folder that the dataset is in; empty if it is in none.
    """

    dataset: Dataset
    codec: LabelCodec
    folders: tuple[KeptFolder, ...] = ()


def pack_training(
    data: Any,
    y: Any,
    validation: Any,
    inputs: Inputs,
    form: LabelForm,
    folder: Path | None,
    validate: bool,
    seed: int,
    accept: Callable[[LabelCodec], tuple[LabelCodec, list[str]]] | None = None,
    most: int | None = None,
) -> Packed:
    """Packs training data, or finds them packed: in the folder that is named, or by their content in this process.

    Args:
        data: examples as for `open_frame`, or a dataset folder.
        y: the labels as for `label_cells`; None for a dataset folder.
        validation: examples with labels as in `y`, or a pair (examples, labels); None: a part of the training examples is held
            out, if `validate` is True and there are enough.
        inputs: the columns that are read.
        form: how labels are written.
        folder: the dataset folder to make or to find; None: a temporary one.
        validate: whether a validation split is of use.
        seed: of what is held out.
        accept: maps the classes of the examples to the classes to tell apart and the order of their names in the dataset, or
            raises if training cannot go on with them; None: the classes of the examples are told apart.
        most: the largest number of training examples; of more, the same share is drawn from each class; None: all.

    Raises:
        ValueError: for missing columns, labels that do not fit, cells that are no picture or text, or a folder with other data.
    """
    if is_dataset(data):
        dataset = Dataset.open(data)
        codec = LabelCodec.of(dataset.info.labels.names, dataset.info.multi_label)
        if accept and accept(codec)[1] != dataset.info.labels.names:
            raise ValueError(f"{data} does not begin with the labels of the run to go on from; pack it with --labels=FILE")
        return Packed(dataset, codec)
    if y is None:
        raise ValueError("fit needs labels: fit(X, 'category'), with the label column, or fit(X, y) with the labels")
    frame, root = open_frame(data)
    inputs.check(frame)
    cells, several = label_cells(frame, y, form)
    codec = LabelCodec.learn(cells, several)
    codec, labels = accept(codec) if accept else (codec, None)
    train, val = _at_most(make_part(frame, root, cells, codec), most, seed), None
    if most is not None and labels is None:
        labels = LabelVocabulary.from_names(codec.names).names  # of all classes, whichever rows were drawn
    if validation is not None:
        examples, val_labels = validation if isinstance(validation, tuple) else (validation, y)
        frame, root = open_frame(examples)
        inputs.check(frame)
        val = make_part(frame, root, label_cells(frame, val_labels, form)[0], codec)
    source = _make_source(inputs, train, val, codec, validate, seed)
    source = dataclasses.replace(source, labels=labels) if labels else source
    kept_folder = None if folder else folder_of(source.options, labels, seed, _image_files(source))
    return Packed(_pack(source, folder or kept_folder.path / "dataset", seed), codec, (kept_folder,) if kept_folder else ())


def is_dataset(data: Any) -> bool:
    """Whether `data` is the path of a dataset folder."""
    return isinstance(data, str | Path) and (Path(data) / DATASET_FILE).is_file()


def _at_most(part: Part, most: int | None, seed: int) -> Part:
    if most is None or len(part.labels) <= most:
        return part
    fraction, classes = most / len(part.labels), [labels[0] if labels else "" for labels in part.labels]
    hashes = [hash_id(str(number), "time limit", seed) for number in range(len(classes))]
    drawn = draw_within_classes(classes, hashes, (fraction, 1 - fraction), seed) == 0
    lacking = set(classes) - {classes[number] for number in np.flatnonzero(drawn)}
    drawn[[classes.index(name) for name in lacking]] = True  # each class keeps at least one example
    rows = np.flatnonzero(drawn)
    return Part(part.frame.iloc[rows], part.root, [part.labels[number] for number in rows])


def _pack(source: Source, folder: Path, seed: int) -> Dataset:
    # In this process: worker processes would import a script without `if __name__ == "__main__":` and start it all over.
    dataset = Dataset.open(pack_once(source, str(folder), PackOptions(seed=seed, workers=1, allow_outside=True)))
    total = sum(map(dataset.info.num_examples, dataset.info.splits))
    for action, count in dataset.info.provenance["rejected"].items():
        warnings.warn(f"{count:,} of {total:,} examples {action}: {_first_reason(folder)}", stacklevel=6)
    return dataset


def _image_files(source: Source) -> dict:
    """Facts by which one tells whether the image files of a source are still the same."""
    digest = ImageDigest("time")
    for example in source.examples():
        if isinstance(example, SourceExample):
            digest.add(example)
    return digest.facts()


def _make_source(inputs: Inputs, train: Part, val: Part | None, codec: LabelCodec, validate: bool, seed: int) -> Source:
    """The examples as a source, with a part held out if there is no validation data and `validate` is True."""
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
    return table.make_source([pandas.DataFrame(columns)], roles, multi_label=codec.multi_label)


def _hold_out(labels: Sequence[list[str]], codec: LabelCodec, seed: int) -> list[str]:
    """The split of each example; a label whose only examples would be held out is learned instead."""
    targets = np.zeros((len(labels), len(codec.names)), np.float32)
    for row, names in zip(targets, labels, strict=True):
        row[[codec.names.index(name) for name in names]] = 1
    folds = assign_folds(targets if codec.multi_label else targets.argmax(axis=1), np.arange(len(labels)), _PARTS, seed)
    held_out = folds == 0
    lost_labels = targets[~held_out].sum(axis=0) == 0
    held_out &= ~targets[:, lost_labels].any(axis=1)
    return ["val" if out else "train" for out in held_out]


def _text(cell: Any, index: Any, field: str) -> str | list[str]:
    try:
        return text_cell(cell)
    except ValueError as error:
        raise ValueError(f"row {index}, column {field!r}: {error}") from None


def _first_reason(folder: Path) -> str:
    with open(folder / "rejected.jsonl", encoding="utf-8") as lines:
        return f"the first for {json.loads(lines.readline())['reason']}"
