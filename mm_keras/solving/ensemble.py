"""Chooses an ensemble of candidates by their held-out answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.special import log_softmax

_MOST_STEPS = 24
_LEAST_GAIN = 1e-3  # the part of the loss by which a further step has to lower it
_TIE = 2e-4  # a simpler candidate is taken if its loss is this near to the best one's, relative
_MOST_ANSWERS = 2_000_000  # examples x labels on which mixtures are compared
_PARTS = (0.05, 0.1, 0.2, 0.35, 0.5)  # shares of the ensemble that a step can give to a candidate


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
    """Mixes candidates into an average of logits, as long as its log-loss on held-out examples falls.

    It begins with the best candidate. Each step mixes in a part of one candidate: the candidate, and the size of the part, that
    lower the loss most. A candidate may be taken again. Where all parts are 1 / (step + 1), this is the selection with
    repetition of Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble Selection from Libraries of Models" (2004), section 2.2,
    which ends too early where half of the second candidate is too much and a fifth of it is not.

    Args:
        candidates: the held-out logits float [N, L] of each candidate, simple ones first; of equally good ones, the first is
            taken.
        targets: 0 and 1 [N, L].
        weights: float [N].
        multi_label: sigmoid (True) or softmax.

    Returns:
        number of a candidate -> its share, above 0; the shares add up to 1.

    Example:
        >>> choose_ensemble([good_logits, bad_logits], targets, weights, multi_label=False)
        {0: 1.0}
    """
    sample = slice(None, None, -(-targets.size // _MOST_ANSWERS))
    candidates, targets, weights = [candidate[sample] for candidate in candidates], targets[sample], weights[sample]

    def best_of(mixtures: Iterable[np.ndarray]) -> tuple[int, float]:
        """(the index of the first mixture that is as good as the best one, its loss)."""
        losses = [mean_loss(mixture, targets, weights, multi_label) for mixture in mixtures]
        index = next(number for number, loss in enumerate(losses) if loss <= min(losses) * (1 + _TIE))
        return index, losses[index]

    first, best = best_of(candidates)
    total, shares = candidates[first], {first: 1.0}
    options = list(itertools.product(range(len(candidates)), _PARTS))
    for _ in range(_MOST_STEPS):
        index, loss = best_of((1 - part) * total + part * candidates[number] for number, part in options)
        if loss > best * (1 - _LEAST_GAIN):
            break
        best, (number, part) = loss, options[index]
        total = (1 - part) * total + part * candidates[number]
        shares = {member: share * (1 - part) for member, share in shares.items()}
        shares[number] = shares.get(number, 0.0) + part
    return dict(sorted(shares.items()))
