"""Which given labels are probably wrong: confident learning, and neighbours that disagree.

Reference: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from mm_keras.report.neighbours import nearest, unit_rows

_FOLDS = 5
_MOST_DIMENSIONS = 128
_LEAST_EXAMPLES = 20
_NUM_NEIGHBOURS = 10
_SURE_MARGIN = 0.5  # by which another label is more probable than the given one
_DISAGREEING = 0.8  # of the neighbours have one and the same other label


class Suspects(NamedTuple):
    """Labels that are probably wrong, the most suspicious first.

    Attributes:
        rows: int [S], the examples.
        labels: int [S], the label that is in doubt: the given one (one label an example), or one that is given or not.
        suggested: int [S], the label that fits better; of several labels: 1 = it should be given, 0 = it should not.
        scores: float [S], how much more probable the suggestion is, -1–1.
    """

    rows: np.ndarray
    labels: np.ndarray
    suggested: np.ndarray
    scores: np.ndarray


def find_label_errors(probabilities: np.ndarray, labels: np.ndarray, multi_label: bool) -> Suspects:
    """Finds labels that are probably wrong, by confident learning.

    An example is confidently of a label if the label's probability is at least as high as it is on average among the examples
    that are given this label (equation 2); of several such labels the most probable counts. The counts of (given, confidently
    true) labels are brought to the number of examples that have each label (equation 3). That many examples of each cell are
    pruned: those for which the margin between the two labels is largest (section 4.4, "prune by noise rate"). Where an example
    has one label, examples are added whose label is at least 0.5 less probable than another one: with many labels and little
    noise most cells hold less than one example, and pruning by cells alone found two thirds of planted errors, both together
    nine tenths.

    Args:
        probabilities: float [N, L], of a model that has not learned from these labels: held-out examples or folds.
        labels: int [N], or 0/1 [N, L] (multi-label), where each label is looked at by itself.
        multi_label: whether an example may have any number of labels. Of those labels, only margins of at least 0.5 count:
            rare ones are often less probable than their absence, and not wrong for that.
    """
    if not multi_label:
        return _sorted(*_prune(probabilities, labels, _SURE_MARGIN))
    parts = []
    for label in range(probabilities.shape[1]):
        of_label = np.stack([1 - probabilities[:, label], probabilities[:, label]], axis=1)
        rows, _, suggested, scores = _prune(of_label, (labels[:, label] > 0.5).astype(int))
        rows, suggested, scores = (array[scores >= _SURE_MARGIN] for array in (rows, suggested, scores))
        parts.append((rows, np.full(len(rows), label), suggested, scores))
    return _sorted(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _prune(probabilities: np.ndarray, labels: np.ndarray, sure: float = np.inf) -> tuple[np.ndarray, ...]:
    """(rows, given labels, suggested labels, margins) of what cells prune, and of all whose margin is at least `sure`."""
    num_labels = probabilities.shape[1]
    counts = np.bincount(labels, minlength=num_labels)
    given_probabilities = probabilities[np.arange(len(labels)), labels]
    thresholds = np.where(counts > 0, np.bincount(labels, given_probabilities, num_labels) / np.maximum(counts, 1), np.inf)
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    certain = confident.max(axis=1) >= 0
    true = confident.argmax(axis=1)
    joint = np.zeros((num_labels, num_labels))
    np.add.at(joint, (labels[certain], true[certain]), 1)
    rows, suggested = [], []
    totals = joint.sum(axis=1)
    for label, other in zip(*np.nonzero(joint), strict=True):
        if label == other:
            continue
        number = round(joint[label, other] / totals[label] * counts[label])
        with_label = np.flatnonzero(labels == label)
        margins = probabilities[with_label, other] - probabilities[with_label, label]
        worst = with_label[np.argsort(-margins, kind="stable")[:number]]
        rows.append(worst)
        suggested.append(np.full(len(worst), other))
    best = probabilities.argmax(axis=1)
    sure_rows = np.flatnonzero(probabilities.max(axis=1) - given_probabilities >= sure)
    rows.append(sure_rows)
    suggested.append(best[sure_rows])
    if not sum(map(len, rows)):
        return (np.zeros(0, int),) * 3 + (np.zeros(0),)
    all_rows, suggestions = np.concatenate(rows), np.concatenate(suggested)
    scores = probabilities[all_rows, suggestions] - probabilities[all_rows, labels[all_rows]]
    order = np.lexsort((-scores, all_rows))  # of an example that two cells name, the better suggestion stays
    all_rows, suggestions, scores = all_rows[order], suggestions[order], scores[order]
    kept = np.append(True, all_rows[1:] != all_rows[:-1]) & (scores > 0)
    return all_rows[kept], labels[all_rows[kept]], suggestions[kept], scores[kept]


def _sorted(rows: np.ndarray, labels: np.ndarray, suggested: np.ndarray, scores: np.ndarray) -> Suspects:
    order = np.argsort(-scores, kind="stable")
    return Suspects(rows[order], labels[order], suggested[order], scores[order])


def held_out_probabilities(embeddings: np.ndarray, labels: np.ndarray, num_labels: int, seed: int = 0) -> np.ndarray:
    """The probabilities of a logistic regression that has not seen the examples that it answers, float [N, L].

    Args:
        embeddings: float [N, D]; they are reduced to at most 128 principal components.
        labels: int [N], or 0/1 [N, L] (multi-label).
        num_labels: L.
        seed: of the five folds.

    Returns:
        uniform probabilities where there are too few examples to learn from.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold

    answers = np.full((len(labels), num_labels), 0.5 if labels.ndim == 2 else 1 / num_labels)
    if len(labels) < _LEAST_EXAMPLES:
        return answers
    vectors = unit_rows(embeddings)
    reduced = PCA(min(_MOST_DIMENSIONS, *vectors.shape), random_state=seed, svd_solver="covariance_eigh").fit_transform(vectors)
    reduced = reduced / max(float(reduced.std(axis=0).max()), 1e-9)
    for learned, held_out in KFold(_FOLDS, shuffle=True, random_state=seed).split(reduced):
        if labels.ndim == 2:
            answers[held_out] = _answer_each(reduced[learned], labels[learned] > 0.5, reduced[held_out])
            continue
        classes = np.unique(labels[learned])
        answers[held_out] = 0.0
        if len(classes) < 2:
            answers[np.ix_(held_out, classes)] = 1.0
            continue
        fitted = LogisticRegression(max_iter=200 if num_labels <= 50 else 30, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # tells of too few steps, which come near enough, and of many classes
            fitted.fit(reduced[learned], labels[learned])
        answers[np.ix_(held_out, classes)] = fitted.predict_proba(reduced[held_out])
    return answers


def _answer_each(vectors: np.ndarray, true: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The probability of each label, float [K, L]: a ridge regression, whose scores become probabilities label by label.

    Args:
        vectors: float [N, D].
        true: bool [N, L].
        asked: float [K, D].

    Reference: Platt, "Probabilistic Outputs for Support Vector Machines", 1999, for the second step.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    fitted = Ridge(alpha=1.0).fit(vectors, true.astype(np.float64))
    scores, answers = fitted.predict(vectors), fitted.predict(queries)
    for label in range(true.shape[1]):
        if true[:, label].all() or not true[:, label].any():
            answers[:, label] = float(true[0, label])
            continue
        spread = max(float(scores[:, label].std()), 1e-9)
        scale = LogisticRegression(C=10.0).fit(scores[:, [label]] / spread, true[:, label])
        answers[:, label] = scale.predict_proba(answers[:, [label]] / spread)[:, 1]
    return answers


def disagreeing_neighbours(embeddings: np.ndarray, labels: np.ndarray, number: int = _NUM_NEIGHBOURS) -> Suspects:
    """Examples of which at least 80 % of the nearest others have one and the same other label. One label an example.

    Args:
        embeddings: float [N, D].
        labels: int [N].
        number: how many neighbours are asked.
    """
    if len(labels) <= number:
        return Suspects(*(np.zeros(0, int),) * 3, np.zeros(0))
    neighbour_labels = labels[nearest(embeddings, embeddings, number, same=True)[0]]
    votes = np.zeros((len(labels), labels.max() + 1), np.int32)
    np.add.at(votes, (np.repeat(np.arange(len(labels)), number), neighbour_labels.ravel()), 1)
    best, rows = votes.argmax(axis=1), np.arange(len(labels))
    suspicious = np.flatnonzero((best != labels) & (votes[rows, best] >= _DISAGREEING * number))
    scores = (votes[rows, best] - votes[rows, labels]) / number
    return _sorted(suspicious, labels[suspicious], best[suspicious], scores[suspicious])
