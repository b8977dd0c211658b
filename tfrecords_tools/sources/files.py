"""Reads files that several sources have: text and CSV files, which may be large, compressed or damaged, and image folders."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from tfrecords_tools.sources.example import SourceError
from tfrecords_tools.sources.text_rows import BadRow, header_names, iter_cells, name_cells

_SUFFIXES = "apng avif bmp gif heic j2k jfif jp2 jpe jpeg jpg pgm png pnm ppm tga tif tiff webp"
IMAGE_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split(" "))
MOST_NESTED = 100
SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("val", "valid", "validation", "dev", "development"), "val"
)


def open_bytes(path: str | Path) -> BinaryIO:
    """Opens a file for reading bytes. A UTF-8 byte order mark is skipped, and a file whose name ends in .gz is decompressed.

    Raises:
        SourceError: if there is no such file, or its compression is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise SourceError(f"{path} does not exist")
    file = (gzip.open if path.suffix == ".gz" else open)(path, "rb")
    with reading(path):
        if file.peek(len(codecs.BOM_UTF8)).startswith(codecs.BOM_UTF8):
            file.read(len(codecs.BOM_UTF8))
    return file


def open_text(path: str | Path) -> TextIO:
    """Opens UTF-8 text, with or without byte order mark, compressed if its name ends in .gz. Line ends are kept.

    Raises:
        SourceError: if there is no such file.
    """
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8", newline="")


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turns the errors of reading a damaged file into a `SourceError` that names the file."""
    try:
        yield
    except UnicodeError as error:
        raise SourceError(f"{path} is not UTF-8: {error}") from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise SourceError(f"{path} is no complete gzip file: {error}") from error


def iter_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yields (line number, line) of all lines that are not blank. Numbers begin at 1; white space around lines is removed."""
    with open_text(path) as file, reading(path):
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line.strip()


def iter_csv(path: str | Path, columns: Iterable[str]) -> Iterator[tuple[str, dict[str, str] | BadRow]]:
    """Yields ("name:line", row) for each row of a CSV file with a header, or ("name:line", what is wrong with the row).

    Raises:
        SourceError: if the file has no header, or one without all of `columns`.
    """
    path = Path(path)
    with open_text(path) as file, reading(path):
        rows = iter_cells(file, path.name)
        _, header = next(rows, ("", []))
        if isinstance(header, BadRow):
            raise SourceError(f"{path} has a malformed header: {header}")
        header = header_names(header)
        missing = [column for column in columns if column not in header]
        if missing:
            raise SourceError(f"{path} has no column {missing[0]!r}; its columns are {header}")
        yield from (name_cells(where, header, cells) for where, cells in rows)


def read_pairs(path: str | Path, header: tuple[str, str]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Reads keys and texts from a CSV file: from two columns by their names, or without a header from its only two columns.

    Args:
        path: the CSV file.
        header: the names of the two columns; case does not matter. A first row that begins with the first name is a header,
            even if it lacks the second name.

    Returns:
        a dict of the texts by key (the first one of a repeated key), and ("name:line", reason) of the rows that are no pairs.

    Example:
        >>> read_pairs("classes.csv", ("LabelName", "DisplayName"))
        ({'/m/011k07': 'Tortoise'}, [('classes.csv:3', "malformed row: expected 2 cells with a LabelName; found 1")])
    """
    path, pairs, problems = Path(path), {}, []
    names = [name.lower() for name in header]
    width, columns = 2, [0, 1]
    with open_text(path) as file, reading(path):
        for index, (where, cells) in enumerate(iter_cells(file, path.name)):
            if isinstance(cells, BadRow):
                problems.append((where, cells))
                continue
            cells = [cell.strip() for cell in cells]
            lowered = [cell.lower() for cell in cells]
            if index == 0 and set(names) <= set(lowered):
                width, columns = len(cells), [lowered.index(name) for name in names]
            elif index == 0 and lowered[0] == names[0]:
                continue
            elif len(cells) != width or not cells[columns[0]]:
                problems.append((where, f"malformed row: expected {width} cells with a {header[0]}; found {len(cells)}"))
            elif cells[columns[0]] in pairs:
                problems.append((where, f"{header[0]} {cells[columns[0]]!r} stands there twice; the first is used"))
            else:
                pairs[cells[columns[0]]] = cells[columns[1]]
    return pairs, problems


def read_class_texts(
    path: str | Path, header: tuple[str, str], names: dict[str, str]
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Reads texts of classes from a CSV file, or from the class_descriptions.jsonl that `tfrecords_tools.collect` writes.

    Args:
        path: the file.
        header: the names of the two columns of the CSV file, which hold the class and its text.
        names: maps the keys of the classes to their names; the file may give a text for a key or for a name.

    Returns:
        a dict of the texts by key, and ("name:line", reason) of the rows that are no texts of classes.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        texts, problems = {}, []
        for number, line in iter_lines(path):
            try:
                row = parse_json(line)
                texts.setdefault(row["label"], row["text"])
            except (ValueError, KeyError, TypeError) as error:
                problems.append((f"{path.name}:{number}", f"expected label and text: {type(error).__name__}: {error}"))
    else:
        texts, problems = read_pairs(path, header)
    keys = {name: key for key, name in names.items()}
    return {key if key in names else keys.get(key, key): text for key, text in texts.items()}, problems


def read_synsets(path: str | Path) -> dict[str, str]:
    """Reads lines such as `n01440764 tench, Tinca tinca` into {"n01440764": "tench"}; the name is "" if a line has none."""
    synsets: dict[str, str] = {}
    for number, line in iter_lines(path):
        wnid, _, names = line.partition(" ")
        if wnid in synsets:
            raise SourceError(f"{path}:{number} repeats {wnid!r}")
        synsets[wnid] = names.partition(",")[0].strip()
    return synsets


def parse_json(text: str | bytes) -> Any:
    """Parses JSON that others wrote.

    Raises:
        ValueError: for text that is no JSON, brackets that are nested more than 100 deep, or a number of thousands of digits.
    """
    opening = b"[{" if isinstance(text, bytes) else "[{"
    if text.count(opening[:1]) + text.count(opening[1:]) > MOST_NESTED and _depth(text) > MOST_NESTED:
        raise ValueError(f"brackets are nested more than {MOST_NESTED} deep")
    return json.loads(text)


def _depth(text: str | bytes) -> int:
    """The deepest nesting of brackets in JSON text."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    depth = deepest = 0
    for bracket in re.findall(r'"(?:[^"\\]|\\.)*"|[\[{\]}]', text):
        depth += 1 if bracket in "[{" else -1 if bracket in "]}" else 0
        deepest = max(deepest, depth)
    return deepest


def joined_text(value: Any) -> str:
    """Turns a JSON value into one text: ["fish", "lake"] -> "fish, lake". null and objects become ""."""
    if isinstance(value, list):
        return ", ".join(filter(None, map(joined_text, value)))
    return "" if value is None or isinstance(value, dict) else str(value).strip()


def unique_names(names: dict[str, str]) -> dict[str, str]:
    """Makes class names unique: "crane (n02012849)" if several keys share a name, and the key if there is no name."""
    counts = Counter(names.values())
    return {key: name if name and counts[name] == 1 else f"{name} ({key})" if name else key for key, name in names.items()}


def iter_images(folder: Path, _above: frozenset = frozenset()) -> Iterator[Path]:
    """Yields the paths of the image files in and below a folder, sorted. Links are followed, and hidden files are skipped."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in _above:  # a link to a folder above
        return
    above = _above | {(status.st_dev, status.st_ino)}
    with os.scandir(folder) as entries:
        listed = sorted((entry.name, _is_folder(entry)) for entry in entries if not entry.name.startswith("."))
    for name, is_folder in listed:
        if is_folder:
            yield from iter_images(folder / name, above)
        elif Path(name).suffix.lower() in IMAGE_SUFFIXES:
            yield folder / name


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
