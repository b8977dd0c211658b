"""What a source yields: examples still to be packed, and rows that it could not read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class RecordImage:
    """The image of a packed record, named by its place.

    Attributes:
        shard, offset: where the record is.
        resize: treat it as any image; else its bytes are stored again as they are.
    """

    shard: Path
    offset: int
    resize: bool = False


@dataclasses.dataclass
class SourceExample:
    """One example before packing.

    Attributes:
        id: unique in the dataset.
        where: where it comes from ("products.csv:17"), for messages.
        image: a path, encoded bytes, the image of a record, or None where the source names no image.
        texts: per text field its texts; empty strings count as missing.
        labels: label names; empty = unlabelled.
        split: the split that the source gives, or None to draw one.
        weight: example weight.
    """

    id: str
    where: str
    image: Path | bytes | RecordImage | None = None
    texts: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    labels: list[str] = dataclasses.field(default_factory=list)
    split: str | None = None
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A line of rejected.jsonl: what could not be packed as given, why, and what was done about it."""

    id: str
    where: str
    reason: str
    action: str = "left out"


@dataclasses.dataclass(frozen=True)
class Source:
    """A raw data set: how to iterate over it, and what it declares about itself.

    Attributes:
        name: the name of the source module, for provenance.
        examples: starts a fresh iteration over the examples and the rows that could not be read.
        text_fields: field name -> whether its text is derived from the label (a class description).
        multi_label: whether an example may carry several labels.
        files: the source's own files (not the images), for provenance.
        options: what it was asked for, JSON-serialisable, for provenance.
        labels: label names in the order of the source's own numbering, with those that no example has; None = the sorted
            names of those that examples have.
        images: how its images are stored already and will stay (`ImageOptions` as a dict); None = as packing says.
        ceilings: best accuracy that any model can expect, by the modalities it sees; known only for drawn data.
    """

    name: str
    examples: Callable[[], Iterator[SourceExample | Rejection]]
    text_fields: dict[str, bool]
    multi_label: bool
    files: list[Path] = dataclasses.field(default_factory=list)
    options: dict = dataclasses.field(default_factory=dict)
    labels: list[str] | None = None
    images: dict | None = None
    ceilings: dict[str, float] = dataclasses.field(default_factory=dict)
