"""Examples in any form that a classifier takes them: which columns it reads, their rows, and their labels."""

from __future__ import annotations

import dataclasses
import difflib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm_keras.estimator.cells import absolute, image_cell
from mm_keras.estimator.columns import label_columns
from mm_keras.estimator.labels import LabelForm
from tfrecords_tools.sources.table_cells import LabelFlags
from tfrecords_tools.sources.table_rows import open_table
from tfrecords_tools.sources.text_rows import BadRow

if TYPE_CHECKING:
    import pandas


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
        """All columns that are read, the image column first."""
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
        table = open_table(Path(data))
        rows = [row for _, row in table.iter_rows(())]
        bad = sum(row.rows for row in rows if isinstance(row, BadRow))
        if bad:
            first = next(row for row in rows if isinstance(row, BadRow))
            warnings.warn(f"{data}: {bad:,} rows cannot be read and are left out, the first: {first}", stacklevel=3)
        return pandas.DataFrame([row for row in rows if not isinstance(row, BadRow)]), table.folder
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
    columns = label_columns(y, frame)
    if isinstance(columns, list):
        flags, rows = LabelFlags(tuple(columns)), frame[columns].to_dict("records")
        return form.filled([flags.read(row) for row in rows], several=True), True
    if isinstance(y, str):
        check_column(frame, y)
        y = frame[y]
    cells = list(y)
    if len(cells) != len(frame):
        raise ValueError(f"there are {len(frame):,} examples and {len(cells):,} labels")
    return form.read(cells)
