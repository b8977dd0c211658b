"""Metrics on logits that see one batch at a time, in memory that does not grow with the number of examples. Pure Keras.

`update_state` takes labels (multi-hot [B, L], or ids [B] for multi-class data), logits [B, L], and optionally weights [B],
which are 0 for the empty examples that fill a batch. The labels of an example mixed of several are shares [B, L]. Then the
class with the largest share is true (multi-class), or all labels with a share of at least a half are (multi-label). Counts are
float32, so a label that occurs in more than 16 million examples is counted to seven digits.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

AVERAGES = ("micro", "macro", "weighted", "samples")
SCORES = ("precision", "recall", "f1")


@keras.saving.register_keras_serializable(package="mm_keras")
class LabelScore(keras.metrics.Metric):
    """Precision, recall or F1, averaged as in scikit-learn. A score whose denominator is 0 counts as 0.

    "micro" counts all labels together. "macro" is the mean over the labels; for multi-class data, over the labels that occur or
    are predicted. "weighted" is the mean over the labels, weighted by how often they occur. "samples" is the mean over the
    examples.

    Args:
        score: "<average>_<score>", for example "macro_f1".
        num_labels: number of labels, L.
        multi_label: whether all labels whose probability exceeds `threshold` are predicted, rather than the most probable one.
        threshold: a probability within (0, 1), or one for each label [L]. Multi-label only.
    """

    def __init__(
        self, score: str, num_labels: int, multi_label: bool, threshold: float | Sequence[float] = 0.5, name=None, dtype=None
    ):
        super().__init__(name=name or score, dtype="float32")
        self._average, _, self._score = score.partition("_")
        if self._average not in AVERAGES or self._score not in SCORES:
            raise ValueError(f"score is one of {AVERAGES}, '_' and one of {SCORES}. Received: {score!r}")
        self.score = score
        self.num_labels = num_labels
        self.multi_label = multi_label
        self.threshold = np.asarray(threshold, "float64")
        if not ((self.threshold > 0) & (self.threshold < 1)).all():
            raise ValueError(f"a threshold is a probability between 0 and 1. Received: {threshold}")
        self.hits, self.predicted, self.true = (
            self.add_weight(shape=(num_labels,), initializer="zeros", name=part) for part in ("hits", "predicted", "true")
        )
        self.sample_scores = self.add_weight(shape=(len(SCORES),), initializer="zeros", name="sample_scores")
        self.num_examples = self.add_weight(shape=(), initializer="zeros", name="num_examples")

    def decide(self, logits):
        """Decides which labels are predicted: logits [B, L] -> bool [B, L]."""
        if not self.multi_label:
            return ops.one_hot(ops.argmax(logits, axis=-1), self.num_labels, dtype="bool")
        return ops.greater(logits, _logit(self.threshold))

    def update_state(self, y_true, y_pred, sample_weight=None):
        logits = ops.cast(y_pred, "float32")
        predicted = ops.cast(self.decide(logits), "float32")
        if self.multi_label:
            true = ops.cast(true_labels(y_true), "float32")
        else:
            true = ops.one_hot(true_ids(y_true), self.num_labels, dtype="float32")
        weights = example_weights(sample_weight, logits)
        hits = predicted * true
        for variable, counted in ((self.hits, hits), (self.predicted, predicted), (self.true, true)):
            variable.assign_add(ops.matmul(weights, counted))
        of_examples = _scores(*(ops.sum(counted, axis=-1) for counted in (hits, predicted, true)))
        self.sample_scores.assign_add(ops.stack([ops.sum(weights * of_examples[score]) for score in SCORES]))
        self.num_examples.assign_add(ops.sum(weights))

    def result(self):
        return self.all_results()[self.score]

    def all_results(self) -> dict:
        """All averages of all scores, by their names "<average>_<score>". `result` returns one of them."""
        hits, predicted, true = (ops.convert_to_tensor(count) for count in (self.hits, self.predicted, self.true))
        of_labels = _scores(hits, predicted, true)
        of_all = _scores(ops.sum(hits), ops.sum(predicted), ops.sum(true))
        seen = ops.sum(ops.cast(predicted + true > 0, "float32"))
        num_averaged = self.num_labels if self.multi_label else seen
        of_averages = {
            "micro": of_all,
            "macro": {score: ops.divide_no_nan(ops.sum(values), num_averaged) for score, values in of_labels.items()},
            "weighted": {
                score: ops.divide_no_nan(ops.sum(values * true), ops.sum(true)) for score, values in of_labels.items()
            },
            "samples": dict(zip(SCORES, ops.unstack(ops.divide_no_nan(self.sample_scores, self.num_examples)), strict=True)),
        }
        return {f"{average}_{score}": value for average, scores in of_averages.items() for score, value in scores.items()}

    def get_config(self):
        config = {"score": self.score, "num_labels": self.num_labels, "multi_label": self.multi_label, "name": self.name}
        return {**config, "threshold": self.threshold.tolist()}


@keras.saving.register_keras_serializable(package="mm_keras")
class ImageDScore(LabelScore):
    """Precision, recall or F1 by ImageD's rule: of the labels with a probability of at least 0.3, the four best are predicted.

    It is the micro average: hits, predictions and true labels are summed over all examples and labels, and then divided. Of
    labels with equal scores, the one with the smaller id ranks first.

    Args:
        score: "precision", "recall" or "f1".
        num_labels: number of labels, L.
    """

    max_labels = 4

    def __init__(self, score: str, num_labels: int, name=None, dtype=None):
        super().__init__(f"micro_{score}", num_labels, True, threshold=0.3, name=name or f"imaged_{score}")

    def decide(self, logits):
        best, ids = ops.top_k(logits, min(self.max_labels, self.num_labels))
        kept = ops.cast(ops.greater_equal(best, _logit(self.threshold)), "float32")
        rows = ops.one_hot(ids, self.num_labels, dtype="float32") * ops.expand_dims(kept, -1)
        return ops.sum(rows, axis=1) > 0

    def get_config(self):
        return {"score": self.score.removeprefix("micro_"), "num_labels": self.num_labels, "name": self.name}


@keras.saving.register_keras_serializable(package="mm_keras")
class CalibrationError(keras.metrics.Metric):
    """The expected calibration error (ECE): the difference between probabilities and how often they come true. 0 is best.

    Probabilities are put into n bins of equal width, from (0, 1/n] to ((n-1)/n, 1]. The error is the mean over the bins,
    weighted by their sizes, of |mean probability - share that came true|. For multi-class data, the probabilities are those of
    the most probable label of each example. For multi-label data they are those of all labels of all examples, so the error is
    small where there are many labels, most of which are clearly absent.

    Args:
        multi_label: whether the data is multi-label rather than multi-class.
        num_bins: number of bins, n.

    Reference: Guo et al., "On Calibration of Modern Neural Networks", equation 3.
    """

    def __init__(self, multi_label: bool, num_bins: int = 15, name="ece", dtype=None):
        super().__init__(name=name, dtype="float32")
        if num_bins < 1:
            raise ValueError(f"num_bins must be positive. Received: {num_bins}")
        self.multi_label = multi_label
        self.num_bins = num_bins
        self.sizes, self.probabilities, self.came_true = (
            self.add_weight(shape=(num_bins,), initializer="zeros", name=part)
            for part in ("sizes", "probabilities", "came_true")
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        logits = ops.cast(y_pred, "float32")
        if self.multi_label:
            probabilities, true = ops.sigmoid(logits), ops.cast(true_labels(y_true), "float32")
        else:
            probabilities = ops.max(ops.softmax(logits, axis=-1), axis=-1, keepdims=True)
            right = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), true_ids(y_true))
            true = ops.expand_dims(ops.cast(right, "float32"), -1)
        weights = ops.expand_dims(example_weights(sample_weight, logits), -1)
        bins = ops.clip(ops.ceil(probabilities * self.num_bins), 1, self.num_bins)
        # Masked sums: a scatter is slow on accelerators, and adds one number after the other, which loses digits.
        masks = [ops.cast(ops.equal(bins, number), "float32") * weights for number in range(1, self.num_bins + 1)]
        self.sizes.assign_add(ops.stack([ops.sum(mask) for mask in masks]))
        self.probabilities.assign_add(ops.stack([ops.sum(mask * probabilities) for mask in masks]))
        self.came_true.assign_add(ops.stack([ops.sum(mask * true) for mask in masks]))

    def result(self):
        return ops.divide_no_nan(ops.sum(ops.abs(self.probabilities - self.came_true)), ops.sum(self.sizes))

    def get_config(self):
        return {"multi_label": self.multi_label, "num_bins": self.num_bins, "name": self.name}


def _scores(hits, predicted, true) -> dict:
    """Precision, recall and F1 by name, each of the shape of the counts."""
    return {
        "precision": ops.divide_no_nan(hits, predicted),
        "recall": ops.divide_no_nan(hits, true),
        "f1": ops.divide_no_nan(2 * hits, predicted + true),
    }


def true_ids(y_true):
    """The true class of each example: ids [B], or shares [B, L] -> ids int32 [B]."""
    return ops.cast(ops.argmax(y_true, axis=-1) if len(y_true.shape) == 2 else y_true, "int32")


def true_labels(y_true):
    """The true labels of each example: multi-hot labels or shares [B, L] -> bool [B, L]."""
    return ops.greater_equal(ops.cast(y_true, "float32"), 0.5)


def example_weights(sample_weight, logits):
    """The weights of the examples, float32 [B]; 1 for all of them if `sample_weight` is None."""
    if sample_weight is None:
        return ops.ones(ops.shape(logits)[:1], "float32")
    return ops.reshape(ops.cast(sample_weight, "float32"), (-1,))


def _logit(probability: np.ndarray) -> np.ndarray:
    """The logit of a probability: comparing logits instead of probabilities avoids the rounding of those near 1 to 1."""
    return (np.log(probability) - np.log1p(-probability)).astype("float32")


class _OfIds:
    """Lets a metric of Keras that takes ids [B] take shares [B, L], too."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(true_ids(y_true), y_pred, sample_weight)


@keras.saving.register_keras_serializable(package="mm_keras")
class Top1(_OfIds, keras.metrics.SparseCategoricalAccuracy):
    """The fraction of examples whose class has the highest logit."""


@keras.saving.register_keras_serializable(package="mm_keras")
class TopK(_OfIds, keras.metrics.SparseTopKCategoricalAccuracy):
    """The fraction of examples whose class is among the k highest logits."""


@keras.saving.register_keras_serializable(package="mm_keras")
class ClassCrossEntropy(_OfIds, keras.metrics.SparseCategoricalCrossentropy):
    """The mean of -log(p), where p is the probability of the true class."""
