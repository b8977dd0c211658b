"""Checks the first rows of a table before it is packed: what may mean two things is an error, what was detected is reported."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrecords_tools.sources.files import SPLIT_NAMES
from tfrecords_tools.sources.table_cells import SEVERAL_LABELS, LabelCells, is_list, is_missing, list_in, name_of, text_of
from tfrecords_tools.sources.table_file import TableError
from tfrecords_tools.sources.table_images import ImageCells, SeveralImagesError, UrlError, is_file, template_columns
from tfrecords_tools.sources.table_rows import Table

if TYPE_CHECKING:
    import pandas

_ROWS, _IMAGES = 1000, 100
_SEPARATORS = (";", "|", ",")


def check_labels(table: Table, labels: LabelCells) -> list[str]:
    """Checks the label cells of the first rows.

    Returns:
        lines that tell how the cells are read, where that is not obvious.

    Raises:
        TableError: if the cells may mean several things.
    """
    cells = [row[labels.column] for row in table.sample([labels.column], _ROWS)]
    cells = [cell for cell in cells if is_list(cell) or not (is_missing(cell) or cell == "")]
    listed = [
        cell for cell in cells if (list_in(cell) is not None if isinstance(cell, str) else is_list(cell) and len(cell) > 1)
    ]
    where = f"{table.name}: the cells of label column {labels.column!r}"
    if not labels.several and len(listed) > 0.1 * len(cells):
        raise TableError(f"{where} hold lists, such as {listed[0]!r:.60}: {SEVERAL_LABELS}")
    notes = []
    texts = [cell for cell in cells if isinstance(cell, str) and list_in(cell) is None]
    separated = labels.separator is not None and any(labels.separator in text for text in texts)
    separator = None if labels.names or separated else _separator(texts, len(cells))
    if separator and labels.separator:
        example = _with(separator, texts)
        notes.append(f"{where} hold no {labels.separator!r}: is {separator!r} the separator in {example!r:.60}?")
    elif separator and labels.several:
        raise TableError(
            f"{where} may hold several labels, such as {_with(separator, texts)!r:.60}: name what separates them, "
            f"--label_separator='{separator}'; if each cell is one label, name a character that stands in none of them"
        )
    elif separator and _repeats(texts, separator):
        notes.append(
            f"{where} are one class each, such as {_with(separator, texts)!r:.60}. If they hold several labels, say so: "
            f"--label_separator='{separator}'"
        )
    elif labels.several and texts and not (labels.separator or listed or labels.names):
        notes.append(f"{where} are one label each, such as {texts[0]!r:.60}; what separates several? --label_separator")
    if labels.names:
        notes.append(f"{where} are numbers that the file names: 0 is {labels.names[0]!r}, of {len(labels.names)}")
    elif any(not is_list(cell) and _text(cell).endswith(".0") and _text(cell) != name_of(cell, "") for cell in cells):
        notes.append(f"{where} hold whole numbers such as 1.0, which are written 1")
    if any(isinstance(cell, str) for cell in listed):
        notes.append(f"{where} spell lists, such as {next(cell for cell in listed if isinstance(cell, str))!r:.60}")
    return notes


def _text(cell: Any) -> str:
    return "" if isinstance(cell, dict | bytes) else text_of(cell, "")


def _separator(texts: Sequence[str], num_cells: int) -> str | None:
    """The character that may separate labels and stands in at least half of the cells; None if there is none."""
    counts = {separator: sum(separator in text for text in texts) for separator in _SEPARATORS}
    best = max(counts, key=counts.get)
    return best if counts[best] and 2 * counts[best] >= num_cells else None


def _with(separator: str, texts: Sequence[str]) -> str:
    return next(text for text in texts if separator in text)


def _repeats(texts: Sequence[str], separator: str) -> bool:
    """Whether the parts of the cells come in several combinations, as labels do; those of "tench, Tinca tinca" do not."""
    parts: dict[str, set[str]] = {}
    for text in texts:
        for part in text.split(separator):
            parts.setdefault(part.strip(), set()).add(text)
    return 2 * sum(len(cells) > 1 for cells in parts.values()) > len(parts)


def check_images(table: Table, images: ImageCells) -> list[str]:
    """Checks the image cells of the first rows.

    Returns:
        lines that tell how the cells are read, where that is not obvious.

    Raises:
        TableError: if more than a tenth of the cells with an image hold a URL, or name several images.
    """
    columns = template_columns(images.template) if images.template else [images.column]
    problems: dict[type, list[str]] = {UrlError: [], SeveralImagesError: []}
    notes: dict[str, str] = {}
    num_rows = 0
    missing: list[Path] = []
    for row in table.sample(columns, _IMAGES):
        cell = None if images.template else row[images.column]
        try:
            image = images.read(row)
        except (UrlError, SeveralImagesError) as error:
            problems[type(error)].append(str(error))
            num_rows += 1
            continue
        except ValueError:
            continue  # the row will be rejected, and counted
        num_rows += image is not None
        if isinstance(image, Path) and not is_file(image):
            missing.append(image)
        if isinstance(cell, str) and isinstance(image, bytes):
            notes.setdefault("base64", "are base64")
        elif isinstance(cell, str) and image is not None and "\\" in cell and "\\" not in str(image):
            notes.setdefault("\\", f"are written with \\, which is read as /: {cell!r:.60}")
        elif isinstance(cell, str) and image is not None and image.name.startswith(f"{cell.rpartition('/')[2]}."):
            notes.setdefault("suffix", f"lack their suffix, which is found: {cell!r:.60} is {image.name}")
    where = f"{table.name}: the cells of image column {images.column!r}" if images.column else f"{table.name}: the images"
    for kind, messages in problems.items():
        if len(messages) > 0.1 * num_rows:
            raise TableError(f"{where} {'are URLs' if kind is UrlError else 'hold several images'}. {messages[0]}")
    if missing and len(missing) == num_rows:
        notes["absent"] = f"name no file: {missing[0]} is not there. Where are they? --image_root, or --image_template"
    return [f"{where} {note}" for note in notes.values()]


def split_notes(table: Table, column: str) -> list[str]:
    """Lines that tell which other spellings of split names in the first rows are read as which split."""
    names = dict.fromkeys(str(row[column]).strip() for row in table.sample([column], _ROWS))
    splits = {name: SPLIT_NAMES.get(name.casefold(), name) for name in names}
    spellings = ", ".join(f"{name!r} as {split}" for name, split in splits.items() if name != split)
    return [f"{table.name}: column {column!r} names splits: {spellings}"] if spellings else []


def frame_digest(frame: pandas.DataFrame, columns: Iterable[str]) -> str:
    """A sha256, in hex, of the values in some columns of a DataFrame, which does not depend on how they are stored."""
    names = list(map(str, frame.columns))
    places = sorted({names.index(column) for column in columns})
    digest = hashlib.sha256(repr([names[place] for place in places]).encode())
    for values in frame.iloc[:, places].itertuples(index=False, name=None):
        digest.update(repr([_plain(value) for value in values]).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    if is_missing(value):
        return None
    return value.tolist() if hasattr(value, "tolist") else value
