"""Whether the test examples are like the training's: labels, lengths, sizes, and whether a classifier can tell them apart."""

from __future__ import annotations

import numpy as np

from mm_keras.report.neighbours import unit_rows

_MOST_EXAMPLES = 2000  # of each side
_MOST_DIMENSIONS = 32
_LEAST_EXAMPLES = 20  # of each side


def label_drift(train_counts: np.ndarray, test_counts: np.ndarray) -> dict[str, float]:
    """How far the shares of the labels are apart.

    Returns:
        {"distance": total variation, 0–1, "chance": the p-value of the chi-squared test}.

    Args:
        train_counts, test_counts: int [L], how often each label occurs.
    """
    from scipy.stats import chi2_contingency

    if not train_counts.sum() or not test_counts.sum():
        return {"distance": 0.0, "chance": 1.0}
    shares = train_counts / train_counts.sum(), test_counts / test_counts.sum()
    seen = (train_counts + test_counts) > 0
    table = np.stack([train_counts[seen], test_counts[seen]])
    chance = float(chi2_contingency(table).pvalue) if seen.sum() > 1 else 1.0
    return {"distance": float(np.abs(shares[0] - shares[1]).sum() / 2), "chance": chance}


def number_drift(train: np.ndarray, test: np.ndarray) -> dict[str, float] | None:
    """How far two samples of numbers are apart, by the test of Kolmogorov and Smirnov; None where one is empty.

    Returns:
        {"train": median, "test": median, "distance": 0–1, "chance": p-value}.
    """
    from scipy.stats import ks_2samp

    if not len(train) or not len(test):
        return None
    result = ks_2samp(train, test, method="asymp")
    medians = {"train": float(np.median(train)), "test": float(np.median(test))}
    return medians | {"distance": float(result.statistic), "chance": float(result.pvalue)}


def domain_score(train: np.ndarray, test: np.ndarray, seed: int = 0) -> float | None:
    """How well a classifier can tell test examples from training examples by their embeddings, as an area under the ROC curve.

    0.5: not at all. Both are sampled down to at most 2,000 examples; None where one has fewer than 20.

    Args:
        train, test: float [N, D] and [K, D].
        seed: of the samples and folds.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rng = np.random.default_rng(seed)
    sides = [vectors[rng.choice(len(vectors), min(_MOST_EXAMPLES, len(vectors)), replace=False)] for vectors in (train, test)]
    if min(map(len, sides)) < _LEAST_EXAMPLES:
        return None
    vectors = unit_rows(np.concatenate(sides))
    is_test = np.repeat([0, 1], [len(side) for side in sides])
    reduced = PCA(min(_MOST_DIMENSIONS, *vectors.shape), random_state=seed).fit_transform(vectors)
    reduced = reduced / max(float(reduced.std(axis=0).max()), 1e-9)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    model = LogisticRegression(class_weight="balanced", max_iter=200)
    scores = cross_val_predict(model, reduced, is_test, cv=folds, method="decision_function")
    return max(0.5, float(roc_auc_score(is_test, scores)))  # worse than chance is chance
