"""Labels of any type as the names of a dataset's labels, and back again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mm_keras.estimator.cells import is_missing


@dataclasses.dataclass(frozen=True)
class LabelCodec:
    """The classes of a classifier.

    Attributes:
        classes: the labels as they were given, sorted; int, float, bool or object [L].
        names: for each of them the name that it has in datasets, runs and exports.
        multi_label: whether an example may have several.
    """

    classes: np.ndarray
    names: tuple[str, ...]
    multi_label: bool

    @classmethod
    def learn(cls, labels: Sequence[list | None], multi_label: bool) -> LabelCodec:
        """Learns the classes of some examples, given the labels of each.

        Raises:
            ValueError: if there are fewer than two classes, or two that are written alike.
        """
        return cls.of(_sorted({_plain(label) for cell in labels for label in cell or ()}), multi_label)

    @classmethod
    def of(cls, classes: Sequence[Any], multi_label: bool) -> LabelCodec:
        """The codec of given classes.

        Raises:
            ValueError: as `learn` does.
        """
        names = tuple(map(str, classes))
        if len(classes) < 2:
            raise ValueError(f"a classifier tells at least two classes apart; the labels have {len(classes)}: {list(classes)}")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            types = sorted({type(label).__name__ for label in classes if str(label) == twice[0]})
            raise ValueError(
                f"the labels hold {twice[0]!r} as {' and as '.join(types)}; give all labels one type, for example by "
                "frame[column].astype(str)"
            )
        kinds = {type(label) for label in classes}
        values = (
            np.array(classes) if len(kinds) == 1 and kinds <= {int, float, bool} else np.array([*classes, None], object)[:-1]
        )
        return cls(values, names, multi_label)

    def merged(self, other: LabelCodec) -> LabelCodec:
        """The classes of this codec and those of another one that it lacks."""
        lacking = [label for label, name in zip(other.classes.tolist(), other.names, strict=True) if name not in self.names]
        return self.of(_sorted({*self.classes.tolist(), *lacking}), self.multi_label)

    def name(self, label: Any) -> str:
        """The name of a label.

        Raises:
            ValueError: for a label that was not learned.
        """
        name = str(_plain(label))
        if name not in self.names:
            raise ValueError(f"the classifier knows no class {label!r}; it knows {list(self.names[:20])}")
        return name


@dataclasses.dataclass(frozen=True)
class LabelForm:
    """How labels are written.

    Attributes:
        separator: splits a text into several labels; None: it is one.
        empty_means_none: whether no label applies where a cell is empty and examples may have several; otherwise its labels are
            unknown.
    """

    separator: str | None = None
    empty_means_none: bool = False

    def read(self, cells: Sequence[Any]) -> tuple[list[list | None], bool]:
        """The labels in each cell, None where they are unknown; and whether a cell may have several."""
        several = self.separator is not None or any(isinstance(cell, list | tuple | set | frozenset) for cell in cells)
        return self.filled([split_cell(cell, self.separator) for cell in cells], several), several

    def filled(self, cells: list[list | None], several: bool) -> list[list | None]:
        """The labels of each cell, None for empty cells; these become [] if they mean that no label applies."""
        return [[] if cell is None else cell for cell in cells] if several and self.empty_means_none else cells


def split_cell(cell: Any, separator: str | None) -> list | None:
    """The labels in a cell: those of a list, or the parts of a text if there is a separator; None of an empty cell.

    Example:
        >>> split_cell("red| round", "|"), split_cell([], None), split_cell(float("nan"), None)
        (['red', 'round'], [], None)
    """
    if isinstance(cell, list | tuple | set | frozenset | np.ndarray):
        return [_plain(label) for label in cell if not is_missing(label)]
    if is_missing(cell):
        return None
    if separator is not None:
        return [part.strip() for part in str(cell).split(separator) if part.strip()]
    return [_plain(cell)]


def _plain(label: Any):
    """A Python object for a numpy scalar; whole floats, which integers become beside an empty cell, are integers."""
    label = label.item() if isinstance(label, np.generic) else label
    if isinstance(label, float) and label.is_integer():
        return int(label)
    return label.strip() if isinstance(label, str) else label


def _sorted(labels: set) -> list:
    try:
        return sorted(labels)
    except TypeError:  # several types
        return sorted(labels, key=lambda label: (type(label).__name__, str(label)))
