"""Draws splits by label, so that each split has about the same share of every class, and small classes stand in all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from tfrecords_tools.dataset.splits import hash_id


def quotas(count: int, fractions: Sequence[float], offset: float) -> list[int]:
    """How many of the examples of a class each split gets.

    Args:
        count: the number of examples of the class.
        fractions: the fraction of each split; they add up to 1.
        offset: within [0, 1): decides which splits are rounded up. Over many classes with random offsets, the fractions hold.

    Returns:
        the number of examples of each split; they add up to `count` and are its fractions, rounded up or down. But each split
        with a fraction above 0 gets at least one where there are enough for all; of fewer, the largest split gets at least one.

    Example:
        >>> quotas(6, (0.8, 0.1, 0.1), 0.5), quotas(100, (0.8, 0.1, 0.1), 0.5), quotas(1, (0.8, 0.1, 0.1), 0.95)
        ([4, 1, 1], [80, 10, 10], [1, 0, 0])
    """
    bounds = np.floor(count * np.cumsum(fractions) + offset).astype(int)
    bounds[-1] = count
    numbers = np.diff(np.minimum(bounds, count), prepend=0)
    drawn = np.flatnonzero(np.asarray(fractions) > 0)
    needy = drawn if count >= len(drawn) else [int(np.argmax(fractions))] if count else []
    for split in needy:
        if not numbers[split]:
            numbers[np.argmax(numbers)] -= 1
            numbers[split] = 1
    return numbers.tolist()


def draw_within_classes(classes: Sequence[str], hashes: Sequence[int], fractions: Sequence[float], seed: int) -> np.ndarray:
    """Draws splits of examples with one class each: those of a class are ordered by hash, and each split takes its quota.

    An example that is added later moves few of the others.

    Args:
        classes: the class of each example.
        hashes: the hash of each example, by which the examples of a class are ordered.
        fractions: the fraction of each split; they add up to 1.
        seed: decides which splits are rounded up.

    Returns:
        int [N]: the split of each example, as an index of `fractions`.
    """
    members: dict[str, list[int]] = {}
    for number, name in enumerate(classes):
        members.setdefault(name, []).append(number)
    splits = np.zeros(len(classes), int)
    for name, numbers in members.items():
        ordered = sorted(numbers, key=lambda number: (hashes[number], number))
        sizes = quotas(len(numbers), fractions, hash_id(name, "quota", seed) / 2**63)
        splits[ordered] = np.repeat(np.arange(len(sizes)), sizes)
    return splits


def stratify(
    examples: np.ndarray,
    label_ids: np.ndarray,
    groups: np.ndarray,
    fractions: Sequence[float],
    rank: np.ndarray,
    offsets: Sequence[float] | None = None,
) -> np.ndarray:
    """Assigns every example to a part, so that each part has about its share of each label; groups stay together.

    Labels with few examples are spread first, since they have the least choice.

    Reference: Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data" (2011), figure 3, with groups in
    the place of examples, and with the order of the labels fixed at the start.

    Args:
        examples, label_ids: int [M]: the pairs of an example and a label that it carries.
        groups: int [N]: the group of each example, from 0 on without a gap.
        fractions: the fraction of each part; they add up to 1.
        rank: int [G]: the order in which groups of equal size are placed.
        offsets: an offset for each label, within [0, 1): the groups of a label are spread by its `quotas`, so that a label with
            as many groups as there are parts stands in all parts, as far as the groups' other labels allow it. None: they are
            spread by exact shares, which parts of equal size need.

    Returns:
        int [N]: the part of each example, as an index of `fractions`.
    """
    num_groups, num_parts = len(rank), len(fractions)
    carried = _count_labels(groups[examples], label_ids, num_groups)
    totals = np.bincount(label_ids, minlength=1).astype(float)
    sizes = np.bincount(groups, minlength=num_groups)
    members = _groups_of_labels(carried, len(totals))
    wanted = np.outer(fractions, totals)
    for label, offset in enumerate(offsets or ()):
        of_part = quotas(len(members[label]), fractions, offset)
        wanted[:, label] = np.array(of_part) * totals[label] / max(len(members[label]), 1)
    room = np.asarray(fractions, float) * len(groups)
    part_of = np.full(num_groups, -1)

    def place(group: int, wishes: np.ndarray) -> None:
        part = max(range(num_parts), key=lambda part: (round(wishes[part], 6), room[part]))
        part_of[group] = part
        room[part] -= sizes[group]
        for label, count in carried[group]:
            wanted[part, label] -= count

    for label in np.argsort(totals, kind="stable"):
        unplaced = np.array([group for group in members[label] if part_of[group] < 0], int)
        for group in unplaced[np.lexsort((rank[unplaced], -sizes[unplaced]))]:  # large groups first: small ones even them out
            place(group, wanted[:, label])
    for group in sorted(np.flatnonzero(part_of < 0), key=rank.__getitem__):
        place(group, room)
    return part_of[groups]


def _count_labels(groups: np.ndarray, label_ids: np.ndarray, num_groups: int) -> list[list[tuple[int, int]]]:
    """For each group: (label, number of its examples that carry the label) pairs."""
    carried: list[list[tuple[int, int]]] = [[] for _ in range(num_groups)]
    pairs, counts = np.unique(np.stack([groups, label_ids], axis=1), axis=0, return_counts=True)
    for (group, label), count in zip(pairs.tolist(), counts.tolist(), strict=True):
        carried[group].append((label, count))
    return carried


def _groups_of_labels(carried: Iterable[list[tuple[int, int]]], num_labels: int) -> list[list[int]]:
    members: list[list[int]] = [[] for _ in range(num_labels)]
    for group, labels in enumerate(carried):
        for label, _ in labels:
            members[label].append(group)
    return members
