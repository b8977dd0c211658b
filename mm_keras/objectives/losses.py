"""Functions that make losses. A config chooses one for `train`, which calls it with `(multi_label, label_counts)`.

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
        multi_label: whether labels are multi-hot [B, L] rather than ids [B].
        label_counts: number of training examples of each label [L]. It is needed only for `class_balance`.
        label_smoothing: the part of the target, within [0, 1), that is spread evenly over the classes, or over yes and no.
        class_balance: `beta` of `class_balanced_weights`. With 0 all labels weigh the same.
    """
    return CrossEntropy(multi_label, label_smoothing, label_weights=_weights(label_counts, class_balance))


@configurable
def make_mse_loss(multi_label: bool, label_counts: Sequence[int] | None = None, class_balance: Rate = 0.0) -> keras.losses.Loss:
    """Mean squared error of the probabilities, the loss that ImageD is trained with.

    ImageD's published code computes it on the outputs of the last layer. Here these are logits, to which the sigmoid is
    applied first, so that a score is a probability in reports and exports. The arguments are those of `make_loss`.
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
    """The focal loss, in which easy examples count less.

    Args:
        multi_label, label_counts, class_balance: as in `make_loss`.
        gamma: exponent, 0 or at least 1. With 0 the loss is the cross-entropy.
        alpha: weight of positives, within (0, 1); that of negatives is 1 - alpha. With None both weigh 1. Multi-label only.
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
    """The asymmetric loss, for data with many labels of which each example has few.

    Args:
        multi_label, label_counts, class_balance: as in `make_loss`.
        gamma_negative, gamma_positive: exponents, 0 or at least 1. The defaults are those of the paper for MS-COCO.
        margin: within [0, 1). Negatives whose probability is at most the margin do not count.

    Raises:
        ValueError: for multi-class data.
    """
    weights = _weights(label_counts, class_balance)
    return AsymmetricLoss(multi_label, gamma_negative, gamma_positive, margin, label_weights=weights)


def class_balanced_weights(label_counts: Sequence[int], beta: float) -> np.ndarray:
    """Weights of labels by their effective number of examples: (1 - beta) / (1 - beta^n) for n examples, scaled to mean 1.

    Args:
        label_counts: number of examples n of each label [L]. A label without examples weighs as much as one with a single
            example.
        beta: within [0, 1). With 0 all weights are 1; towards 1 they approach the inverse frequencies. The paper uses values
            from 0.9 to 0.9999.

    Returns:
        float32 [L].

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
