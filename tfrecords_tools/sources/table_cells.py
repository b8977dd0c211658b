"""Reads the cells of a table: texts, ids and labels. A cell that may mean two things is an error."""

from __future__ import annotations

import ast
import dataclasses
import json
import numbers
import re
from collections.abc import Mapping
from typing import Any

_ITEM = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d*)?|None|null|nan|NaN|True|False|true|false"""
_ITEMS = re.compile(rf"(?:(?:{_ITEM})(?:\s*,\s*|\s+|$))*")
_OBJECT = re.compile(r"\{\s*(\"[^\"]*\"|'[^']*')\s*:")
_WHOLE = re.compile(r"-?\d+\.0")
_LONGEST = 100_000
_YES, _NO = ("1", "true", "yes", "t", "y", "x"), ("0", "false", "no", "f", "n")


@dataclasses.dataclass(frozen=True)
class LabelCells:
    """How the cells of a label column are read.

    Attributes:
        column: the name of the column, for messages.
        separator: splits a cell into several labels; None: a cell of text is one label, or the list that it spells.
        several: whether an example may carry several labels.
        names: the names of labels that are given as numbers; None: numbers are names themselves.
    """

    column: str
    separator: str | None = None
    several: bool = False
    names: list[str] | None = None

    def read(self, value: Any) -> list[str]:
        """The labels in a cell, without repeated white space.

        Raises:
            ValueError: for a cell that may mean several things, a list where an example has one label, or an unknown number.

        Example:
            >>> LabelCells("tags", several=True).read("['red', 'round']")
            ['red', 'round']
            >>> LabelCells("size").read(38.0)  # as pandas writes 38 in a column that also has empty cells
            ['38']
        """
        parts = self._parts(value)
        if len(parts) > 1 and not self.several:
            raise ValueError(f"several labels in column {self.column!r}, {parts!r:.60}: {SEVERAL_LABELS}")
        names = (" ".join(self._name(part).split()) for part in parts)
        return [name for name in names if name]

    def _parts(self, value: Any) -> list:
        if is_list(value):
            return list(value)
        if not isinstance(value, str):
            return [value]
        spelled = list_in(value)
        if spelled is not None:
            if not self.several:
                raise ValueError(f"the cell {value!r:.60} in column {self.column!r} is a list: {SEVERAL_LABELS}")
            return spelled
        if _OBJECT.match(value.strip()):
            raise ValueError(f"the cell {value!r:.60} in column {self.column!r} is an object; name labels, or a list of them")
        if self.several and self._is_doubtful(value.strip()):
            raise ValueError(
                f"the cell {value!r:.60} in column {self.column!r} looks like a list, whose items JSON and Python would quote; "
                'write it as ["a", "b"], or as a|b with --label_separator=\'|\''
            )
        return value.split(self.separator) if self.separator else [value]

    def _is_doubtful(self, text: str) -> bool:
        inside = text[1:-1]
        wrapped = text[:1] == "[" and text[-1:] == "]" and not set(inside) & set("[]")
        return wrapped and (self.separator or ",") in inside

    def _name(self, part: Any) -> str:
        name = name_of(part, self.column)
        if self.names is None or not name:
            return name
        if name == "-1":  # how Hugging Face's datasets mark examples without a label
            return ""
        if name in self.names and not name.isdecimal():
            return name
        if not name.isdecimal() or int(name) >= len(self.names):
            raise ValueError(f"label {name!r} in column {self.column!r} is none of the {len(self.names)} that the file names")
        return self.names[int(name)]


@dataclasses.dataclass(frozen=True)
class LabelFlags:
    """Columns that have the names of labels, and whose cells say whether that label applies.

    Attributes:
        columns: their names.
    """

    columns: tuple[str, ...]

    def read(self, row: Mapping[str, Any]) -> list[str] | None:
        """The labels that apply to a row; None if all cells are empty.

        Raises:
            ValueError: for a cell that is neither yes nor no.

        Example:
            >>> LabelFlags(("red", "round")).read({"red": "1", "round": ""})
            ['red']
        """
        cells = {column: name_of(row[column], column).casefold() for column in self.columns}
        bad_columns = [column for column, cell in cells.items() if cell not in _YES and cell not in _NO and cell]
        if bad_columns:
            raise ValueError(
                f"label column {bad_columns[0]!r} holds 1 or 0 (also {', '.join(_YES[1:])}; {', '.join(_NO[1:])}; nothing). "
                f"Received: {row[bad_columns[0]]!r:.60}"
            )
        return [column for column, cell in cells.items() if cell in _YES] if any(cells.values()) else None


SEVERAL_LABELS = "where examples may carry several labels, say so (--multi_label, or multi_label=True in a config or call)"


def is_missing(value: Any) -> bool:
    """Whether a cell stands for nothing: None, NaN, pandas' NA and NaT."""
    not_a_number = isinstance(value, numbers.Number) and bool(value != value)  # numpy's floats among them
    return value is None or not_a_number or type(value).__name__ in ("NAType", "NaTType")


def is_list(value: Any) -> bool:
    """Whether a cell holds a list, a tuple, or an array of one axis."""
    return isinstance(value, list | tuple) or (hasattr(value, "tolist") and getattr(value, "ndim", 0) == 1)


def text_of(value: Any, column: str) -> str:
    """The text of a cell without white space around it; 0 is "0", and a missing value is "".

    Raises:
        ValueError: for a list, an object or bytes.
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, dict | bytes) or is_list(value):
        raise ValueError(f"expected text or a number in column {column!r}, found {type(value).__name__}: {value!r:.40}")
    return "" if is_missing(value) else str(value).strip()


def texts_of(value: Any, column: str) -> list[str]:
    """The texts of a cell: one for each item of a list, otherwise the one text of the cell."""
    return [text_of(item, column) for item in value] if is_list(value) else [text_of(value, column)]


def name_of(value: Any, column: str) -> str:
    """The text of a cell that names something. Whole numbers have no ".0": one empty cell makes pandas write 1 as 1.0."""
    text = text_of(value, column)
    return text[:-2] if _WHOLE.fullmatch(text) else text


def list_in(text: str) -> list | None:
    """The list that a text spells as JSON, Python or NumPy would write it; None if it spells none.

    Example:
        >>> list_in("['a', 'b']"), list_in('["a", null]'), list_in("['a' 'b']"), list_in("{1, 2}"), list_in("[unknown]")
        (['a', 'b'], ['a', None], ['a', 'b'], [1, 2], None)
    """
    text = text.strip()
    if text.startswith("array(") and text.endswith(")"):
        text = re.sub(r",\s*dtype=[^()]*$", "", text[6:-1]).strip()
    if len(text) > _LONGEST or (text[:1], text[-1:]) not in {("[", "]"), ("(", ")"), ("{", "}")}:
        return None
    inside = text[1:-1].strip()
    if text[0] == "[":
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
    elif "," not in inside:
        return None  # (a) and {b} may be names
    if not _ITEMS.fullmatch(inside):
        return None
    return [_item(token) for token in re.findall(_ITEM, inside)]


def _item(token: str) -> Any:
    if token in ("None", "null", "nan", "NaN"):
        return None
    if token in ("true", "false"):
        return token
    return ast.literal_eval(token)
