"""A table in which each row is an example: CSV, TSV, JSON Lines, Parquet, or a pandas DataFrame. Columns are given roles.

    id,image,title,description,category                    --image=image --text=title,description --label=category
    a1,images/a1.jpg,"Mug, blue","Dishwasher safe",kitchen

- Image paths are relative to the folder of the table, or to `image_root`, and may not lead out of it (packing's
  `allow_outside` allows it). An empty cell means that there is no image.
- In JSON Lines and Parquet a text or label cell may hold a list (five captions, three tags).
- `label_separator` splits a cell into several labels ("1 19" or "red|round"); the dataset is then multi-label.
- Cells are read as text without any change: "NA" and "None" stay words, and 007 keeps its zeros.
- CSV and TSV cells may be quoted with `"`; a cell that begins with a bare `"` must double it.
- A row that cannot be read (too many cells, broken JSON, no id) is rejected with its line number, and the others are packed.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tfrecords_tools.sources.command import SourceCommand, comma_list
from tfrecords_tools.sources.example import Rejection, Source, SourceExample
from tfrecords_tools.sources.table_rows import TableError, column_names, iter_rows, table_name

if TYPE_CHECKING:
    import pandas


@dataclasses.dataclass(frozen=True)
class Columns:
    """The names of the columns by their roles; None if there is no such column.

    Attributes:
        image: holds paths of images.
        text: columns of texts; their names become the text fields.
        label: holds label names.
        id: holds ids, which are unique in the dataset. By default ids are made of the file name and the row.
        split: holds split names.
        weight: holds the weights of the examples.
    """

    image: str | None = None
    text: tuple[str, ...] = ()
    label: str | None = None
    id: str | None = None
    split: str | None = None
    weight: str | None = None

    def named(self) -> list[str]:
        """The names of all columns that have a role."""
        single = (self.image, self.label, self.id, self.split, self.weight)
        return [column for column in (*single, *self.text) if column]


def make_source(
    tables: list[str | Path | pandas.DataFrame],
    columns: Columns,
    label_separator: str | None = None,
    multi_label: bool = False,
    image_root: str | Path | None = None,
    encoding: str | None = None,
    derived_from_label: tuple[str, ...] = (),
) -> Source:
    """Declares tables as a source; their columns are checked before anything is read.

    Args:
        tables: files (.csv, .tsv, .jsonl, .parquet) or DataFrames, read one after the other.
        columns: the role of each column.
        label_separator: splits a label cell into several labels; makes the dataset multi-label.
        multi_label: whether label cells may hold lists.
        image_root: the folder to which image paths are relative; by default that of the table, or the working folder for a
            DataFrame.
        encoding: the encoding of CSV, TSV and JSON Lines files; by default UTF-8, or UTF-16 if there is a byte order mark.
        derived_from_label: text columns that are computed from the label, such as a description of the class.

    Raises:
        TableError: if a table is missing, of an unknown format, or lacks a column, or if the roles contradict each other.

    Example:
        >>> make_source(["products.csv"], Columns(image="image", text=("title", "description"), label="category"))
    """
    _check_roles(columns, label_separator, derived_from_label)
    for table in tables:
        check_columns(table, columns, encoding)
    stems = [Path(table_name(table)).stem for table in tables]
    if columns.id is None and len(set(stems)) < len(stems):
        raise TableError(f"tables of one name give equal ids; name an id column (--id). Received: {stems}")
    options = dataclasses.asdict(columns) | {
        "label_separator": label_separator,
        "image_root": str(image_root) if image_root else None,
        "derived_from_label": list(derived_from_label),
    }
    return Source(
        name="table",
        examples=lambda: itertools.chain.from_iterable(
            iter_examples(table, columns, label_separator, image_root, encoding) for table in tables
        ),
        text_fields={field: field in derived_from_label for field in columns.text},
        multi_label=multi_label or label_separator is not None,
        files=[Path(table) for table in tables if isinstance(table, str | Path)],
        options=options,
        image_roots=tuple(dict.fromkeys(_image_root(table, image_root) for table in tables)),
    )


def _check_roles(columns: Columns, label_separator: str | None, derived_from_label: tuple[str, ...]) -> None:
    if not columns.image and not columns.text:
        raise TableError("name an image column (--image), text columns (--text), or both")
    twice = [column for column in columns.text if columns.text.count(column) > 1]
    if twice:
        raise TableError(f"text column {twice[0]!r} is named twice")
    if columns.label in columns.text and columns.label not in derived_from_label:
        raise TableError(
            f"column {columns.label!r} is both the label and a text, which tells models the answer. If that is meant, "
            f"say that the text comes from the label: --derived_from_label={columns.label}"
        )
    unknown = [column for column in derived_from_label if column not in columns.text]
    if unknown:
        raise TableError(f"derived_from_label names {unknown[0]!r}, which is no text column; those are {list(columns.text)}")
    if label_separator == "":
        raise TableError("label_separator must not be empty; for label cells that hold lists use --multi_label")


def check_columns(table: str | Path | pandas.DataFrame, columns: Columns, encoding: str | None = None) -> None:
    """Raises a TableError if the table cannot be read, lacks a column, or has several columns of one name."""
    present = column_names(table, encoding)
    repeated = [name for name in present if present.count(name) > 1]
    if repeated:
        raise TableError(f"{table_name(table)} has several columns named {repeated[0]!r}")
    missing = [column for column in columns.named() if column not in present]
    if missing and not present:
        raise TableError(f"{table_name(table)} is empty: it has no columns")
    if missing:
        raise TableError(f"{table_name(table)} has no column {missing[0]!r}; its columns are {present}")


def iter_examples(
    table: str | Path | pandas.DataFrame,
    columns: Columns,
    label_separator: str | None = None,
    image_root: str | Path | None = None,
    encoding: str | None = None,
) -> Iterator[SourceExample | Rejection]:
    """Yields an example for each row, or a rejection for a row that cannot be read."""
    root = _image_root(table, image_root)
    stem = Path(table).stem if isinstance(table, str | Path) else "row"
    for where, row in iter_rows(table, encoding):
        example_id = f"{stem}:{where.rsplit(':', 1)[-1]}" if columns.id is None else ""
        if isinstance(row, str):
            yield Rejection(example_id, where, row)
            continue
        try:
            if columns.id:
                example_id = _text(row[columns.id], columns.id)
                if not example_id:
                    raise ValueError(f"empty id in column {columns.id!r}")
            image = _text(row[columns.image], columns.image) if columns.image else ""
            yield SourceExample(
                id=example_id,
                where=where,
                image=root / image if image else None,
                texts={field: _texts(row[field], field) for field in columns.text},
                labels=_labels(row[columns.label], columns.label, label_separator) if columns.label else [],
                split=_split(row[columns.split], columns.split) if columns.split else None,
                weight=_weight(row[columns.weight], columns.weight) if columns.weight else 1.0,
            )
        except ValueError as error:
            yield Rejection(example_id, where, str(error))


def _image_root(table: str | Path | pandas.DataFrame, image_root: str | Path | None) -> Path:
    if image_root:
        return Path(image_root)
    return Path(table).parent if isinstance(table, str | Path) else Path()


def _is_missing(value) -> bool:
    return value is None or (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType")


def _text(value, column: str) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, dict | bytes) or _is_list(value):
        raise ValueError(f"expected text or a number in column {column!r}, found {type(value).__name__}: {value!r:.40}")
    return "" if _is_missing(value) else str(value).strip()


def _texts(value, column: str) -> list[str]:
    return [_text(item, column) for item in value] if _is_list(value) else [_text(value, column)]


def _labels(value, column: str, separator: str | None) -> list[str]:
    if _is_list(value):
        parts = [_text(item, column) for item in value]
    else:
        text = _text(value, column)
        parts = text.split(separator) if separator else [text]
    return [" ".join(part.split()) for part in parts if part.strip()]


def _is_list(value) -> bool:
    return isinstance(value, list | tuple) or (hasattr(value, "tolist") and getattr(value, "ndim", 0) == 1)


def _split(value, column: str) -> str:
    split = _text(value, column)
    if not split:
        raise ValueError(f"empty split in column {column!r}")
    return split


def _weight(value, column: str) -> float:
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise ValueError(f"weight must be a number of at least 0. Received: {value!r} in column {column!r}")
    return weight


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tables", nargs="+", metavar="FILE", help=".csv, .tsv, .jsonl or .parquet")
    parser.add_argument("--image", metavar="COLUMN", help="image paths, relative to --image_root")
    parser.add_argument("--text", metavar="COLUMN,…", default="", help="text columns; their names become the text fields")
    parser.add_argument("--label", metavar="COLUMN", help="label names (none: an unlabelled dataset)")
    parser.add_argument("--label_separator", metavar="S", help="several labels a cell, separated by S (makes it multi-label)")
    parser.add_argument("--multi_label", action="store_true", help="label cells may hold lists (JSON Lines, Parquet)")
    parser.add_argument("--id", metavar="COLUMN", help="unique ids (default: file name and row)")
    parser.add_argument("--split", metavar="COLUMN", help="split names (default: drawn, see --fractions)")
    parser.add_argument("--weight", metavar="COLUMN", help="example weights (default: 1)")
    parser.add_argument("--image_root", metavar="FOLDER", help="default: the folder of the table")
    parser.add_argument("--encoding", help="of text tables (default: UTF-8, or UTF-16 with a byte order mark)")
    parser.add_argument(
        "--derived_from_label", metavar="COLUMN,…", default="", help="text columns computed from the label (class texts)"
    )


def _source_of(options: argparse.Namespace) -> Source:
    columns = Columns(
        image=options.image,
        text=comma_list(options.text),
        label=options.label,
        id=options.id,
        split=options.split,
        weight=options.weight,
    )
    return make_source(
        options.tables,
        columns,
        label_separator=options.label_separator,
        multi_label=options.multi_label,
        image_root=options.image_root,
        encoding=options.encoding,
        derived_from_label=comma_list(options.derived_from_label),
    )


COMMAND = SourceCommand(
    name="table",
    help="CSV, TSV, JSON Lines or Parquet, a row an example",
    epilog="""examples:
  tfrecords-tools pack table products.csv --image=image --text=title,description --label=category \\
      --id=id --fractions=train=0.8,test=0.2 --output=data/products
  tfrecords-tools pack table train.csv --image=ImageID --text=Caption --label=Labels --label_separator=' ' \\
      --image_root=images --output=data/captions
""",
    add_arguments=_add_arguments,
    make_source=_source_of,
)
