"""How a source is packed."""

from __future__ import annotations

import dataclasses
from typing import Literal

from tfrecords_tools.dataset.splits import check_fractions
from tfrecords_tools.packing.image_digest import CHECK_IMAGES, CheckImages
from tfrecords_tools.packing.images import ImageOptions

UNLABELLED = ("keep", "leave_out")


@dataclasses.dataclass(frozen=True)
class PackOptions:
    """How a source is packed.

    Attributes:
        images: the size and quality of the stored images.
        fractions: maps split names to the fractions by which a split is drawn for examples to which the source gives none.
        stratify: whether splits are drawn by label, so that small classes stand in all of them where they can; None: as the
            source declares. The splits of more than `MOST_STRATIFIED` examples are drawn by hash all the same.
        seed: another seed draws other splits and another order of the records.
        examples_per_shard: about how many records a shard holds.
        keep_without_image: whether a record whose image is missing or unreadable is kept without its image, if it has a text.
            Otherwise it is left out. Both are reported in rejected.jsonl.
        allow_outside: whether images may lie outside of the folders that the source declares. Otherwise they count as missing,
            also where a path or a link leads out of them.
        max_bad_fraction: packing stops with an error when more than this fraction of the input is bad, 0–1. The usual reason
            is a wrong image folder.
        workers: the number of worker processes; None starts one for each core. The bytes do not depend on it.
        unlabelled: whether examples without a label are kept ("keep"), or counted and left out ("leave_out"). In multi-label
            data, an example without a label says that no label applies, which may not be meant.
        check_images: what identifies image files in the digest in dataset.json, which tells later whether the dataset is still
            what packing would make; see `ImageDigest`.

    Example:
        >>> PackOptions(images=ImageOptions(short_side=320), fractions={"train": 0.9, "test": 0.1})
    """

    images: ImageOptions = dataclasses.field(default_factory=ImageOptions)
    fractions: dict[str, float] = dataclasses.field(default_factory=lambda: {"train": 0.8, "val": 0.1, "test": 0.1})
    stratify: bool | None = None
    seed: int = 0
    examples_per_shard: int = 2000
    keep_without_image: bool = True
    allow_outside: bool = False
    max_bad_fraction: float = 0.2
    workers: int | None = None
    unlabelled: Literal["keep", "leave_out"] = "keep"
    check_images: CheckImages = "time"

    def __post_init__(self):
        check_fractions(self.fractions)
        if self.examples_per_shard < 1:
            raise ValueError(f"examples_per_shard must be at least 1. Received: {self.examples_per_shard}")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be at least 1, or None for one a core. Received: {self.workers}")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(f"max_bad_fraction must be within 0–1. Received: {self.max_bad_fraction}")
        for name, values in (("unlabelled", UNLABELLED), ("check_images", CHECK_IMAGES)):
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {', '.join(values)}. Received: {getattr(self, name)!r}")
