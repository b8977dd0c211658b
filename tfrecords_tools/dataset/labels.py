"""Label vocabularies: the names of labels and their ids. labels.txt holds one name a line; the first line has the id 0."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.checksums import check


class LabelVocabulary:
    """An ordered list of distinct label names; the id of a name is its place in the list, from 0.

    Raises:
        ValueError: for an empty, repeated or multi-line name.

    Example:
        >>> LabelVocabulary(["cat", "dog"]).ids(["dog"])
        (1,)
    """

    def __init__(self, names: Iterable[str]):
        self.names = list(names)
        self._ids = {name: index for index, name in enumerate(self.names)}
        for line, name in enumerate(self.names, start=1):
            if not name.strip() or "\n" in name or "\r" in name:
                raise ValueError(f"label names must be non-empty single lines. Received: {name!r} at line {line}")
        if len(self._ids) != len(self.names):
            repeated = sorted({name for name in self.names if self.names.count(name) > 1})
            raise ValueError(f"label names must be distinct. Repeated: {repeated[:5]}")

    @classmethod
    def from_names(cls, names: Iterable[str]) -> LabelVocabulary:
        """A vocabulary of the distinct names, sorted; numbers inside of names sort as numbers ("2" < "10", "q9" < "q10")."""
        return cls(sorted(set(names), key=_natural_key))

    @classmethod
    def load(cls, path: str | Path) -> LabelVocabulary:
        """Reads a labels.txt; an empty file, which a dataset without labels has, is an empty vocabulary.

        Raises:
            DamagedFileError: if it has a checksum that is not that of its content.
            ValueError: for a file that is not UTF-8, or names that are no vocabulary.
        """
        path = Path(path)
        check(path)
        try:
            text = path.read_text("utf-8-sig").removesuffix("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8, in which label names are read: {error}") from error
        return cls(text.split("\n") if text else [])

    def save(self, path: str | Path) -> None:
        """Writes a labels.txt."""
        write_text(path, "".join(f"{name}\n" for name in self.names))

    def __len__(self) -> int:
        return len(self.names)

    def ids(self, names: Iterable[str]) -> tuple[int, ...]:
        """The ids of label names, sorted, without repetition.

        Raises:
            ValueError: for a name that is not in the vocabulary.
        """
        names = list(names)
        unknown = [name for name in names if name not in self._ids]
        if unknown:
            raise ValueError(f"unknown label {unknown[0]!r}; the vocabulary holds {len(self)} names: {self.names[:10]}…")
        return tuple(sorted({self._ids[name] for name in names}))


def _natural_key(name: str) -> tuple:
    parts = re.split(r"(\d+)", name)
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts), name
