"""A hash of the record's id decides its split, its shard and its place in the shard.

A hash needs no shuffling in memory and gives the same answer on any number of workers. When an example is added, all others
stay where they were. Each use has a hash of its own, named by `purpose`.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable

_NAME = re.compile(r"[A-Za-z0-9_]+\Z")


def hash_id(example_id: str, purpose: str, seed: int) -> int:
    """A uniformly distributed integer of 63 bits; it is the same on all machines, processes and versions of Python."""
    digest = hashlib.blake2b(example_id.encode("utf-8", "replace"), digest_size=8, key=f"{purpose}/{seed}".encode()).digest()
    return int.from_bytes(digest, "little") >> 1


def check_split_name(name: str) -> str:
    """Returns the name of a split, if it can be part of a file name.

    Raises:
        ValueError: otherwise.
    """
    if not _NAME.match(name):
        raise ValueError(f"split names are letters, digits and '_'. Received: {name!r}")
    return name


def parse_fractions(text: str) -> dict[str, float]:
    """`"train=0.8,test=0.2"` -> `{"train": 0.8, "test": 0.2}`.

    Raises:
        ValueError: if a part is not `name=fraction`, or the fractions do not add up to 1.
    """
    fractions = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        try:
            fraction = float(value)
        except ValueError as error:
            raise ValueError(f"splits are given as 'train=0.8,test=0.2'. Received: {text!r}") from error
        if name in fractions:
            raise ValueError(f"split {name!r} is given twice. Received: {text!r}")
        fractions[name] = fraction
    return check_fractions(fractions)


def check_fractions(fractions: dict[str, float]) -> dict[str, float]:
    """Returns `fractions`, a fraction for each split, if examples can be drawn by them.

    Raises:
        ValueError: for a bad name, a negative fraction, or fractions that do not add up to 1.
    """
    for name in fractions:
        check_split_name(name)
    if not math.isclose(sum(fractions.values()), 1.0, abs_tol=1e-6) or min(fractions.values()) < 0:
        raise ValueError(f"split fractions must not be negative and must add up to 1. Received: {fractions}")
    return fractions


def draw_split(example_id: str, fractions: dict[str, float], seed: int) -> str:
    """Draws a split for an example from its id alone."""
    position = hash_id(example_id, "split", seed) / 2**63
    for name, fraction in fractions.items():
        position -= fraction
        if position < 0:
            return name
    return name


class Holdout:
    """Draws a fraction of each class by hash: half of it becomes `val`, half `test`, and the rest `train`.

    Exactly this fraction of each class is drawn. `draw_split` may draw nothing of a small class. Memory holds one hash for
    each drawn example.

    Args:
        members: a function that returns a new iterator over the (class, key) pairs of all examples. Equal keys in several
            classes get equal hashes.
        fraction: the fraction of each class to draw, 0–1, rounded to whole examples; an odd one goes to `val`.
        seed: another seed draws other examples.

    Raises:
        ValueError: for a fraction outside 0–1.
    """

    def __init__(self, members: Callable[[], Iterable[tuple[str, str]]], fraction: float, seed: int):
        if not 0 <= fraction <= 1:
            raise ValueError(f"the held-out fraction must be within 0–1. Received: {fraction}")
        self._seed = seed
        counts = Counter(name for name, _ in members())
        sizes = {name: round(fraction * count) for name, count in counts.items()}
        smallest: dict[str, list[int]] = {name: [] for name, size in sizes.items() if size}
        for name, key in members():
            if sizes[name]:
                keep = heapq.heappush if len(smallest[name]) < sizes[name] else heapq.heappushpop
                keep(smallest[name], -self._hash(key))
        self._limits = {}
        for name, heap in smallest.items():
            drawn = sorted(-value for value in heap)
            self._limits[name] = drawn[(len(drawn) + 1) // 2 - 1], drawn[-1]

    def split(self, name: str, key: str) -> str:
        """The split ("train", "val" or "test") of the example `key` of the class `name`."""
        last_val, last_test = self._limits.get(name, (-1, -1))
        value = self._hash(key)
        return "val" if value <= last_val else "test" if value <= last_test else "train"

    def _hash(self, key: str) -> int:
        return hash_id(key, "holdout", self._seed)
