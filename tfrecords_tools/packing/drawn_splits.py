"""Draws splits of the examples to which the source gives none: by label if that is asked for, otherwise by a hash."""

from __future__ import annotations

from collections.abc import Container, Iterator

import numpy as np

from tfrecords_tools.dataset.splits import draw_split, hash_id
from tfrecords_tools.dataset.stratify import draw_within_classes, stratify
from tfrecords_tools.sources.example import SourceExample

MOST_STRATIFIED = 200_000  # examples, whose labels and groups are held in the memory


class DrawnSplits:
    """Draws splits. An example's split follows from its id (or group) alone, unless they are drawn by label.

    Args:
        fractions: maps split names to the fractions of the examples.
        seed: another seed draws other splits.
        by_label: whether the splits are stratified by label, once all examples are known.
        most: the largest number of examples that are stratified; the splits of more are drawn by hash.

    Attributes:
        by: what splits were drawn by, "label", "label and group", "group" or "id"; None: nothing was drawn.
        too_many: whether they were to be drawn by label, and there were more than `most` examples.
    """

    def __init__(self, fractions: dict[str, float], seed: int, by_label: bool, most: int = MOST_STRATIFIED):
        self._fractions, self._seed, self._most = fractions, seed, most
        self._by_label = by_label
        self._grouped = self.too_many = self._drawn = False
        self._examples: list[tuple[int, int, tuple[int, ...], int]] = []  # position, hash, labels, group
        self._labels: dict[str, int] = {}
        self._groups: dict[str, int] = {}

    @property
    def by(self) -> str | None:
        if not self._drawn:
            return None
        if self._by_label:
            return "label and group" if self._grouped else "label"
        return "group" if self._grouped else "id"

    def draw(self, position: int, example: SourceExample) -> str:
        """The split of an example by hash, which `by_labels` may change later on."""
        self._drawn = True
        self._grouped = self._grouped or example.group is not None
        key = example.id if example.group is None else f"group {example.group}"
        if self._by_label:
            labels = tuple(self._labels.setdefault(name, len(self._labels)) for name in dict.fromkeys(example.labels))
            group = self._groups.setdefault(key, len(self._groups))
            self._examples.append((position, hash_id(key, "split", self._seed), labels, group))
            if len(self._examples) > self._most:
                self._by_label, self.too_many = False, True
                self._examples, self._labels, self._groups = [], {}, {}
        return draw_split(key, self._fractions, self._seed)

    def by_labels(self, left_out: Container[int]) -> Iterator[tuple[str, int]]:
        """Yields (split, position) of the examples that were not left out, if splits are drawn by label; otherwise nothing."""
        examples = [example for example in self._examples if example[0] not in left_out]
        if not examples:
            return
        positions, hashes, labels, groups = zip(*examples, strict=True)
        names, fractions = list(self._fractions), list(self._fractions.values())
        if self._grouped or max(map(len, labels)) > 1:
            splits = self._spread(hashes, labels, groups, fractions)
        else:
            label_names = list(self._labels)
            classes = [label_names[label_ids[0]] if label_ids else "" for label_ids in labels]
            splits = draw_within_classes(classes, hashes, fractions, self._seed)
        yield from ((names[split], position) for split, position in zip(splits, positions, strict=True))

    def _spread(self, hashes, labels, groups, fractions) -> np.ndarray:
        """The splits of examples with groups or several labels; to have no label counts as one further label."""
        no_label = (len(self._labels),)
        pairs = [(number, label) for number, label_ids in enumerate(labels) for label in label_ids or no_label]
        examples, label_ids = np.array(pairs, int).T
        _, first, group_ids = np.unique(groups, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(np.array(hashes)[first], kind="stable"), kind="stable")
        offsets = [hash_id(name, "quota", self._seed) / 2**63 for name in (*self._labels, "")]
        return stratify(examples, label_ids, group_ids, fractions, rank, offsets[: label_ids.max() + 1])
