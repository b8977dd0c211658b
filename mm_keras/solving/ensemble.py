"""Chooses an ensemble of candidates by their held-out answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax

_MOST_STEPS = 24
_LEAST_GAIN = 1e-3  # of the loss, relative, that a further candidate has to bring
_TIE = 2e-4  # a simpler candidate is taken if its loss is this near to the best one's, relative


def mean_loss(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray, multi_label: bool) -> float:
    """The weighted mean of the log-loss per example: over the classes, or summed over the labels.

    Args:
        logits: float [N, L].
        targets: 0 and 1 [N, L].
        weights: float [N].
        multi_label: sigmoid (True) or softmax.
    """
    if multi_label:
        losses = (np.logaddexp(0, logits) - targets * logits).sum(axis=1)
    else:
        losses = -(log_softmax(logits, axis=1) * targets).sum(axis=1)
    return float(np.average(losses, weights=weights))


def choose_ensemble(
    candidates: Sequence[np.ndarray], targets: np.ndarray, weights: np.ndarray, multi_label: bool
) -> dict[int, float]:
    """Adds candidates to an average of logits, with repetition, as long as its log-loss on held-out examples falls.

    Reference: Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble Selection from Libraries of Models" (2004), section 2.2; of
    candidates that are equally good, the first one is taken.

    Args:
        candidates: the held-out logits float [N, L] of each candidate, simple ones first.
        targets: 0 and 1 [N, L].
        weights: float [N].
        multi_label: sigmoid (True) or softmax.

    Returns:
        number of a candidate -> its share, above 0; the shares add up to 1.

    Example:
        >>> choose_ensemble([good_logits, bad_logits], targets, weights, multi_label=False)
        {0: 1.0}
    """
    total, best, chosen = np.zeros_like(candidates[0]), np.inf, []
    for step in range(_MOST_STEPS):
        losses = [mean_loss((total + candidate) / (step + 1), targets, weights, multi_label) for candidate in candidates]
        lowest = min(losses)
        if lowest > best * (1 - _LEAST_GAIN):
            break
        taken = next(number for number, loss in enumerate(losses) if loss <= lowest * (1 + _TIE))
        best = losses[taken]
        chosen.append(taken)
        total += candidates[taken]
    return {number: chosen.count(number) / len(chosen) for number in sorted(set(chosen))}
