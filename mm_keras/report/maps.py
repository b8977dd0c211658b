"""Maps of embeddings in two dimensions: principal components, and t-SNE."""

from __future__ import annotations

import numpy as np

from mm_keras.report.neighbours import unit_rows

MOST_POINTS = 500  # of a map: t-SNE takes long, and more cannot be told apart
_DIMENSIONS = 32  # principal components that t-SNE begins with
_LEAST_POINTS = 5


def make_maps_of(vectors: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Maps of vectors float [N, D], which are brought to length 1 first.

    Returns:
        {"t-SNE": a map in which near vectors stay near, "principal components": the first two}, float [N, 2] each; {} for fewer
        than 5 vectors, or vectors that are all alike.

    Reference: van der Maaten and Hinton, "Visualizing Data using t-SNE", 2008.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # several wait for each other in vain where other work uses the cores
        reduced = _reduce(vectors, seed)
        if reduced is None:
            return {}
        perplexity = max(1.0, min(30.0, (len(reduced) - 1) / 3))
        start = "pca" if reduced.shape[1] > 1 else "random"
        near = TSNE(2, perplexity=perplexity, init=start, random_state=seed, max_iter=500).fit_transform(reduced)
    return {"t-SNE": near, "principal components": np.pad(reduced[:, :2], [(0, 0), (0, max(0, 2 - reduced.shape[1]))])}


def _reduce(vectors: np.ndarray, seed: int) -> np.ndarray | None:
    from sklearn.decomposition import PCA

    if len(vectors) < _LEAST_POINTS:
        return None
    vectors = unit_rows(vectors)
    if np.ptp(vectors, axis=0).max() == 0:  # all are one point
        return None
    return PCA(min(_DIMENSIONS, *vectors.shape), random_state=seed, svd_solver="randomized").fit_transform(vectors)
