"""The spool: a source read once onto the disk, so that memory holds a few bytes an example whatever the input."""

from __future__ import annotations

import hashlib
import pickle
from array import array
from pathlib import Path

import numpy as np

from tfrecords_tools.example import Rejection, Source, SourceExample
from tfrecords_tools.progress import progress_bar
from tfrecords_tools.splits import check_split_name, draw_split, hash_id


class EmptySourceError(ValueError):
    """A source without a single usable example."""


class Spool:
    """Reads a source: the examples on disk, one after the other, and in memory what planning needs to know of each.

    Args:
        path: the file to make.
        source: what to read.
        fractions: splits to draw for examples to which the source gives none.
        seed: of the splits and of the order of the records.
        progress: show a progress bar on standard error.

    Attributes:
        offsets, hashes, splits: per example its place in the file, the hash that orders it, its split's number
            (-1: left out).
        split_names: by number.
        label_names: all that were seen.
        rejections: (position among the examples, rejection) pairs.
        num_seen: examples and rejected rows.
        digest: sha256 of the examples.

    Raises:
        EmptySourceError: if the source yields no usable example.
    """

    def __init__(self, path: Path, source: Source, fractions: dict[str, float], seed: int, progress: bool):
        self.path = path
        self.offsets, self.hashes, self.splits = array("Q"), array("Q"), array("i")
        self.split_names: list[str] = list(fractions)
        self.label_names: set[str] = set()
        self.rejections: list[tuple[int, Rejection]] = []
        self.num_seen = 0
        digest = hashlib.sha256()
        bar = progress_bar("reading the source", "examples", shown=progress)
        with open(path, "wb") as file, bar:
            for example in source.examples():
                bar.update()
                self.num_seen += 1
                if isinstance(example, Rejection):
                    self.reject(len(self.offsets), example)
                    continue
                try:
                    for text in (example.id, *example.labels):
                        text.encode()  # half of a surrogate pair, which JSON can spell, has no UTF-8
                    split = check_split_name(example.split or draw_split(example.id, fractions, seed))
                except ValueError as error:
                    self.reject(len(self.offsets), Rejection(example.id, example.where, str(error)))
                    continue
                if split not in self.split_names:
                    self.split_names.append(split)
                self.offsets.append(file.tell())
                self.hashes.append(hash_id(example.id, "order", seed))
                self.splits.append(self.split_names.index(split))
                self.label_names.update(example.labels)
                pickle.dump(example, file, pickle.HIGHEST_PROTOCOL)
                digest.update(_bytes_of(example))
        self.digest = digest.hexdigest()
        if not self.offsets:
            reasons = "; ".join(f"{r.where}: {r.reason}" for _, r in self.rejections[:3])
            raise EmptySourceError(f"source {source.name!r} yielded no usable example. {reasons}")
        self._reject_duplicates()

    def reject(self, position: int, rejection: Rejection) -> None:
        self.rejections.append((position, rejection))

    def order(self, split: int) -> np.ndarray:
        """Positions of a split's examples, in the order of their hashes."""
        hashes, splits = np.array(self.hashes, np.uint64), np.array(self.splits)
        positions = np.flatnonzero(splits == split)
        return positions[np.argsort(hashes[positions], kind="stable")]

    def _reject_duplicates(self) -> None:
        hashes = np.array(self.hashes, np.uint64)
        order = np.argsort(hashes, kind="stable")
        repeats = np.flatnonzero(hashes[order][1:] == hashes[order][:-1]) + 1
        first: dict[str, str] = {}
        for position in sorted({int(order[i]) for repeat in repeats for i in (repeat - 1, repeat)}):
            example = read_spooled(self.path, self.offsets[position])
            if example.id in first:
                reason = f"duplicate id {example.id!r}: first seen at {first[example.id]}"
                self.reject(position, Rejection(example.id, example.where, reason))
                self.splits[position] = -1
            first.setdefault(example.id, example.where)


def _bytes_of(example: SourceExample) -> bytes:
    """All that an example says, for a digest."""
    image = example.image if isinstance(example.image, bytes) else repr(example.image).encode()
    rest = (example.id, example.where, example.texts, example.labels, example.split, example.weight)
    return image + repr(rest).encode("utf-8", "backslashreplace")


def read_spooled(path: Path, offset: int) -> SourceExample:
    """Reads one example back from the spool file (our own, written moments ago: unpickling is safe)."""
    with open(path, "rb") as file:
        file.seek(offset)
        return pickle.load(file)
