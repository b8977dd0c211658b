"""The loss classes, which `losses.py` makes. They take logits, and compute in float32 under any dtype policy. Pure Keras."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops


class LogitsLoss(keras.losses.Loss):
    """Base of all losses: `(labels, logits float32 [B, L]) -> loss float32 [B]`, one number for each example.

    Multi-label data has multi-hot labels [B, L], and an example's loss is the mean over the labels. Multi-class data has ids
    [B]; for examples mixed of several, it has shares of the classes [B, L], and the loss is the mean of the losses of the
    classes, weighted by the shares. Keras makes one number of a batch: the sum of weight x loss over its examples, divided by
    the number of examples, so that an example of weight 2 counts twice.

    Args:
        multi_label: whether the data is multi-label rather than multi-class.
        label_weights: one factor for each label [L], or None for 1 everywhere. Multi-class: an example's loss is multiplied by
            the factor of its class. Multi-label: the factor weighs the label in the mean over the labels. It is the same
            for positives and negatives, so that the best answer is still the label's probability.
    """

    def __init__(self, multi_label: bool, label_weights: Sequence[float] | None = None, name="loss", **kwargs):
        super().__init__(name=name, dtype="float32", **kwargs)
        self.multi_label = multi_label
        self.label_weights = None if label_weights is None else np.asarray(label_weights, "float32")

    def call(self, y_true, y_pred):
        if self.multi_label:
            losses = self.of_labels(y_true, y_pred)
            return ops.mean(losses if self.label_weights is None else ops.multiply(losses, self.label_weights), axis=-1)
        losses = self.of_classes(y_pred)
        losses = losses if self.label_weights is None else losses * self.label_weights
        if len(y_true.shape) == 2:
            return ops.sum(losses * ops.cast(y_true, losses.dtype), axis=-1)
        return ops.take_along_axis(losses, ops.expand_dims(ops.cast(y_true, "int32"), -1), axis=-1)[:, 0]

    def of_labels(self, labels, logits):
        """The loss of each label: labels [B, L] within [0, 1] and logits [B, L] -> [B, L]."""
        raise NotImplementedError

    def of_classes(self, logits):
        """Logits [B, L] -> [B, L]: for each class, the loss of the example if that were its true class."""
        raise NotImplementedError

    def get_config(self):
        weights = None if self.label_weights is None else self.label_weights.tolist()
        return {**super().get_config(), "multi_label": self.multi_label, "label_weights": weights}


@keras.saving.register_keras_serializable(package="mm_keras")
class CrossEntropy(LogitsLoss):
    """Softmax (multi-class) or sigmoid (multi-label) cross-entropy.

    With label smoothing, the part `label_smoothing` of the target is spread evenly over all classes, or over yes and no.
    """

    def __init__(self, multi_label: bool, label_smoothing: float = 0.0, **kwargs):
        super().__init__(multi_label, **kwargs)
        _check("label_smoothing", label_smoothing, 0 <= label_smoothing < 1, "within [0, 1)")
        self.label_smoothing = label_smoothing

    def of_labels(self, labels, logits):
        if self.label_smoothing:
            labels = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        return ops.binary_crossentropy(labels, logits, from_logits=True)

    def of_classes(self, logits):
        losses = -ops.log_softmax(logits, axis=-1)
        if not self.label_smoothing:
            return losses
        return (1 - self.label_smoothing) * losses + self.label_smoothing * ops.mean(losses, axis=-1, keepdims=True)

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable(package="mm_keras")
class SquaredError(LogitsLoss):
    """The mean over the labels of (probability - target)². Probabilities are softmax (multi-class) or sigmoid (multi-label)."""

    def of_labels(self, labels, logits):
        return ops.square(ops.sigmoid(logits) - labels)

    def of_classes(self, logits):
        probabilities = ops.softmax(logits, axis=-1)
        return (ops.sum(ops.square(probabilities), axis=-1, keepdims=True) - 2 * probabilities + 1) / logits.shape[-1]


@keras.saving.register_keras_serializable(package="mm_keras")
class FocalLoss(LogitsLoss):
    """The loss is (1 - p)^gamma x cross-entropy, where p is the probability that the model gives to the true answer.

    Reference: Lin et al., "Focal Loss for Dense Object Detection", equations 4 and 5.
    """

    def __init__(self, multi_label: bool, gamma: float = 2.0, alpha: float | None = None, **kwargs):
        super().__init__(multi_label, **kwargs)
        _check_exponent("gamma", gamma)
        if alpha is not None:
            _check("alpha", alpha, 0 < alpha < 1, "within (0, 1)")
            if not multi_label:
                raise ValueError(
                    f"alpha weighs positives against negatives, which only multi-label data has. Received: alpha={alpha}; "
                    "set class_balance instead"
                )
        self.gamma = gamma
        self.alpha = alpha

    def of_labels(self, labels, logits):
        losses = self._focus(ops.binary_crossentropy(labels, logits, from_logits=True))
        return losses if self.alpha is None else losses * (self.alpha * labels + (1 - self.alpha) * (1 - labels))

    def of_classes(self, logits):
        return self._focus(-ops.log_softmax(logits, axis=-1))

    def _focus(self, losses):
        return losses * _power(-ops.expm1(-losses), self.gamma)

    def get_config(self):
        return {**super().get_config(), "gamma": self.gamma, "alpha": self.alpha}


@keras.saving.register_keras_serializable(package="mm_keras")
class AsymmetricLoss(LogitsLoss):
    """A focal loss with a larger exponent for negatives, which leaves out the easiest negatives. Multi-label only.

    For a positive with probability p the loss is (1 - p)^gamma_positive x -log(p). For a negative it is
    q^gamma_negative x -log(1 - q), where q = max(p - margin, 0).

    Reference: Ridnik et al., "Asymmetric Loss For Multi-Label Classification", equations 4 to 7.
    """

    def __init__(
        self,
        multi_label: bool = True,
        gamma_negative: float = 4.0,
        gamma_positive: float = 0.0,
        margin: float = 0.05,
        **kwargs,
    ):
        super().__init__(multi_label, **kwargs)
        if not multi_label:
            raise ValueError("the asymmetric loss is for multi-label data; for one label an example use make_focal_loss")
        _check_exponent("gamma_negative", gamma_negative)
        _check_exponent("gamma_positive", gamma_positive)
        _check("margin", margin, 0 <= margin < 1, "within [0, 1)")
        self.gamma_negative = gamma_negative
        self.gamma_positive = gamma_positive
        self.margin = margin

    def of_labels(self, labels, logits):
        positive = ops.softplus(-logits) * _power(ops.sigmoid(-logits), self.gamma_positive)
        shifted = ops.relu(ops.sigmoid(logits) - self.margin)
        # Without a margin the logarithm of a probability that rounds to 0 would be infinite.
        negative = -ops.log1p(-shifted) if self.margin else ops.softplus(logits)
        return labels * positive + (1 - labels) * negative * _power(shifted, self.gamma_negative)

    def get_config(self):
        names = ("gamma_negative", "gamma_positive", "margin")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _power(values, exponent: float):
    return ops.power(values, exponent) if exponent else 1.0  # the gradient of 0^0 is NaN


def _check(name: str, value: float, fine: bool, rule: str) -> None:
    if not fine:
        raise ValueError(f"{name} must be {rule}. Received: {name}={value}")


def _check_exponent(name: str, value: float) -> None:
    """Refuses exponents between 0 and 1, for which the gradient of the power is infinite at 0."""
    _check(name, value, value == 0 or value >= 1, "0, or 1 or more")
