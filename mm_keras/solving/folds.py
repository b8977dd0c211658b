"""Folds of the training examples: stratified by label, with duplicates kept together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tfrecords_tools.dataset.stratify import stratify


def group_duplicates(keys: Sequence[np.ndarray], most: int) -> np.ndarray:
    """Groups examples that share something, such as the same picture or the same text.

    Held-out examples only tell how a model answers new ones if no copy of theirs was learned from.

    Args:
        keys: what may be shared: for each kind of value int64 [N], where two examples with the same number have the same value,
            and -1 stands for an example without one.
        most: a value that more examples than this share makes no group: it is a placeholder ("no image available") rather than
            a sign of copies.

    Returns:
        int [N]: the number of each example's group. Examples that are linked by others are in one group.

    Example:
        >>> group_duplicates([np.array([7, 8, 7, -1])], most=10)
        array([0, 1, 0, 2])
    """
    count = len(keys[0])
    first, second = [], []
    for values in keys:
        _, codes, sizes = np.unique(values, return_inverse=True, return_counts=True)
        linked = np.flatnonzero((values >= 0) & (sizes[codes] > 1) & (sizes[codes] <= most))
        order = linked[np.argsort(codes[linked], kind="stable")]
        same = codes[order[1:]] == codes[order[:-1]]
        first.append(order[:-1][same])
        second.append(order[1:][same])
    edges = np.concatenate(first), np.concatenate(second)
    graph = coo_array((np.ones(len(edges[0]), bool), edges), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def assign_folds(labels: np.ndarray, groups: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """Assigns every example to a fold, so that each fold has about the same share of each label.

    A label with fewer groups than folds is absent from some of them. How it is done: see `stratify`.

    Args:
        labels: int [N] (multi-class), or 0 and 1 [N, num_labels] (multi-label).
        groups: int [N]: examples of one group go to the same fold.
        num_folds: the number of folds, at least 2.
        seed: another seed gives other folds.

    Returns:
        int [N]: the fold of each example, within [0, num_folds).

    Raises:
        ValueError: if there are fewer groups than folds.
    """
    num_groups = int(groups.max()) + 1
    if num_groups < num_folds:
        raise ValueError(f"{num_groups} different examples cannot be split into {num_folds} folds")
    examples, label_ids = (np.arange(len(labels)), labels) if labels.ndim == 1 else np.nonzero(labels)
    rank = np.random.default_rng(seed).permutation(num_groups)
    return stratify(examples, label_ids, groups, [1 / num_folds] * num_folds, rank)
