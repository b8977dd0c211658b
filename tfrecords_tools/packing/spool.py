"""The spool: the examples of a source, read once and written to the disk, so that memory does not grow with the input."""

from __future__ import annotations

import hashlib
import itertools
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tfrecords_tools.dataset.scratch import disk_errors, insert, open_scratch
from tfrecords_tools.dataset.splits import check_split_name, hash_id
from tfrecords_tools.packing.drawn_splits import DrawnSplits
from tfrecords_tools.packing.image_digest import CheckImages, ImageDigest
from tfrecords_tools.progress import progress_bar
from tfrecords_tools.sources.example import Rejection, Source, SourceExample

_BATCH = 10_000


class EmptySourceError(ValueError):
    """A source without a single usable example."""


class Place(NamedTuple):
    """An example in the spool: its position in the source, from 0, and its offset in the spool's file, in bytes."""

    position: int
    offset: int


class Spool:
    """Reads a source into a file of examples, and an SQLite table beside it that holds what planning needs of each.

    Args:
        path: the file to make.
        source: the source to read.
        fractions: maps split names to the fractions by which a split is drawn for examples to which the source gives none.
        seed: another seed draws other splits and another order of the records.
        progress: whether to show a progress bar on standard error.
        keep_unlabelled: whether examples without a label are kept; otherwise they are counted and left out.
        by_label: whether splits are drawn by label.
        check_images: what identifies image files in their digest, see `ImageDigest`.

    Attributes:
        path: the path of the file.
        sizes: maps each split to its number of examples.
        label_names: the labels of all examples, and the number of examples that carry each.
        rejections: (position in the source, rejection) pairs.
        num_seen: the number of examples and rejected rows.
        num_bad: the number of rows for which the rejections stand.
        num_unlabelled: the number of examples that were left out because they have no label, or their labels are unknown.
        num_unknown: how many of them have unknown labels; kept, they would say that no label applies.
        images: a digest of the image files that the examples name.
        digest: a sha256 of the examples, in hex.
        drawn: how splits were drawn.
        splits_drawn: whether the source gives no splits at all, and each split follows from the example's id alone.

    Raises:
        EmptySourceError: if the source yields no usable example.
    """

    def __init__(
        self,
        path: Path,
        source: Source,
        fractions: dict[str, float],
        seed: int,
        progress: bool,
        keep_unlabelled: bool = True,
        check_images: CheckImages = "none",
        by_label: bool = False,
    ):
        self.path = path
        self.drawn = DrawnSplits(fractions, seed, by_label)
        self.images = ImageDigest(check_images)
        self.sizes = dict.fromkeys(fractions, 0)
        self.label_names: Counter[str] = Counter()
        self.rejections: list[tuple[int, Rejection]] = []
        self.num_seen = self.num_bad = self.num_unlabelled = self.num_unknown = 0
        any_split_given = False
        self._plan_path = path.with_name(path.name + ".sqlite")
        self._plan = open_scratch(self._plan_path, "hash INTEGER, position INTEGER PRIMARY KEY, split TEXT, offset INTEGER")
        digest = hashlib.sha256()
        position = 0
        plan_rows: list[tuple] = []
        with open(path, "wb") as file, progress_bar("reading the source", "examples", shown=progress) as bar:
            for example in source.examples():
                bar.update()
                self.num_seen += example.rows if isinstance(example, Rejection) else 1
                if isinstance(example, Rejection):
                    self.reject(position, example)
                    continue
                self.images.add(example)
                if example.unknown_labels or not (example.labels or keep_unlabelled):
                    self.num_unlabelled += 1
                    self.num_unknown += example.unknown_labels
                    continue
                try:
                    for text in (example.id, *example.labels):
                        text.encode()  # half of a surrogate pair, which JSON can spell, has no UTF-8
                    split = check_split_name(example.split or self.drawn.draw(position, example))
                except ValueError as error:
                    self.reject(position, Rejection(example.id, example.where, str(error)))
                    continue
                self.sizes[split] = self.sizes.get(split, 0) + 1
                any_split_given = any_split_given or bool(example.split)
                self.label_names.update(example.labels)
                plan_rows.append((hash_id(example.id, "order", seed), position, split, file.tell()))
                if len(plan_rows) == _BATCH:
                    insert(self._plan, plan_rows)
                pickle.dump(example, file, pickle.HIGHEST_PROTOCOL)
                digest.update(_bytes_of(example))
                position += 1
        insert(self._plan, plan_rows)
        with disk_errors():
            self._plan.execute("CREATE INDEX by_hash ON rows (hash, position, split, offset)")  # sorted once, on the disk
        self.digest = digest.hexdigest()
        if not position:
            reasons = "; ".join(f"{r.where}: {r.reason}" for _, r in self.rejections[:3])
            if self.num_unlabelled:
                reasons = f"{self.num_unlabelled:,} have no label. {reasons}".strip()
            raise EmptySourceError(f"source {source.name!r} yielded no usable example. {reasons}")
        left_out = self._reject_duplicates()
        self._draw_by_label(left_out)
        self.splits_drawn = not any_split_given and self.drawn.by == "id"

    def reject(self, position: int, rejection: Rejection) -> None:
        """Adds a rejection to the report; `position` says where in the source it belongs."""
        self.rejections.append((position, rejection))
        self.num_bad += rejection.rows

    def rejected_rows(self) -> dict[str, int]:
        """How many rows were rejected, by what was done about them."""
        counts: dict[str, int] = {}
        for _, rejection in self.rejections:
            counts[rejection.action] = counts.get(rejection.action, 0) + rejection.rows
        return counts

    def shards(self, split: str, num_shards: int) -> Iterator[list[Place]]:
        """Yields the places of the examples of each shard of a split, in the order of the hashes of their ids.

        Each shard has an equal range of hashes, so shards differ in size a little, and some may be empty.
        """
        rows = self._plan.execute("SELECT hash, position, offset FROM rows WHERE split = ? ORDER BY hash, position", (split,))
        groups = itertools.groupby(rows, lambda row: (row[0] * num_shards) >> 63)
        group = next(groups, None)
        for index in range(num_shards):
            if group and group[0] == index:
                yield [Place(position, offset) for _, position, offset in group[1]]
                group = next(groups, None)
            else:
                yield []

    def close(self) -> None:
        """Deletes the files of the spool."""
        self._plan.close()
        for path in (self.path, self._plan_path):
            path.unlink(missing_ok=True)

    def _draw_by_label(self, left_out: set[int]) -> None:
        """Replaces the splits that were drawn by hash by those drawn by label, if any are."""
        with disk_errors():
            self._plan.execute("BEGIN")
            self._plan.executemany("UPDATE rows SET split = ? WHERE position = ?", self.drawn.by_labels(left_out))
            self._plan.execute("COMMIT")
        sizes = dict(self._plan.execute("SELECT split, COUNT(*) FROM rows GROUP BY split"))
        self.sizes = {split: sizes.get(split, 0) for split in self.sizes}

    def _reject_duplicates(self) -> set[int]:
        """Rejects all but the first example of each id; returns the positions of the rejected ones."""
        repeated = "SELECT hash FROM rows GROUP BY hash HAVING COUNT(*) > 1"
        rows = self._plan.execute(f"SELECT position, offset FROM rows WHERE hash IN ({repeated}) ORDER BY position")
        first_places: dict[str, str] = {}
        left_out: set[int] = set()
        with open(self.path, "rb") as file:
            for position, offset in rows.fetchall():
                example = read_spooled(file, offset)
                if example.id in first_places:
                    reason = f"duplicate id {example.id!r}: first seen at {first_places[example.id]}"
                    self.reject(position, Rejection(example.id, example.where, reason))
                    self._plan.execute("DELETE FROM rows WHERE position = ?", (position,))
                    left_out.add(position)
                first_places.setdefault(example.id, example.where)
        return left_out


def _bytes_of(example: SourceExample) -> bytes:
    """The content of an example as bytes, for a digest."""
    image = example.image if isinstance(example.image, bytes) else repr(example.image).encode()
    fields = (example.id, example.where, example.texts, example.labels, example.split, example.weight, example.group)
    return image + repr(fields).encode("utf-8", "backslashreplace")


def read_spooled(file: BinaryIO, offset: int) -> SourceExample:
    """Reads the example at an offset of the spool's file, in bytes. Unpickling is safe: this program wrote the file."""
    file.seek(offset)
    return pickle.load(file)
