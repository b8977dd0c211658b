"""The nearest examples in a space of embeddings, by the cosine."""

from __future__ import annotations

import numpy as np

_ROWS = 1024  # queries that are compared at once
_TYPICAL = 2000  # known examples whose own distances are computed


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows float32 [N, D] of length 1; rows of zeros stay."""
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def nearest(queries: np.ndarray, known: np.ndarray, number: int, same: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The nearest known vectors of each query.

    Args:
        queries: float [N, D].
        known: float [K, D].
        number: how many are looked for; there may be fewer.
        same: whether the queries are the first of the known vectors; none is then its own neighbour.

    Returns:
        (int [N, n], the nearest first; float32 [N, n], their cosine distances, 0–2), n <= number.
    """
    queries, known = unit_rows(queries), unit_rows(known)
    number = min(number, len(known) - same)
    indices = np.empty((len(queries), max(number, 0)), np.int64)
    distances = np.empty(indices.shape, np.float32)
    if number < 1:
        return indices, distances
    for start in range(0, len(queries), _ROWS):
        cosines = queries[start : start + _ROWS] @ known.T
        rows = np.arange(len(cosines))[:, np.newaxis]
        if same:
            cosines[rows[:, 0], start + rows[:, 0]] = -np.inf
        candidates = np.argpartition(-cosines, number - 1, axis=1)[:, :number]
        order = np.argsort(-cosines[rows, candidates], axis=1, kind="stable")
        indices[start : start + _ROWS] = candidates[rows, order]
        distances[start : start + _ROWS] = 1 - cosines[rows, candidates[rows, order]]
    return indices, np.clip(distances, 0, 2)


def novelty(queries: np.ndarray, known: np.ndarray, rank: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """How far examples are from the training examples: the distance to the `rank`-th nearest of them.

    Returns:
        (float32 [N], the distances of the queries; float32 [up to 2,000], those of known examples to the other known ones, to
        compare the former with).

    Reference: Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", section 3.
    """
    of_queries, of_known = nearest(queries, known, rank)[1], nearest(known[:_TYPICAL], known, rank, same=True)[1]
    if not of_known.shape[1]:
        return np.zeros(len(of_queries)), np.zeros(len(of_known))
    return of_queries[:, -1], of_known[:, -1]
