"""Which labels are taken for which others: the matrix of the most confused, and those that occur together."""

from __future__ import annotations

import numpy as np


def confusion_counts(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """How often each label is taken for each other one, int [L, L]: rows are true, columns predicted.

    Of examples with several labels, each label that was missed counts with each that was predicted wrongly; the diagonal counts
    hits.

    Args:
        true, predicted: bool [N, L].
    """
    hits = (true & predicted).sum(axis=0)
    missed, wrong = (true & ~predicted).astype(np.float32), (predicted & ~true).astype(np.float32)
    counts = np.round(missed.T @ wrong).astype(np.int64)
    counts[np.diag_indices_from(counts)] = hits
    return counts


def most_confused(counts: np.ndarray, number: int) -> np.ndarray:
    """The labels with the most confusions, at most `number`, in an order in which those that are confused stand together.

    Args:
        counts: int [L, L], of `confusion_counts`.
        number: how many.

    Returns:
        int [n].
    """
    errors = counts - np.diag(np.diag(counts))
    involved = errors.sum(axis=0) + errors.sum(axis=1)
    seen = counts.sum(axis=0) + counts.sum(axis=1)
    candidates = np.lexsort((-seen, -involved))[:number]
    chosen = np.sort(candidates[seen[candidates] > 0])
    if len(chosen) < 3:
        return chosen
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    both = errors[np.ix_(chosen, chosen)]
    sizes = np.maximum(1, counts[chosen].sum(axis=1))
    closeness = (both + both.T) / np.sqrt(np.outer(sizes, sizes))
    distances = 1 / (1 + closeness / max(closeness.max(), 1e-9) * 9)
    np.fill_diagonal(distances, 0)
    return chosen[leaves_list(linkage(squareform(distances, checks=False), "average", optimal_ordering=True))]


def top_confusions(counts: np.ndarray, number: int) -> list[tuple[int, int, int]]:
    """The most frequent confusions, as (true, predicted, count)."""
    errors = counts - np.diag(np.diag(counts))
    order = np.argsort(-errors, axis=None, kind="stable")[:number]
    rows, columns = np.unravel_index(order, errors.shape)
    return [
        (int(row), int(column), int(errors[row, column]))
        for row, column in zip(rows, columns, strict=True)
        if errors[row, column]
    ]


def co_occurrence(true: np.ndarray) -> np.ndarray:
    """The share of the examples with the label of a row that also have the label of a column: float [L, L]."""
    both = true.T.astype(np.float32) @ true.astype(np.float32)
    return both / np.maximum(1, np.diag(both))[:, np.newaxis]
