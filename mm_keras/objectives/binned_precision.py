"""Mean average precision in constant memory. The exact value needs the score of every example, so scores are rounded here.

Pure Keras.
"""

from __future__ import annotations

import keras
from keras import ops

from mm_keras.objectives.streaming_metrics import example_weights, true_labels


@keras.saving.register_keras_serializable(package="mm_keras")
class BinnedMeanAveragePrecision(keras.metrics.Metric):
    """The mean, over the labels that occur, of the average precision of logits that are rounded to levels. Multi-label only.

    This metric is for following a training; `evaluate_logits` computes the exact value from all scores of a split at once.
    The result equals that of scikit-learn's `average_precision_score` on the rounded logits, and differs from the exact value
    by at most `error_bound()`.

    Args:
        num_labels: number of labels, L. The metric's state holds 2 x L x num_levels numbers.
        num_levels: number of levels between -limit and limit, all of the same width.
        limit: a logit above `limit`, or below -`limit`, is counted as if it were equal to it.
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
        for variable, counted in (
            (self.positives, ops.cast(true_labels(y_true), "float32")),
            (self.examples, ops.ones_like(logits)),
        ):
            sums = ops.segment_sum(ops.reshape(counted * weights, (-1,)), cells, self.num_labels * self.num_levels)
            variable.assign_add(ops.reshape(sums, (self.num_labels, self.num_levels)))

    def result(self):
        hits, retrieved = ops.cumsum(self.positives, axis=1), ops.cumsum(self.examples, axis=1)
        return self._mean(ops.divide_no_nan(hits, retrieved))

    def error_bound(self):
        """The largest possible difference from the exact mean average precision of the same logits, for weights of 0 and 1.

        How the examples of one level are ordered is not known. The exact precision at a positive is lowest if all negatives of
        its level come before it, and highest if all of them come after the level's last positive.
        """
        hits, retrieved = ops.cumsum(self.positives, axis=1), ops.cumsum(self.examples, axis=1)
        before = hits - self.positives
        highest = ops.divide_no_nan(hits, retrieved - (self.examples - self.positives))
        lowest = ops.divide_no_nan(before + 1, retrieved - self.positives + 1)
        return self._mean(ops.where(self.positives > 0, highest - lowest, 0.0))

    def _mean(self, of_levels):
        """Averages `of_levels` [L, num_levels] over the positives of each label, and then over the labels that occur."""
        totals = ops.sum(self.positives, axis=1)
        of_labels = ops.divide_no_nan(ops.sum(self.positives * of_levels, axis=1), totals)
        return ops.divide_no_nan(ops.sum(of_labels), ops.sum(ops.cast(totals > 0, "float32")))

    def get_config(self):
        config = {"num_labels": self.num_labels, "num_levels": self.num_levels}
        return {**config, "limit": self.limit, "name": self.name}
