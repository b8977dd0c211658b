"""Makes losses: `train` calls one of these with `(multi_label, label_counts)`; configs bind which, and its other arguments.

Pure Keras.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from mm_keras.configurable import Fraction, NonNegativeFloat, Rate, configurable
from mm_keras.objectives.logits_losses import AsymmetricLoss, CrossEntropy, FocalLoss, SquaredError


@configurable
def make_loss(
    multi_label: bool,
    label_counts: Sequence[int] | None = None,
    label_smoothing: Rate = 0.0,
    class_balance: Rate = 0.0,
) -> keras.losses.Loss:
    """Softmax cross-entropy (multi-class) or sigmoid cross-entropy (multi-label).

    Args:
        multi_label: multi-hot labels [B, L] instead of ids [B].
        label_counts: training examples of each label; needed for `class_balance` alone.
        label_smoothing: part of the target, within [0, 1), that is spread evenly over the classes, or over yes and no.
        class_balance: beta of `class_balanced_weights`; 0: all labels weigh the same.
    """
    return CrossEntropy(multi_label, label_smoothing, label_weights=_weights(label_counts, class_balance))


@configurable
def make_mse_loss(multi_label: bool, label_counts: Sequence[int] | None = None, class_balance: Rate = 0.0) -> keras.losses.Loss:
    """Mean squared error of the probabilities; ImageD trains with it.

    (ImageD's own code takes it of the last layer's plain outputs. Here they pass through the sigmoid first, so that a score
    stays a probability in reports and exports.) Arguments as in `make_loss`.
    """
    return SquaredError(multi_label, label_weights=_weights(label_counts, class_balance))


@configurable
def make_focal_loss(
    multi_label: bool,
    label_counts: Sequence[int] | None = None,
    gamma: NonNegativeFloat = 2.0,
    alpha: Fraction | None = None,
    class_balance: Rate = 0.0,
) -> keras.losses.Loss:
    """The focal loss: easy examples count less.

    Args:
        multi_label, label_counts, class_balance: as in `make_loss`.
        gamma: 0 (the plain cross-entropy), or 1 and more.
        alpha: weight of positives, that of negatives is 1 - alpha; multi-label alone. None: both weigh 1.
    """
    return FocalLoss(multi_label, gamma, alpha, label_weights=_weights(label_counts, class_balance))


@configurable
def make_asymmetric_loss(
    multi_label: bool,
    label_counts: Sequence[int] | None = None,
    gamma_negative: NonNegativeFloat = 4.0,
    gamma_positive: NonNegativeFloat = 0.0,
    margin: Rate = 0.05,
    class_balance: Rate = 0.0,
) -> keras.losses.Loss:
    """The asymmetric loss: for many labels of which an example has few.

    Args:
        multi_label, label_counts, class_balance: as in `make_loss`.
        gamma_negative, gamma_positive: 0, or 1 and more; the defaults are the paper's for MS-COCO.
        margin: within [0, 1): negatives with at most this probability count nothing.

    Raises:
        ValueError: for multi-class data.
    """
    weights = _weights(label_counts, class_balance)
    return AsymmetricLoss(multi_label, gamma_negative, gamma_positive, margin, label_weights=weights)


def class_balanced_weights(label_counts: Sequence[int], beta: float) -> np.ndarray:
    """Weights float32 [L] by the effective number of examples, with mean 1: (1 - beta) / (1 - beta^n) for n examples.

    Args:
        label_counts: n of each label; one that never occurs weighs as if it did once.
        beta: within [0, 1): 0 gives 1 everywhere, towards 1 the inverse frequency. The paper uses 0.9 to 0.9999.

    Reference: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", equation 2.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"class_balance must be within [0, 1). Received: {beta}")
    counts = np.maximum(np.asarray(label_counts, "float64"), 1)
    weights = (1 - beta) / -np.expm1(counts * np.log(beta)) if beta else np.ones_like(counts)
    return (weights / weights.mean()).astype("float32")


def _weights(label_counts: Sequence[int] | None, class_balance: float) -> np.ndarray | None:
    if not class_balance:
        return None
    if label_counts is None:
        raise ValueError(f"class_balance needs label_counts. Received: class_balance={class_balance}, label_counts=None")
    return class_balanced_weights(label_counts, class_balance)
