"""Metrics on logits: streaming ones to follow training with, exact ones for reports. Pure Keras and NumPy."""

from __future__ import annotations

import keras
import numpy as np


def make_metrics(multi_label: bool, num_labels: int) -> list[keras.metrics.Metric]:
    """Metrics of `fit`; all of them honour weights, so that filling (weight 0) does not count.

    The first is the one by which the best checkpoint is chosen (higher is better).
    """
    if multi_label:
        return [
            LogitsF1(average="micro", name="micro_f1"),
            keras.metrics.BinaryCrossentropy(from_logits=True, name="cross_entropy"),
        ]
    return [
        keras.metrics.SparseCategoricalAccuracy(name="top_1"),
        *([keras.metrics.SparseTopKCategoricalAccuracy(5, name="top_5")] if num_labels > 5 else []),
        keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy"),
    ]


@keras.saving.register_keras_serializable(package="mm_keras")
class LogitsF1(keras.metrics.F1Score):
    """F1 of multi-hot labels [B, L] and logits [B, L]; a label is predicted where its probability exceeds 0.5."""

    def __init__(self, average: str | None = "micro", threshold: float = 0.5, name: str = "f1", dtype=None):
        super().__init__(average=average, threshold=threshold, name=name, dtype=dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(y_true, keras.ops.sigmoid(y_pred), sample_weight)


def probabilities_of(logits: np.ndarray, multi_label: bool) -> np.ndarray:
    """Softmax (multi-class) or sigmoid (multi-label) of logits [N, L], in float64."""
    logits = logits.astype(np.float64)
    if multi_label:
        return 1 / (1 + np.exp(-logits))
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def mean_logits(answers: list[np.ndarray], multi_label: bool) -> np.ndarray:
    """Logits [N, L] of the mean of several answers' probabilities; those of a single answer as they are."""
    if len(answers) == 1:
        return answers[0]
    mean = np.mean([probabilities_of(logits, multi_label) for logits in answers], axis=0)
    return np.log(mean) - np.log1p(-mean) if multi_label else np.log(mean)


def evaluate_logits(logits: np.ndarray, labels: np.ndarray, multi_label: bool) -> dict[str, float]:
    """Exact metrics of all examples of a split at once.

    Args:
        logits: float [N, L].
        labels: int [N] (multi-class) or 0/1 [N, L] (multi-label).
        multi_label: which of the two.

    Returns:
        multi-class: top_1 and, with more than 5 labels, top_5: fractions. Multi-label: micro_f1 and macro_f1 at
        probability 0.5, mAP over the labels that occur. Without any positive label, F1 and mAP are 0.
    """
    if not multi_label:
        true = np.take_along_axis(logits, labels[:, np.newaxis], axis=1)
        # Labels that score higher, or as high with a smaller id, come first: constant logits must not count as right.
        smaller_id = np.arange(logits.shape[1]) < labels[:, np.newaxis]
        rank = ((logits > true) | ((logits == true) & smaller_id)).sum(axis=1)
        metrics = {"top_1": float((rank < 1).mean())}
        return metrics | ({"top_5": float((rank < 5).mean())} if logits.shape[1] > 5 else {})
    from sklearn.metrics import average_precision_score, f1_score

    predicted, occurring = logits > 0, labels.any(axis=0)
    return {
        "micro_f1": float(f1_score(labels, predicted, average="micro", zero_division=0)),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
        "mAP": float(average_precision_score(labels[:, occurring], logits[:, occurring])) if occurring.any() else 0.0,
    }
