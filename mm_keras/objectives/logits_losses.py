"""The losses themselves, on logits and in float32 under any policy; `losses.py` makes them. Pure Keras."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops


class LogitsLoss(keras.losses.Loss):
    """What the losses share: `(labels, logits float32 [B, L]) -> loss of each example, float32 [B]`.

    Labels are multi-hot [B, L] (multi-label: the loss is the mean over the labels), ids [B] (multi-class) or, of mixed
    examples, shares of the classes [B, L] (multi-class: the loss is the mean, by the shares, of what it would be of each). A
    batch's loss is the sum of weight x loss over its examples, divided by their number: an example of weight 2 counts twice.

    Args:
        multi_label: which of the two.
        label_weights: a factor for each label; of an example's label (multi-class), or of a label's share in the mean
            (multi-label: its positives and negatives alike, so that the best answer remains the label's probability).
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
        """Multi-hot, or shares within [0, 1], [B, L] and logits [B, L] -> [B, L]."""
        raise NotImplementedError

    def of_classes(self, logits):
        """Logits [B, L] -> [B, L]: what the loss would be if that were the class."""
        raise NotImplementedError

    def get_config(self):
        weights = None if self.label_weights is None else self.label_weights.tolist()
        return {**super().get_config(), "multi_label": self.multi_label, "label_weights": weights}


@keras.saving.register_keras_serializable(package="mm_keras")
class CrossEntropy(LogitsLoss):
    """Softmax or sigmoid cross-entropy; smoothing moves `label_smoothing` of the target to the mean over all answers."""

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
    """Mean over the labels of (probability - target)², with sigmoid or softmax probabilities."""

    def of_labels(self, labels, logits):
        return ops.square(ops.sigmoid(logits) - labels)

    def of_classes(self, logits):
        probabilities = ops.softmax(logits, axis=-1)
        return (ops.sum(ops.square(probabilities), axis=-1, keepdims=True) - 2 * probabilities + 1) / logits.shape[-1]


@keras.saving.register_keras_serializable(package="mm_keras")
class FocalLoss(LogitsLoss):
    """(1 - p)^gamma x cross-entropy, where p is the probability of what is true.

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
    """A focal loss that focuses negatives more than positives and drops the easiest negatives; multi-label alone.

    Of a positive with probability p: (1 - p)^gamma_positive x -log(p). Of a negative, with q = max(p - margin, 0):
    q^gamma_negative x -log(1 - q).

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
    return ops.power(values, exponent) if exponent else 1.0  # 0^0 has a gradient that is no number


def _check(name: str, value: float, fine: bool, rule: str) -> None:
    if not fine:
        raise ValueError(f"{name} must be {rule}. Received: {name}={value}")


def _check_exponent(name: str, value: float) -> None:
    """Between 0 and 1, the power's gradient is infinite at 0."""
    _check(name, value, value == 0 or value >= 1, "0, or 1 or more")
