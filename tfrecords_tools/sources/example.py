"""The types that sources share: a source, its examples, and the rejections of rows that it could not read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path


class SourceError(ValueError):
    """A source that cannot be read at all, because a file or column is missing, or has another format or encoding."""


@dataclasses.dataclass(frozen=True)
class RecordImage:
    """The image of a record that was packed before.

    Attributes:
        shard: the file that holds the record.
        offset: the byte at which the record begins.
        resize: whether packing resizes it like any other image. Otherwise its bytes are stored unchanged.
    """

    shard: Path
    offset: int
    resize: bool = False


@dataclasses.dataclass
class SourceExample:
    """One example before packing.

    Attributes:
        id: an id that is unique in the dataset.
        where: the place in the source ("products.csv:17"), for messages.
        image: a path, encoded bytes, the image of a record, or None if the source names no image.
        texts: maps each text field to its texts. Empty texts count as missing.
        labels: the names of its labels; empty if it is unlabelled.
        split: the split that the source gives; None if one is to be drawn.
        weight: the weight of the example in training.
        group: examples of one group get the same split where splits are drawn; None: the example is in no group.
        unknown_labels: whether nothing is known of its labels. Otherwise, where examples may carry several labels, an example
            without any says that none applies.

    Example:
        >>> SourceExample("a1", "products.csv:2", Path("images/a1.jpg"), {"title": ["Mug, blue"]}, ["kitchen"])
    """

    id: str
    where: str
    image: Path | bytes | RecordImage | None = None
    texts: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    labels: list[str] = dataclasses.field(default_factory=list)
    split: str | None = None
    weight: float = 1.0
    group: str | None = None
    unknown_labels: bool = False


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A line of rejected.jsonl: an example or row that could not be packed as it stands.

    Attributes:
        id: the id of the example; "" if the row has none.
        where: the place in the source.
        reason: what is wrong.
        action: what was done about it.
        rows: how many rows of the source it stands for; several if a quote that is not closed swallowed further rows.
    """

    id: str
    where: str
    reason: str
    action: str = "left out"
    rows: int = 1


@dataclasses.dataclass(frozen=True)
class Source:
    """A raw dataset, as `make_source` of its module declares it.

    Attributes:
        name: the name of the source's module, for provenance.
        examples: a function that returns a new iterator over the examples and the rejections of rows that could not be read.
        text_fields: maps each text field to whether its text is derived from the label, as a class description is.
        multi_label: whether an example may carry several labels.
        files: the files of the source, without its images, for provenance.
        options: the options of the source, for provenance. JSON can hold them.
        labels: the names of all labels in the order of the source's numbering. None stands for the names that occur in
            examples, sorted.
        images: how its images are stored already, if packing keeps their bytes (`ImageOptions` as a dict); otherwise None.
        image_roots: the folders in which its image files must lie; empty: anywhere.
        ceilings: maps the modalities that a model sees to the best accuracy to expect; known only for the drawn sample.
        notes: lines that tell the user how the source was read, where that is not obvious.
        stratify: whether splits are drawn by label unless packing is told otherwise; that takes memory for all labels.
    """

    name: str
    examples: Callable[[], Iterator[SourceExample | Rejection]]
    text_fields: dict[str, bool]
    multi_label: bool
    files: list[Path] = dataclasses.field(default_factory=list)
    options: dict = dataclasses.field(default_factory=dict)
    labels: list[str] | None = None
    images: dict | None = None
    image_roots: tuple[Path, ...] = ()
    ceilings: dict[str, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    stratify: bool = False
