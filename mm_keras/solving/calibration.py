"""Calibration from held-out answers: a temperature, or Platt scaling for each label."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit, softmax

from mm_keras.solving.ensemble import mean_loss

_ITERATIONS = 20
_EXPONENTS = (-4, 6)  # of the factor of logits, a power of e
_MOST_DOUBT = 0.2  # by which an exponent is lowered at most: where two labels are nearly tied, no factor brings the accuracy


class Calibration(NamedTuple):
    """How logits become calibrated: logits x scale + offset, both of them float32 [L] with one number for each label."""

    scale: np.ndarray
    offset: np.ndarray

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Logits float32 [N, L] -> [N, L]."""
        return logits * self.scale + self.offset


def calibrate(
    logits: np.ndarray, targets: np.ndarray, weights: np.ndarray, multi_label: bool, match_accuracy: bool = True
) -> Calibration:
    """The calibration with the lowest log-loss on held-out logits.

    Args:
        logits: float32 [N, L].
        targets: 0 and 1, float32 [N, L].
        weights: float32 [N].
        multi_label: Platt scaling for each label (True), or one temperature for all of them.
        match_accuracy: whether the temperature is raised further where the mean confidence is still above the accuracy: an
            ensemble that was chosen by these examples is rather too sure of new ones. It is never lowered for that.

    Reference: Guo et al., "On Calibration of Modern Neural Networks" (2017), section 4.2; Clarté et al., "Expectation
    Consistency for Calibration of Neural Networks" (2023), for a mean confidence that is the accuracy; Platt, "Probabilistic
    Outputs for Support Vector Machines" (1999), with a slope and an offset that are held near those of all labels together
    where a label has few examples.
    """
    num_labels = logits.shape[1]
    if not multi_label:
        scale = _scale(logits, targets, weights, match_accuracy)
        return Calibration(np.full(num_labels, scale, np.float32), np.zeros(num_labels, np.float32))
    shared = _platt(logits.reshape(-1, 1), targets.reshape(-1, 1), np.repeat(weights, num_labels), 1.0, 0.0)
    slope, offset = (values[0] for values in shared)
    return Calibration(*(values.astype("float32") for values in _platt(logits, targets, weights, slope, offset)))


def _scale(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray, match_accuracy: bool) -> float:
    """The factor of the logits: the inverse of the temperature."""
    doubt = 1 / (len(targets) + 1)  # as if one more example were wrong: if none were, nothing would limit the scale
    softened = targets * (1 - doubt) + doubt / targets.shape[1]
    minimum = minimize_scalar(
        lambda exponent: mean_loss(np.exp(exponent) * logits, softened, weights, multi_label=False),
        bounds=_EXPONENTS,
        method="bounded",
        options={"xatol": 0.01},
    )
    if not match_accuracy:
        return float(np.exp(minimum.x))
    right = np.append(logits.argmax(axis=1) == targets.argmax(axis=1), 0.5)  # and one more example, half right
    accuracy = np.average(right, weights=np.append(weights, 1.0))

    def excess(exponent: float) -> float:
        """By how much the mean confidence exceeds the accuracy."""
        return float(np.average(softmax(np.exp(exponent) * logits, axis=1).max(axis=1), weights=weights) - accuracy)

    exponent, lowest = minimum.x, minimum.x - _MOST_DOUBT
    if excess(exponent) > 0:
        exponent = brentq(excess, lowest, exponent, xtol=1e-3) if excess(lowest) < 0 else lowest
    return float(np.exp(exponent))


def _platt(
    logits: np.ndarray, targets: np.ndarray, weights: np.ndarray, slope: float, offset: float
) -> tuple[np.ndarray, np.ndarray]:
    """The slopes [L] and offsets [L] of Platt scaling, by Newton's method for all labels at once.

    It starts from a slope and an offset, and the result is pulled to these.
    """
    pull = 4.0  # in units of curvature, of which an example with an even chance has 1/4
    slopes, offsets = np.full(logits.shape[1], slope), np.full(logits.shape[1], offset)
    spread = np.maximum(np.average(np.square(logits), axis=0, weights=weights), 1e-6)
    for _ in range(_ITERATIONS):
        probabilities = expit(logits * slopes + offsets)
        errors = (probabilities - targets) * weights[:, None]
        curvatures = probabilities * (1 - probabilities) * weights[:, None]
        gradient = np.stack(
            [(errors * logits).sum(0) + pull * spread * (slopes - slope), errors.sum(0) + pull * (offsets - offset)], axis=-1
        )
        mixed = (curvatures * logits).sum(0)
        hessian = np.stack(
            [(curvatures * np.square(logits)).sum(0) + pull * spread, mixed, mixed, curvatures.sum(0) + pull], axis=-1
        ).reshape(-1, 2, 2)
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        step *= np.minimum(1, 2 / np.maximum(np.abs(step).max(axis=-1, keepdims=True), 1e-12))
        slopes, offsets = slopes - step[:, 0], offsets - step[:, 1]
        if np.abs(step).max() < 1e-5:
            break
    return np.maximum(slopes, 1e-3), offsets
