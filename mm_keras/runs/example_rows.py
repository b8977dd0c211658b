"""The examples that are predicted, a row each, and the options by which a table is read as such rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class InputOptions:
    """How a table gives a run's inputs, where that is not clear by itself.

    Attributes:
        columns: maps inputs of the run to columns of the table, where they are not called alike.
        id: the column of ids; None: "id", if there is such a column.
        image_root: the folder to which image paths are relative; None: that of the table.
        allow_outside: whether images may lie outside of that folder.
        image_template: makes image paths of columns: "images/{id}.jpg".
        first_image: whether the first image of a cell with several is taken; otherwise such a cell is an error.
        encoding, delimiter: of text tables; None: guessed from the file.
        quotes: whether cells of CSV files may be quoted; False: " is a character as any other.
        keep: columns that are passed on beside the answers; "all": those that are neither inputs nor ids.
        split: the split of a dataset that is predicted; None: all splits.
    """

    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    id: str | None = None
    image_root: str | Path | None = None
    allow_outside: bool = False
    image_template: str | None = None
    first_image: bool = False
    encoding: str | None = None
    delimiter: str | None = None
    quotes: bool = True
    keep: Sequence[str] | Literal["all"] = ()
    split: str | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """One example to predict, or what is wrong with it.

    Attributes:
        id: as the table gives it; otherwise the name of the table and the line, "new:17", or the path of the picture.
        inputs: maps inputs of the run to texts, and the image to its path or bytes; those that are missing are left out.
        error: why the row cannot be read; "" if it can.
        number: how many rows of the source this one stands for.
        kept: the cells of the columns that are passed on, by the columns' names beside the answers.
    """

    id: str | int | float | bool
    inputs: dict[str, str | bytes] = dataclasses.field(default_factory=dict)
    error: str = ""
    number: int = 1
    kept: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Examples:
    """The examples in a table, a folder or a dataset.

    Attributes:
        stem: the name of the table or folder, for that of the predictions.
        unit: what a row is called: "lines", "rows", "pictures" or "records".
        rows: yields them in order.
        notes: lines that say how the input is read.
        image_roots: the folders in which images must lie; none: they may lie anywhere.
        kept: the names of the columns that are passed on -> their types in Parquet; None for other files.
    """

    stem: str
    unit: str
    rows: Iterator[Row]
    notes: list[str]
    image_roots: tuple[Path, ...] = ()
    kept: dict[str, Any] = dataclasses.field(default_factory=dict)
