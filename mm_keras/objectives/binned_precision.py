"""Mean average precision in constant memory: exact average precision needs every score, so scores are rounded. Pure Keras."""

from __future__ import annotations

import keras
from keras import ops

from mm_keras.objectives.streaming_metrics import example_weights, true_labels


@keras.saving.register_keras_serializable(package="mm_keras")
class BinnedMeanAveragePrecision(keras.metrics.Metric):
    """Average precision of logits rounded to levels, as mean over the labels that occur; multi-label.

    `evaluate_logits` gives the exact one, from all scores of a split at once. This one is for following a training: with
    rounded logits it is what scikit-learn's `average_precision_score` gives with logits rounded alike, and it differs from
    the exact one by at most `error_bound`.

    Args:
        num_labels: L; the state holds 2 x L x num_levels numbers.
        num_levels: levels between -limit and limit, all of the same width.
        limit: logits beyond it count as if they were on it.
    """

    def __init__(self, num_labels: int, num_levels: int = 200, limit: float = 10.0, name="binned_mAP", dtype=None):
        super().__init__(name=name, dtype="float32")
        if num_levels < 2 or not limit > 0:
            raise ValueError(
                f"num_levels must be at least 2 and limit positive. Received: num_levels={num_levels}, limit={limit}"
            )
        self.num_labels = num_labels
        self.num_levels = num_levels
        self.limit = limit
        self.positives, self.examples = (
            self.add_weight(shape=(num_labels, num_levels), initializer="zeros", name=part)
            for part in ("positives", "examples")
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        logits = ops.clip(ops.cast(y_pred, "float32"), -self.limit, self.limit)
        levels = ops.cast((self.limit - logits) * (self.num_levels / (2 * self.limit)), "int32")  # the highest first
        levels = ops.minimum(levels, self.num_levels - 1)
        cells = ops.reshape(levels + ops.arange(self.num_labels, dtype="int32") * self.num_levels, (-1,))
        weights = ops.expand_dims(example_weights(sample_weight, logits), -1)
        for variable, increments in (
            (self.positives, ops.cast(true_labels(y_true), "float32")),
            (self.examples, ops.ones_like(logits)),
        ):
            sums = ops.segment_sum(ops.reshape(increments * weights, (-1,)), cells, self.num_labels * self.num_levels)
            variable.assign_add(ops.reshape(sums, (self.num_labels, self.num_levels)))

    def result(self):
        hits, predicted = ops.cumsum(self.positives, axis=1), ops.cumsum(self.examples, axis=1)
        return self._mean(ops.divide_no_nan(hits, predicted))

    def error_bound(self):
        """The largest difference from the exact mean average precision of the same logits, if no weight is a fraction.

        Within a level, the exact precision at a positive is at least that of the level's first example if all its negatives
        come first, and at most that of its last positive if they all come last.
        """
        hits, predicted = ops.cumsum(self.positives, axis=1), ops.cumsum(self.examples, axis=1)
        before = hits - self.positives
        highest = ops.divide_no_nan(hits, predicted - (self.examples - self.positives))
        lowest = ops.divide_no_nan(before + 1, predicted - self.positives + 1)
        return self._mean(ops.where(self.positives > 0, highest - lowest, 0.0))

    def _mean(self, of_levels):
        """Mean over the labels that occur of the mean of `of_levels` [L, num_levels] over a label's positives."""
        totals = ops.sum(self.positives, axis=1)
        of_labels = ops.divide_no_nan(ops.sum(self.positives * of_levels, axis=1), totals)
        return ops.divide_no_nan(ops.sum(of_labels), ops.sum(ops.cast(totals > 0, "float32")))

    def get_config(self):
        config = {"num_labels": self.num_labels, "num_levels": self.num_levels}
        return {**config, "limit": self.limit, "name": self.name}
