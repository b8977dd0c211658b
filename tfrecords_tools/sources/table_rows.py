"""Opens a table of any kind and gives its columns and its rows: CSV, JSON, Parquet, or a pandas DataFrame."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tfrecords_tools.sources.table_file import TableError, TableFile, TextFormat, find_format
from tfrecords_tools.sources.table_json import iter_json_document, iter_json_lines
from tfrecords_tools.sources.text_rows import NOT_UTF8, BadRow, header_names, iter_cells, name_cells

if TYPE_CHECKING:
    import pandas

Rows = Iterator[tuple[str, dict[str, Any] | BadRow]]
_SAMPLE = 1000


@dataclasses.dataclass(frozen=True)
class Table:
    """An opened table.

    Attributes:
        name: what it is called in messages: its file name, or "DataFrame".
        stem: its name without suffixes.
        folder: the folder to which its image paths are relative.
        columns: the names of its columns; of JSON the keys in the first 1,000 rows.
        read_as: how its file is read, where the name does not say so; otherwise "".
        class_names: maps columns of numbers to the names that the file gives them (ClassLabel of Hugging Face's datasets).
        kind: "csv", "json lines", "json", "parquet" or "frame".
        iter_rows: (columns) -> an iterator over (place, row) pairs such as ("products.csv:17", {"id": "a1"}), or (place, what
            is wrong with the row). A row has at least these columns.
    """

    name: str
    stem: str
    folder: Path
    columns: list[str]
    kind: str
    iter_rows: Callable[[Sequence[str]], Rows]
    read_as: str = ""
    class_names: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def sample(self, columns: Sequence[str], number: int) -> list[dict[str, Any]]:
        """The rows among the first `number` that can be read."""
        return [row for _, row in itertools.islice(self.iter_rows(columns), number) if not isinstance(row, BadRow)]

    def why_no_columns(self) -> str:
        """What is wrong with a table in which no column was found."""
        where, row = next(self.iter_rows([]), ("", None))
        if row is None:
            return f"{self.name} is empty: it has no columns"
        return f"no row of {self.name} can be read; the first, {where}: {row}"


def open_table(table: str | Path | pandas.DataFrame, text_format: TextFormat = TextFormat()) -> Table:
    """Finds out how a table is written, and which columns it has.

    Args:
        table: a file, see `table_file.KINDS`, which may be compressed; or a DataFrame.
        text_format: how its text is written, as far as the caller knows.

    Raises:
        TableError: if there is no such file, or it cannot be read.

    Example:
        >>> open_table("products.csv").columns
        ['id', 'image', 'title']
    """
    if not isinstance(table, str | Path):
        columns = [str(column) for column in table.columns]
        return Table("DataFrame", "row", Path(), columns, "frame", lambda _: _iter_frame(table))
    path = Path(table)
    file = find_format(path, text_format)
    if file.kind == "parquet":
        return _open_parquet(file)
    iter_rows = {"csv": _iter_csv, "json lines": _iter_json_lines, "json": _iter_json_document}[file.kind]
    if file.kind == "csv":
        with file.open() as text:
            columns = _header(_cells(text, file), path)
    else:
        rows = itertools.islice(iter_rows(file), _SAMPLE)
        columns = sorted({key for _, row in rows if isinstance(row, dict) for key in row})
    return Table(path.name, file.stem, path.parent, columns, file.kind, lambda _: iter_rows(file), file.read_as)


def _iter_frame(frame: pandas.DataFrame) -> Rows:
    names = list(map(str, frame.columns))
    for index, values in enumerate(frame.itertuples(index=False, name=None)):
        yield f"DataFrame:{index}", dict(zip(names, values, strict=True))


def _cells(text: TextIO, file: TableFile) -> Iterator[tuple[str, list[str] | BadRow]]:
    return iter_cells(text, file.path.name, file.delimiter, file.quotes, file.spaced, begun=int(file.marked))


def _iter_csv(file: TableFile) -> Rows:
    with file.open() as text:
        rows = _cells(text, file)
        header = _header(rows, file.path)
        for where, cells in rows:
            if file.lenient and NOT_UTF8.search("".join(cells)):
                cells = BadRow("malformed row: it is not UTF-8; name the encoding, for example --encoding=cp1252")
            yield name_cells(where, header, cells)


def _header(rows: Iterator[tuple[str, list[str] | BadRow]], path: Path) -> list[str]:
    _, header = next(rows, ("", []))
    if isinstance(header, BadRow):
        raise TableError(f"{path} has a malformed header: {header}")
    return header_names(header)


def _iter_json_lines(file: TableFile) -> Rows:
    with file.open() as text:
        yield from iter_json_lines(text, file.path.name)


def _iter_json_document(file: TableFile) -> Rows:
    with file.open() as text:
        yield from iter_json_document(text, file.path.name)


def _open_parquet(file: TableFile) -> Table:
    schema = _parquet(file.path).schema_arrow
    columns = schema.names

    def iter_rows(wanted: Sequence[str]) -> Rows:
        parquet = _parquet(file.path)
        wanted = [column for column in dict.fromkeys(wanted) if column in columns]
        heavy = any("binary" in str(schema.field(column).type) for column in wanted)
        batches = parquet.iter_batches(32 if heavy else 1024, columns=wanted)
        rows = itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
        yield from ((f"{file.path.name}:{index}", row) for index, row in enumerate(rows))

    return Table(
        file.path.name,
        file.stem,
        file.path.parent,
        columns,
        file.kind,
        iter_rows,
        file.read_as,
        _class_names(schema.metadata or {}),
    )


def _parquet(path: Path):
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise TableError(f"{path} is no readable Parquet file: {error}") from error


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Maps columns of ClassLabel numbers, or of lists of them, to their names, as Hugging Face's datasets write them."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = {column: _names_in(feature) for column, feature in features.items()}
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}
    return {column: class_names for column, class_names in names.items() if class_names}


def _names_in(feature) -> list[str] | None:
    if isinstance(feature, list) and feature:
        return _names_in(feature[0])
    if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
        return [str(name) for name in feature["names"]]
    return _names_in(feature["feature"]) if isinstance(feature, dict) and "feature" in feature else None
