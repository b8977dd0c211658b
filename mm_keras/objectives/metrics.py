"""Metrics on logits: which ones to follow a training with, and the exact ones for reports. Pure Keras and NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
from scipy.special import expit, logit, softmax

from mm_keras.configurable import configurable
from mm_keras.objectives.binned_precision import BinnedMeanAveragePrecision
from mm_keras.objectives.streaming_metrics import (
    AVERAGES,
    SCORES,
    CalibrationError,
    ClassCrossEntropy,
    ImageDScore,
    LabelScore,
    Top1,
    TopK,
)

_CHUNK = 4_000_000  # logits that are looked at together
_LOWER_IS_BETTER = ("cross_entropy", "ece")


@configurable
def make_metrics(multi_label: bool, num_labels: int, names: Sequence[str] | None = None) -> list[keras.metrics.Metric]:
    """Metrics of `fit`; all of them honour weights, so that filling (weight 0) does not count.

    Args:
        multi_label: multi-hot labels [B, L] instead of ids [B].
        num_labels: L.
        names: the first is the one by which the best epoch is chosen, higher is better. Default: micro_f1 and cross_entropy;
            multi-class top_1, top_5 (with more than 5 labels) and cross_entropy. There are also <average>_<score> of
            micro, macro, weighted, samples and precision, recall, f1; and ece. Multi-label: imaged_<score> (ImageD's rule),
            and binned_mAP (the exact mAP needs all scores at once). Multi-class: top_<k> of any k below L.

    Raises:
        ValueError: for an unknown name, none at all, or a first one of which less is better.
    """
    if names is None:
        first = ["micro_f1"] if multi_label else ["top_1", *(["top_5"] if num_labels > 5 else [])]
        names = [*first, "cross_entropy"]
    known = _makers(multi_label, num_labels)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        shown = [name for name in known if not name.startswith("top_") or int(name[4:]) <= 10]
        kind = "multi-label" if multi_label else "multi-class"
        raise ValueError(f"metrics of {kind} data are {', '.join(sorted(shown))}. Received: {unknown or names}")
    if names[0] in _LOWER_IS_BETTER:
        raise ValueError(f"the first metric chooses the best epoch, the higher the better. Received: {names[0]!r}")
    return [known[name]() for name in names]


def _makers(multi_label: bool, num_labels: int) -> dict[str, Callable[[], keras.metrics.Metric]]:
    scores = [f"{average}_{score}" for average in AVERAGES for score in SCORES]
    makers = {score: lambda score=score: LabelScore(score, num_labels, multi_label) for score in scores}
    makers["ece"] = lambda: CalibrationError(multi_label)
    if multi_label:
        makers |= {f"imaged_{score}": lambda score=score: ImageDScore(score, num_labels) for score in SCORES}
        makers["binned_mAP"] = lambda: BinnedMeanAveragePrecision(num_labels)
        makers["cross_entropy"] = lambda: keras.metrics.BinaryCrossentropy(from_logits=True, name="cross_entropy")
        return makers
    makers["top_1"] = lambda: Top1(name="top_1")
    for k in range(2, num_labels):
        makers[f"top_{k}"] = lambda k=k: TopK(k, name=f"top_{k}")
    makers["cross_entropy"] = lambda: ClassCrossEntropy(from_logits=True, name="cross_entropy")
    return makers


def probabilities_of(logits: np.ndarray, multi_label: bool) -> np.ndarray:
    """Softmax (multi-class) or sigmoid (multi-label) of logits [N, L], in float64."""
    logits = logits.astype(np.float64)
    return expit(logits) if multi_label else softmax(logits, axis=1)


def mean_logits(answers: list[np.ndarray], multi_label: bool) -> np.ndarray:
    """Logits [N, L] of the mean of several answers' probabilities; those of a single answer as they are."""
    if len(answers) == 1:
        return answers[0]
    mean = np.mean([probabilities_of(logits, multi_label) for logits in answers], axis=0)
    return logit(mean) if multi_label else np.log(mean)


def evaluate_logits(
    logits: np.ndarray, labels: np.ndarray, multi_label: bool, thresholds: np.ndarray | None = None
) -> dict[str, float]:
    """Metrics of all examples of a split at once.

    Args:
        logits: float [N, L].
        labels: int [N] (multi-class) or 0/1 [N, L] (multi-label).
        multi_label: which of the two.
        thresholds: probabilities [L] above which a label is predicted, tuned on another split; multi-label alone.

    Returns:
        multi-class: top_1 and, with more than 5 labels, top_5: fractions; then precision, recall and f1 as macro and weighted
        averages (the micro average is top_1); ece. Multi-label: micro_f1 and macro_f1 at probability 0.5, mAP over the labels
        that occur; then all averages at 0.5, imaged_<score> (ImageD's rule, micro averages), tuned_<average>_<score> (with
        `thresholds`), ece. Without any positive label, F1 and mAP are 0. See `streaming_metrics` for their definitions.

    Raises:
        ValueError: if a logit is not a number.
    """
    if np.isnan(logits).any():
        raise ValueError(f"the model answers {np.isnan(logits).any(axis=1).sum():,} of {len(logits):,} examples with no number")
    num_labels = logits.shape[1]
    scores = LabelScore("micro_f1", num_labels, multi_label)
    calibration = CalibrationError(multi_label)
    if not multi_label:
        _update([scores, calibration], logits, labels)
        found = {name: float(value) for name, value in scores.all_results().items()}
        found = {name: value for name, value in found.items() if name.startswith(("macro_", "weighted_"))}
        return _accuracies(logits, labels) | found | {"ece": float(calibration.result())}
    imaged = ImageDScore("f1", num_labels)
    tuned = [LabelScore("micro_f1", num_labels, True, thresholds)] if thresholds is not None else []
    _update([scores, imaged, *tuned, calibration], logits, labels)
    found = {name: float(value) for name, value in scores.all_results().items()}
    of_rule = {name: float(value) for name, value in imaged.all_results().items()}
    found |= {f"imaged_{score}": of_rule[f"micro_{score}"] for score in SCORES}
    found |= {f"tuned_{name}": float(value) for metric in tuned for name, value in metric.all_results().items()}
    first = {name: found[name] for name in ("micro_f1", "macro_f1")}
    return first | {"mAP": _mean_average_precision(logits, labels)} | found | {"ece": float(calibration.result())}


def _update(metrics: list[keras.metrics.Metric], logits: np.ndarray, labels: np.ndarray) -> None:
    rows = max(1, _CHUNK // logits.shape[1])
    for start in range(0, len(logits), rows):
        for metric in metrics:
            metric.update_state(labels[start : start + rows], logits[start : start + rows])


def _accuracies(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    true = np.take_along_axis(logits, labels[:, np.newaxis], axis=1)
    # Labels that score higher, or as high with a smaller id, come first: constant logits must not count as right.
    smaller_id = np.arange(logits.shape[1]) < labels[:, np.newaxis]
    rank = ((logits > true) | ((logits == true) & smaller_id)).sum(axis=1)
    return {f"top_{k}": float((rank < k).mean()) for k in (1, 5) if k == 1 or logits.shape[1] > 5}


def _mean_average_precision(logits: np.ndarray, labels: np.ndarray) -> float:
    occurring = np.flatnonzero(labels.any(axis=0))
    of_labels = [_average_precision(logits[:, label], labels[:, label]) for label in occurring]
    return float(np.mean(of_labels)) if of_labels else 0.0


def _average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """What scikit-learn's gives in three times the time, which matters with 10,000 labels. Equal scores come together."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_equals = np.append(ranked[1:] != ranked[:-1], True)
    hits = np.cumsum(labels[order], dtype="float64")[last_of_equals]
    found = np.flatnonzero(last_of_equals) + 1
    return (np.diff(hits, prepend=0) * hits / found).sum() / hits[-1]
