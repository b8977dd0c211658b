"""Folds of the training examples: stratified by label, with duplicates kept together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def group_duplicates(keys: Sequence[np.ndarray], most: int) -> np.ndarray:
    """Groups examples that share something, such as the same picture or the same text.

    Held-out examples only tell how a model answers new ones if no copy of theirs was learned from.

    Args:
        keys: what may be shared: of each kind int64 [N], where two examples with the same number have the same value, and -1
            stands for an example without one.
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

    Labels with few examples are spread first, since they have the least choice; a label with fewer groups than folds is absent
    from some of them.

    Reference: Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data" (2011), figure 3, with groups in
    the place of examples, and with the order of the labels fixed at the start.

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
    num_labels = int(labels.max()) + 1 if labels.ndim == 1 else labels.shape[1]
    ones = np.ones(len(label_ids))
    of_group = coo_array((ones, (groups[examples], label_ids)), shape=(num_groups, num_labels)).tocsr()
    with_label = of_group.tocsc()
    sizes = np.bincount(groups, minlength=num_groups)
    rng = np.random.default_rng(seed)
    rank = rng.permutation(num_groups)
    wanted = np.tile(of_group.sum(axis=0) / num_folds, (num_folds, 1))
    room = np.full(num_folds, len(labels) / num_folds)
    fold_of = np.full(num_groups, -1)

    def place(group: int, wishes: np.ndarray) -> None:
        fold = max(range(num_folds), key=lambda fold: (round(wishes[fold], 6), room[fold]))
        fold_of[group] = fold
        room[fold] -= sizes[group]
        begin, end = of_group.indptr[group : group + 2]
        wanted[fold, of_group.indices[begin:end]] -= of_group.data[begin:end]

    for label in np.argsort(of_group.sum(axis=0), kind="stable"):
        members = with_label.indices[with_label.indptr[label] : with_label.indptr[label + 1]]
        members = members[fold_of[members] < 0]
        for group in members[np.lexsort((rank[members], -sizes[members]))]:  # large groups first: small ones even them out
            place(group, wanted[:, label])
    for group in np.flatnonzero(fold_of < 0)[np.argsort(rank[fold_of < 0])]:
        place(group, room)
    return fold_of[groups]
