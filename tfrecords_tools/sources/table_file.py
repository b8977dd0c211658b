"""Detects how a table's file is written: its compression, kind, encoding and delimiter. Options say what cannot be detected."""

from __future__ import annotations

import bz2
import contextlib
import csv
import dataclasses
import gzip
import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import BinaryIO, TextIO

from tfrecords_tools.sources.example import SourceError

KINDS = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".psv", ".txt"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson"), "json lines"),
    ".json": "json",
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
_COMPRESSED = (".gz", ".bz2", ".xz", ".zip")
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_USUAL = {".tsv": "\t", ".tab": "\t", ".psv": "|"}
_MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"PK\x03\x04": "zip"}
_FOREIGN = {
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save it as CSV (UTF-8)",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it first: zstd -d",
    b"ARROW1": "an Arrow or Feather file; pandas.read_feather(…).to_parquet(…) makes a Parquet file of it",
    b"SQLite format 3": "an SQLite database; export its table as CSV",
    b"version https://git-lfs": "a pointer of Git LFS and not the file itself; fetch that by: git lfs pull",
}
_SPACED = r'{0} +"(?:[^"\n]|"")*" *(?:{0}|\r?$)'  # a whole quoted cell behind a delimiter and spaces
_HEAD = 2**16
_BYTE_ORDER_MARKS = ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


class TableError(SourceError):
    """A table that cannot be read at all, because it lacks a column, or has another format or encoding."""


@dataclasses.dataclass(frozen=True)
class TextFormat:
    """How text tables are written, as far as the caller knows.

    Attributes:
        encoding: of the text; None: UTF-8, or UTF-16 or UTF-32 if the bytes say so.
        delimiter: of CSV files; None: the one of comma, semicolon, tab and bar that fits the first rows.
        quotes: whether cells of CSV files may be quoted. False: " is a character like any other.
        lenient: whether bytes that are not UTF-8 make only their own row a bad one; otherwise they are an error for the file.
    """

    encoding: str | None = None
    delimiter: str | None = None
    quotes: bool = True
    lenient: bool = False

    def __post_init__(self):
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise ValueError(f"delimiter must be one character, such as ';' or a tab. Received: {self.delimiter!r}")


@dataclasses.dataclass(frozen=True)
class TableFile:
    """A table's file, and how it is written.

    Attributes:
        path: the file.
        kind: "csv", "json lines", "json" or "parquet".
        stem: its name without suffixes.
        read_as: how it is read, where its name does not say so; otherwise "".
        compression: "gz", "bz2", "xz" or "zip"; None if it is not compressed.
        encoding, delimiter, quotes, lenient: as in `TextFormat`, with what was detected in the place of None.
        marked: whether a line "sep=;" stands before the header.
        spaced: whether spaces stand before the quotes of cells.
    """

    path: Path
    kind: str
    stem: str
    read_as: str = ""
    compression: str | None = None
    encoding: str = "utf-8-sig"
    delimiter: str = ","
    quotes: bool = True
    lenient: bool = False
    marked: bool = False
    spaced: bool = False

    @contextlib.contextmanager
    def open(self) -> Iterator[TextIO]:
        """Opens the text, behind the line "sep=;" if there is one.

        Raises:
            TableError: while the text is read, if the file is damaged or has another encoding.
        """
        errors = "surrogateescape" if self.lenient and self.encoding.startswith("utf-8") else "strict"
        with _reading(self.path, self.encoding), _open(self.path, self.compression) as binary:
            text = io.TextIOWrapper(binary, self.encoding, errors, newline="")
            if self.marked:
                text.readline()
            yield text


def find_format(path: Path, given: TextFormat = TextFormat()) -> TableFile:
    """Detects how a table's file is written, by its name and its beginning.

    Raises:
        TableError: if there is no such file, or it is no table.
    """
    if path.is_dir():
        raise TableError(f"{path} is a folder; name the tables in it, for example {path / '*.parquet'}")
    if not path.is_file():
        raise TableError(f"table {path} does not exist")
    with open(path, "rb") as file:
        start = file.read(32)
    compression = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
    names = _name_without(path, compression)
    for magic, description in _FOREIGN.items():
        if start.startswith(magic):
            raise TableError(f"{path} is {description}")
    suffix = PurePath(names).suffix.lower()
    if start.startswith(b"PAR1") and not compression:
        return TableFile(path, "parquet", PurePath(names).stem, "" if KINDS.get(suffix) == "parquet" else "read as Parquet")
    if suffix not in KINDS and given.delimiter is None:
        raise TableError(
            f"tables are {', '.join(KINDS)} files, which may end in {', '.join(_COMPRESSED)} too. Received: {path}. Other text "
            "with delimiters is read if one is named, for example --delimiter=';'"
        )
    kind = KINDS.get(suffix, "csv")
    if kind == "parquet":
        if compression:
            raise TableError(f"{path} is a compressed Parquet file; unpack it first")
        return TableFile(path, kind, PurePath(names).stem)
    return _find_text_format(TableFile(path, kind, PurePath(names).stem, compression=compression), suffix, given)


def _find_text_format(table: TableFile, suffix: str, given: TextFormat) -> TableFile:
    with _reading(table.path, given.encoding or "text"), _open(table.path, table.compression) as binary:
        head = binary.read(_HEAD)
    encoding = given.encoding or _guess_encoding(head)
    with _reading(table.path, encoding):
        text = head.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "ignore")
    if re.match(r"\s*<(!doctype\s+html|html)\b", text, re.IGNORECASE):
        raise TableError(f"{table.path} is a web page and not a table: what a site answers instead of a file, perhaps")
    kind = table.kind
    if kind != "csv" and text.lstrip().startswith("[") and re.match(r"\[\s*(\{|\]|$)", text.lstrip()):
        kind = "json"
    elif kind in ("json", "csv") and text.lstrip().startswith("{") and _holds_lines(text, whole=len(head) < _HEAD):
        kind = "json lines"
    elif kind == "json lines" and text.lstrip().partition("\n")[0].strip() == "{":
        kind = "json"
    usual = _USUAL.get(suffix, ",")
    mark = re.match(r'"?sep=(.)"?\r?\n', text) if kind == "csv" else None
    delimiter = given.delimiter or (mark and mark[1])
    if kind == "csv" and not delimiter:
        delimiter = _find_delimiter(text[mark.end() :] if mark else text, usual, len(head) < _HEAD, given.quotes)
    file = dataclasses.replace(
        table,
        kind=kind,
        encoding=encoding,
        delimiter=delimiter or usual,
        quotes=given.quotes,
        lenient=given.lenient,
        marked=bool(mark),
        spaced=kind == "csv" and given.quotes and bool(re.search(_SPACED.format(re.escape(delimiter)), text, re.MULTILINE)),
    )
    return dataclasses.replace(file, read_as=_describe(file, table.kind, usual, given))


def _describe(file: TableFile, expected: str, usual: str, given: TextFormat) -> str:
    """How a text table is read, as far as its name and the options do not say so."""
    parts = []
    if file.kind == "csv" and file.delimiter not in (usual, given.delimiter):
        parts.append(f"cells between {_DELIMITERS.get(file.delimiter, repr(file.delimiter))}")
    if file.spaced:
        parts.append("spaces before quotes")
    if file.kind != expected:
        parts.append({"json": "one JSON document", "json lines": "a JSON object a line"}[file.kind])
    if file.encoding != "utf-8-sig" and not given.encoding:
        parts.append(file.encoding.upper())
    if file.compression and file.path.suffix.lower() != f".{file.compression}":
        parts.append(f"compressed by {file.compression}")
    return f"read as {', '.join(parts)}" if parts else ""


def _name_without(path: Path, compression: str | None) -> str:
    """The file's name without the suffix of its compression; for a .zip the name of the one file in it."""
    if compression == "zip":
        return PurePath(_member(path)).name
    return path.stem if path.suffix.lower() in _COMPRESSED else path.name


def _member(path: Path) -> str:
    """The name of the one file in a .zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise TableError(f"{path} is no complete zip file: {error}") from error
    if "xl/workbook.xml" in names or "[Content_Types].xml" in names:
        raise TableError(f"{path} is an Excel workbook; save it as CSV (UTF-8)")
    names = [name for name in names if not name.startswith("__MACOSX/") and not PurePath(name).name.startswith(".")]
    tables = [name for name in names if PurePath(name).suffix.lower() in KINDS]
    tables = [name for name in tables if not name.lower().endswith(".txt")] or tables  # a README, perhaps
    if len(tables) != 1:
        raise TableError(f"{path} holds {len(tables)} tables, and must hold one; unpack it, and name the table: {names[:10]}")
    return tables[0]


@contextlib.contextmanager
def _open(path: Path, compression: str | None) -> Iterator[BinaryIO]:
    if compression == "zip":
        with zipfile.ZipFile(path) as archive, archive.open(_member(path)) as file:
            yield file
        return
    opener = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open, None: open}[compression]
    with opener(path, "rb") as file:
        yield file


@contextlib.contextmanager
def _reading(path: Path, encoding: str) -> Iterator[None]:
    """Turns the errors that a damaged file raises while it is read into a TableError that names the file."""
    try:
        yield
    except (UnicodeError, LookupError) as error:
        if isinstance(error, LookupError) and "encoding" not in str(error):
            raise  # a fault of this program
        name = "UTF-8" if encoding == "utf-8-sig" else encoding
        raise TableError(f"{path} is not {name}: {error}. Name its encoding, for example --encoding=cp1252") from error
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise TableError(f"{path} is no complete compressed file: {error}") from error
    except RuntimeError as error:
        if "password" not in str(error):
            raise
        raise TableError(f"{path} is encrypted; unpack it first") from error


def _guess_encoding(head: bytes) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding
    even, odd = head[0:2000:2].count(0), head[1:2000:2].count(0)
    if max(even, odd) > 0.2 * len(head[:2000]) and min(even, odd) == 0:  # text of mostly Latin letters, without a mark
        return "utf-16-le" if odd else "utf-16-be"
    return "utf-8-sig"


def _holds_lines(text: str, whole: bool) -> bool:
    """Whether text that begins with a JSON object holds an object a line. `whole`: the text is the whole file."""
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines or (len(lines) == 1 and whole):
        return False
    try:
        return isinstance(json.loads(lines[0]), dict)
    except (ValueError, RecursionError):
        return False


def _find_delimiter(text: str, usual: str, whole: bool, quotes: bool) -> str:
    """The delimiter that gives the first rows as many cells as the header; the usual one if it does too, or if none does."""
    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    fits = {}
    for delimiter in dict.fromkeys((usual, *_DELIMITERS)):
        try:
            rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting) if row]
        except csv.Error:
            continue
        rows = rows[: 100 if whole else max(1, min(100, len(rows) - 1))]  # the last one may be cut off
        if rows and len(rows[0]) > 1:
            alike = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
            fits[delimiter] = (alike > 0.9, len(rows) > 1 or delimiter == usual, delimiter == usual, len(rows[0]))
    return max(fits, key=fits.get, default=usual)


def delimiter_option(text: str) -> str:
    """The delimiter that is meant on a command line: "tab" and a spelled "\\t" are a tab.

    Raises:
        ValueError: if it is not one character.
    """
    return TextFormat(delimiter={"tab": "\t", "\\t": "\t"}.get(text, text)).delimiter
