"""Splits, shard membership and record order, all by hash of the record's id.

A hash needs no global shuffle in memory, gives the same answer on any number of workers, and leaves every other
example where it was when one is added. The three uses draw from independent hash streams (`purpose`).
"""

from __future__ import annotations

import hashlib
import math
import re

_NAME = re.compile(r"[A-Za-z0-9_]+\Z")


def hash_id(example_id: str, purpose: str, seed: int) -> int:
    """A uniform 63-bit integer, stable across machines, processes and Python versions."""
    digest = hashlib.blake2b(example_id.encode("utf-8", "replace"), digest_size=8, key=f"{purpose}/{seed}".encode()).digest()
    return int.from_bytes(digest, "little") >> 1


def check_split_name(name: str) -> str:
    """Returns `name` where it can stand in a file name.

    Raises:
        ValueError: otherwise.
    """
    if not _NAME.match(name):
        raise ValueError(f"split names are letters, digits and '_'. Received: {name!r}")
    return name


def parse_fractions(text: str) -> dict[str, float]:
    """`"train=0.8,test=0.2"` -> `{"train": 0.8, "test": 0.2}`.

    Raises:
        ValueError: where a part is no `name=fraction`, or the fractions do not add up to 1.
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
    """Returns `fractions` where examples can be drawn by them.

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
