"""Reads the rows of a table: a CSV, TSV, JSON Lines or Parquet file, or a pandas DataFrame."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfrecords_tools.sources.files import SourceError, iter_cells, name_cells

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")


class TableError(SourceError):
    """A table that cannot be read at all, because it lacks a column, or has another format or encoding."""


def table_name(table) -> str:
    """The name of a table for messages: its file name, or "DataFrame"."""
    return Path(table).name if isinstance(table, str | Path) else "DataFrame"


def column_names(table, encoding) -> list[str]:
    """The names of the columns of a table.

    Those of a JSON Lines file are the keys in its first 1,000 rows. `encoding` is that of a text file; None guesses it.

    Raises:
        TableError: if there is no such file, or it cannot be read.
    """
    if not isinstance(table, str | Path):
        return [str(column) for column in table.columns]
    path = Path(table)
    if not path.is_file():
        raise TableError(f"table {path} does not exist")
    if path.suffix not in FORMATS:
        raise TableError(f"tables are {', '.join(FORMATS)} files. Received: {path}")
    if path.suffix == ".parquet":
        return _parquet(path).schema_arrow.names
    if path.suffix == ".jsonl":
        rows = (row for _, row in iter_rows(path, encoding) if isinstance(row, dict))
        return sorted({key for row in itertools.islice(rows, 1000) for key in row})
    try:
        with open(path, encoding=encoding or _guess_encoding(path), newline="") as file:
            return _header(iter_cells(file, path.name, "\t" if path.suffix == ".tsv" else ","), path)
    except (UnicodeError, LookupError) as error:
        raise TableError(f"{path}: {error}. Name its encoding, for example --encoding=cp1252") from error


def iter_rows(table, encoding) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Yields (place, row) pairs such as ("products.csv:17", {"id": "a1"}), or (place, reason) if a row cannot be read."""
    name = table_name(table)
    if not isinstance(table, str | Path):
        for index, values in enumerate(table.itertuples(index=False, name=None)):
            yield f"{name}:{index}", dict(zip(map(str, table.columns), values, strict=True))
        return
    path = Path(table)
    if path.suffix == ".parquet":
        parquet = _parquet(path)
        rows = itertools.chain.from_iterable(batch.to_pylist() for batch in parquet.iter_batches(1024))
        for index, row in enumerate(rows):
            yield f"{name}:{index}", row
        return
    encoding = encoding or _guess_encoding(path)
    try:
        with open(path, encoding=encoding, newline="") as file:
            yield from _iter_json_lines(file, name) if path.suffix == ".jsonl" else _iter_csv(file, path)
    except (UnicodeError, LookupError) as error:
        raise TableError(f"{path} is not {encoding}: {error}. Name its encoding, for example --encoding=cp1252") from error


def _iter_csv(file, path: Path) -> Iterator[tuple[str, dict[str, str] | str]]:
    rows = iter_cells(file, path.name, "\t" if path.suffix == ".tsv" else ",")
    header = _header(rows, path)
    return (name_cells(where, header, cells) for where, cells in rows)


def _header(rows: Iterator[tuple[str, list[str] | str]], path: Path) -> list[str]:
    _, header = next(rows, ("", []))
    if isinstance(header, str):
        raise TableError(f"{path} has a malformed header: {header}")
    return header


def _iter_json_lines(file, name: str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            yield f"{name}:{number}", f"malformed row: {error}"
            continue
        if not isinstance(row, dict):
            yield f"{name}:{number}", f"malformed row: expected a JSON object, found {type(row).__name__}"
            continue
        yield f"{name}:{number}", _Optional(row)


class _Optional(dict):
    """A JSON object, in which a key that is left out has the value None."""

    def __missing__(self, key):
        return None


def _parquet(path: Path):
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise TableError(f"{path} is no readable Parquet file: {error}") from error


def _guess_encoding(path: Path) -> str:
    with open(path, "rb") as file:
        return "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
