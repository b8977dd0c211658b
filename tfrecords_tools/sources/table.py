"""A table in which each row is an example: CSV, JSON, Parquet, or a pandas DataFrame. Columns are given roles.

    id,image,title,description,category                    --image=image --text=title,description --label=category
    a1,images/a1.jpg,"Mug, blue","Dishwasher safe",kitchen

- Image paths are relative to the folder of the table, or to `image_root`, and may not lead out of it (packing's
  `allow_outside` allows it). An empty cell means that there is no image. A cell may also hold the encoded picture: bytes,
  Hugging Face's {bytes, path}, or base64. `image_template` makes paths of columns.
- In JSON and Parquet a text or label cell may hold a list (five captions, three tags); label cells of CSV may spell one
  ("['red', 'round']"), where examples may carry several labels.
- `label_separator` splits a cell into several labels ("1 19" or "red|round"); the dataset is then multi-label. It also is if
  each label has a column that holds 0 or 1. The labels of a row whose label cells are empty are unknown, unless
  `empty_means_none` is given.
- Splits are drawn by label where no column gives them. Other spellings of their names (Train, validation, dev) are read as
  train, val and test.
- Cells are read as text without any change: "NA" and "None" stay words, and 007 keeps its zeros. Ids and labels alone lose
  the ".0" of whole numbers.
- How a file is written (delimiter, encoding, compression) is detected where it is unambiguous, and reported.
- CSV and TSV cells may be quoted with `"`; a cell that begins with a bare `"` must double it.
- A row that cannot be read (too many cells, broken JSON, no id) is rejected with its line number, and the others are packed.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrecords_tools.sources.command import SourceCommand, comma_list
from tfrecords_tools.sources.example import Rejection, Source, SourceExample
from tfrecords_tools.sources.files import SPLIT_NAMES
from tfrecords_tools.sources.table_cells import LabelCells, LabelFlags, is_list, list_in, name_of, text_of, texts_of
from tfrecords_tools.sources.table_checks import check_images, check_labels, frame_digest, split_notes
from tfrecords_tools.sources.table_file import TableError, TextFormat, delimiter_option
from tfrecords_tools.sources.table_images import ImageCells, template_columns
from tfrecords_tools.sources.table_roles import Columns, check_columns, check_roles
from tfrecords_tools.sources.table_rows import Table, open_table
from tfrecords_tools.sources.text_rows import BadRow

if TYPE_CHECKING:
    import pandas


def make_source(
    tables: list[str | Path | pandas.DataFrame],
    columns: Columns,
    label_separator: str | None = None,
    multi_label: bool = False,
    image_root: str | Path | None = None,
    encoding: str | None = None,
    derived_from_label: tuple[str, ...] = (),
    image_template: str | None = None,
    first_image: bool = False,
    delimiter: str | None = None,
    quotes: bool = True,
    empty_means_none: bool = False,
) -> Source:
    """Declares tables as a source; their columns and first rows are checked before anything is packed.

    Args:
        tables: files (see `table_file.KINDS`) or DataFrames, read one after the other.
        columns: the role of each column.
        label_separator: splits a label cell into several labels; makes the dataset multi-label.
        multi_label: whether label cells may hold lists; makes the dataset multi-label.
        image_root: the folder to which image paths are relative; by default that of the table, or the working folder for a
            DataFrame.
        encoding: the encoding of text files; by default UTF-8, or UTF-16 or UTF-32 if the bytes say so.
        derived_from_label: text columns that are computed from the label, such as a description of the class.
        image_template: makes image paths of other columns: "images/{id}.jpg".
        first_image: whether the first image is taken of a cell with several; otherwise such cells are an error.
        delimiter: what separates cells of CSV files; by default the character that fits their first rows.
        quotes: whether cells of CSV files may be quoted; False: " is a character like any other.
        empty_means_none: in multi-label data, whether no label applies to a row whose label cells are empty; otherwise the
            labels of such a row are unknown, and it is left out.

    Raises:
        TableError: if a table is missing, of an unknown format, or lacks a column, if the roles contradict each other, or if
            cells may mean several things.

    Example:
        >>> make_source(["products.csv"], Columns(image="image", text=("title", "description"), label="category"))
    """
    check_roles(columns, label_separator, derived_from_label, image_template)
    text_format = TextFormat(encoding, delimiter, quotes)
    needed = [*columns.named(), *(template_columns(image_template) if image_template else ())]
    several = multi_label or label_separator is not None or bool(columns.labels)
    unknown = several and not empty_means_none
    opened = [open_table(table, text_format) for table in tables]
    readers = [
        _Reader(table, columns, image_root, image_template, first_image, label_separator, several, needed, unknown)
        for table in opened
    ]
    notes = [note for reader in readers for note in reader.check()]
    stems = [table.stem for table in opened]
    if columns.id is None and len(set(stems)) < len(stems):
        raise TableError(f"tables of one name give equal ids; name an id column (--id). Received: {stems}")
    options = dataclasses.asdict(columns) | {
        "label_separator": label_separator,
        "image_root": str(image_root) if image_root else None,
        "derived_from_label": list(derived_from_label),
    }
    unusual = {
        "multi_label": multi_label,
        "encoding": encoding,
        "image_template": image_template,
        "first_image": first_image,
        "delimiter": delimiter,
        "no_quotes": not quotes,
        "empty_means_none": empty_means_none,
        "frames": [frame_digest(table, needed) for table in tables if not isinstance(table, str | Path)],
    }
    return Source(
        name="table",
        examples=lambda: itertools.chain.from_iterable(reader.iter_examples() for reader in readers),
        text_fields={field: field in derived_from_label for field in columns.text},
        multi_label=several,
        files=[Path(table) for table in tables if isinstance(table, str | Path)],
        options=options | {name: value for name, value in unusual.items() if value},
        labels=list(columns.labels) or _numbering([table.class_names.get(columns.label) for table in opened]),
        notes=tuple(notes),
        image_roots=tuple(dict.fromkeys(Path(image_root) if image_root else table.folder for table in opened)),
        stratify=not columns.split and bool(columns.label or columns.labels),
    )


def _numbering(names: list[list[str] | None]) -> list[str] | None:
    """The names of the classes in their order, if all files give the same ones; otherwise None."""
    if not names or names[0] is None or any(other != names[0] for other in names):
        return None
    classes = [" ".join(name.split()) for name in names[0]]  # as label cells are read
    return classes if all(classes) and len(set(classes)) == len(classes) else None


class _Reader:
    """Makes examples of the rows of one table."""

    def __init__(
        self,
        table: Table,
        columns: Columns,
        image_root: str | Path | None = None,
        image_template: str | None = None,
        first_image: bool = False,
        label_separator: str | None = None,
        several: bool = False,
        needed: Sequence[str] = (),
        unknown_if_empty: bool = False,
    ):
        self._table, self._columns, self._needed = table, columns, list(needed) or columns.named()
        root = Path(image_root) if image_root else table.folder
        self._unknown_if_empty = unknown_if_empty
        self._images = self._labels = None
        self._flags = LabelFlags(columns.labels) if columns.labels else None
        if columns.image or image_template:
            self._images = ImageCells(columns.image, root, image_template, first_image)
        if columns.label:
            names = table.class_names.get(columns.label)
            self._labels = LabelCells(columns.label, label_separator, several, names)

    def check(self) -> list[str]:
        """Raises a TableError if the table cannot be read as asked; returns lines that tell how it is read."""
        check_columns(self._table, self._needed)
        notes = [f"{self._table.name}: {self._table.read_as}"] if self._table.read_as else []
        notes += check_labels(self._table, self._labels) if self._labels else []
        notes += split_notes(self._table, self._columns.split) if self._columns.split else []
        return notes + (check_images(self._table, self._images) if self._images else [])

    def iter_examples(self) -> Iterator[SourceExample | Rejection]:
        """Yields an example for each row, or a rejection for a row that cannot be read."""
        for where, row in self._table.iter_rows(self._needed):
            example_id = f"{self._table.stem}:{where.rsplit(':', 1)[-1]}" if self._columns.id is None else ""
            if isinstance(row, BadRow):
                yield Rejection(example_id, where, str(row), rows=row.rows)
                continue
            try:
                example_id = example_id or _id(row[self._columns.id], self._columns.id)
                yield self._example(example_id, where, row)
            except ValueError as error:
                yield Rejection(example_id, where, str(error))

    def _example(self, example_id: str, where: str, row: dict[str, Any]) -> SourceExample:
        columns = self._columns
        labels = self._flags.read(row) if self._flags else self._labels.read(row[columns.label]) if self._labels else []
        unknown = self._unknown_if_empty and not labels and not self._none_applies(row)
        return SourceExample(
            id=example_id,
            where=where,
            image=self._images.read(row) if self._images else None,
            texts={field: texts_of(row[field], field) for field in columns.text},
            labels=labels or [],
            split=_split(row[columns.split], columns.split) if columns.split else None,
            weight=_weight(row[columns.weight], columns.weight) if columns.weight else 1.0,
            group=(name_of(row[columns.group], columns.group) or None) if columns.group else None,
            unknown_labels=unknown,
        )

    def _none_applies(self, row: dict[str, Any]) -> bool:
        """Whether a row without labels says, by an empty list or by zeros, that no label applies."""
        if self._flags:
            return self._flags.read(row) is not None
        cell = row[self._columns.label] if self._labels else None
        return (list_in(cell) if isinstance(cell, str) else list(cell) if is_list(cell) else None) == []


def check_table(
    table: str | Path | pandas.DataFrame, columns: Columns, label_separator: str | None = None, multi_label: bool = False
) -> list[str]:
    """Raises a TableError if a table cannot be read, or lacks a column; returns lines that tell how it is read."""
    several = multi_label or label_separator is not None
    return _Reader(open_table(table), columns, label_separator=label_separator, several=several).check()


def iter_examples(
    table: str | Path | pandas.DataFrame, columns: Columns, label_separator: str | None = None, multi_label: bool = False
) -> Iterator[SourceExample | Rejection]:
    """Yields an example for each row of a table, or a rejection for a row that cannot be read."""
    several = multi_label or label_separator is not None
    return _Reader(open_table(table), columns, label_separator=label_separator, several=several).iter_examples()


def _id(value: Any, column: str) -> str:
    example_id = name_of(value, column)
    if not example_id:
        raise ValueError(f"empty id in column {column!r}")
    return example_id


def _split(value: Any, column: str) -> str:
    split = text_of(value, column)
    if not split:
        raise ValueError(f"empty split in column {column!r}")
    return SPLIT_NAMES.get(split.casefold(), split)


def _weight(value: Any, column: str) -> float:
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise ValueError(f"weight must be a number of at least 0. Received: {value!r} in column {column!r}")
    return weight


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tables", nargs="+", metavar="FILE", help=".csv, .tsv, .jsonl, .json or .parquet; also .gz, .zip")
    parser.add_argument("--image", metavar="COLUMN", help="image paths, relative to --image_root, or encoded images")
    parser.add_argument("--text", metavar="COLUMN,…", default="", help="text columns; their names become the text fields")
    parser.add_argument("--label", metavar="COLUMN", help="label names (none: an unlabelled dataset)")
    parser.add_argument("--label_separator", metavar="S", help="several labels a cell, separated by S (makes it multi-label)")
    parser.add_argument("--multi_label", action="store_true", help="label cells may hold lists")
    parser.add_argument(
        "--empty_means_none",
        action="store_true",
        help="no label applies to a row whose label cells are empty, where rows may have several labels (default: nothing is "
        "known of it, and it is left out)",
    )
    parser.set_defaults(label_columns="")
    parser.add_argument("--id", metavar="COLUMN", help="unique ids (default: file name and row)")
    parser.add_argument("--split", metavar="COLUMN", help="split names (default: drawn by label, see --fractions)")
    parser.add_argument("--group", metavar="COLUMN", help="rows with the same value get the same split: a product, a patient")
    parser.add_argument("--weight", metavar="COLUMN", help="example weights (default: 1)")
    parser.add_argument("--image_root", metavar="FOLDER", help="default: the folder of the table")
    parser.add_argument(
        "--image_template", metavar="PATH", help="image paths made of columns: 'images/{id}.jpg', 'images/{id:06d}'"
    )
    parser.add_argument("--first_image", action="store_true", help="of cells that name several images take the first")
    parser.add_argument("--encoding", help="of text tables (default: UTF-8, or UTF-16 if the bytes say so)")
    parser.add_argument("--delimiter", type=delimiter_option, metavar="C", help="of CSV: ';', '|', tab (default: what fits)")
    parser.add_argument("--no_quotes", action="store_true", help='of CSV: " is a character as any other')
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
        labels=comma_list(options.label_columns),
        group=options.group,
    )
    return make_source(
        options.tables,
        columns,
        label_separator=options.label_separator,
        multi_label=options.multi_label,
        image_root=options.image_root,
        encoding=options.encoding,
        derived_from_label=comma_list(options.derived_from_label),
        image_template=options.image_template,
        first_image=options.first_image,
        delimiter=options.delimiter,
        quotes=not options.no_quotes,
        empty_means_none=options.empty_means_none,
    )


COMMAND = SourceCommand(
    name="table",
    help="CSV, JSON, JSON Lines or Parquet, one example in each row",
    epilog="""examples:
  tfrecords-tools pack table products.csv --image=image --text=title,description --label=category \\
      --id=id --fractions=train=0.8,test=0.2 --output=data/products
  tfrecords-tools pack table train.csv --image=ImageID --text=Caption --label=Labels --label_separator=' ' \\
      --image_root=images --output=data/captions
  tfrecords-tools pack table photos.csv --image=file --labels=red,round,large --group=product --output=data/photos

--labels names a file of labels, or the columns that say by 0 and 1 whether the label that they are called applies.
""",
    add_arguments=_add_arguments,
    make_source=_source_of,
)
