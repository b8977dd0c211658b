"""The roles of a table's columns, and checks that roles do not contradict each other and that the columns are there."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable

from tfrecords_tools.sources.table_file import TableError
from tfrecords_tools.sources.table_rows import Table


@dataclasses.dataclass(frozen=True)
class Columns:
    """The names of the columns by their roles; None if there is no such column.

    Attributes:
        image: holds paths of images, or encoded images.
        text: columns of texts; their names become the text fields.
        label: holds label names.
        labels: one column for each label, named after it; its cells say whether the label applies.
        id: holds ids, which are unique in the dataset. By default ids are made of the file name and the row.
        split: holds split names.
        group: rows with the same value get the same split where splits are drawn.
        weight: holds the weights of the examples.
    """

    image: str | None = None
    text: tuple[str, ...] = ()
    label: str | None = None
    id: str | None = None
    split: str | None = None
    weight: str | None = None
    labels: tuple[str, ...] = ()
    group: str | None = None

    def named(self) -> list[str]:
        """The names of all columns that have a role."""
        single = (self.image, self.label, self.id, self.split, self.weight, self.group)
        return [column for column in (*single, *self.labels, *self.text) if column]


def check_roles(
    columns: Columns, label_separator: str | None, derived_from_label: tuple[str, ...], image_template: str | None = None
) -> None:
    """Raises a TableError if the roles contradict each other."""
    if not columns.image and not columns.text and not image_template:
        raise TableError("name an image column (--image), text columns (--text), or both")
    for kind, names in (("text", columns.text), ("label", columns.labels)):
        twice = [column for column in names if names.count(column) > 1]
        if twice:
            raise TableError(f"{kind} column {twice[0]!r} is named twice")
    if columns.labels and (columns.label or label_separator is not None):
        raise TableError("labels stand in one column (--label), or in one column each (--labels), not in both")
    if columns.split and columns.group:
        raise TableError(
            f"--group={columns.group} says which rows stay together where splits are drawn, and --split={columns.split} gives "
            "splits"
        )
    leaks = [
        column for column in (columns.label, *columns.labels) if column in columns.text and column not in derived_from_label
    ]
    if leaks:
        raise TableError(
            f"column {leaks[0]!r} is both the label and a text, which tells models the answer. If that is meant, "
            f"say that the text comes from the label: --derived_from_label={leaks[0]}"
        )
    unknown = [column for column in derived_from_label if column not in columns.text]
    if unknown:
        raise TableError(f"derived_from_label names {unknown[0]!r}, which is no text column; those are {list(columns.text)}")
    if label_separator == "":
        raise TableError("label_separator must not be empty; for label cells that hold lists use --multi_label")


def check_columns(table: Table, wanted: Iterable[str]) -> None:
    """Raises a TableError if a table lacks one of the columns, or has several of its name."""
    wanted = list(wanted)
    missing = [column for column in wanted if column not in table.columns]
    if missing and not table.columns:
        raise TableError(table.why_no_columns())
    if missing:
        raise TableError(
            f"{table.name} has no column {missing[0]!r}; its columns are {table.columns}{_hint(table, missing[0])}"
        )
    repeated = [name for name in wanted if table.columns.count(name) > 1]
    if repeated:
        raise TableError(f"{table.name} has several columns named {repeated[0]!r}")


def _hint(table: Table, missing: str) -> str:
    parts = [part.strip() for part in missing.split(",")]
    if len(parts) > 1 and set(parts) <= set(table.columns):
        return f". A role has one column; columns that say by 0 and 1 whether a label applies are --labels={missing}"
    if len(table.columns) == 1 and table.read_as == "":
        return ". Are its cells separated by something else? Name it, for example --delimiter=';'"
    alike = {column.strip().casefold(): column for column in table.columns}
    near = difflib.get_close_matches(missing.casefold(), alike, 1, 0.6)
    return f". Did you mean {alike[near[0]]!r}?" if near else ""
