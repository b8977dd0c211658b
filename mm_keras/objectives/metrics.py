"""Metrics on logits: those that follow a training, and the exact ones of a whole split. Pure Keras, NumPy and SciPy."""

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

_CHUNK = 4_000_000  # logits for which the metrics are updated at once
_LOWER_IS_BETTER = ("cross_entropy", "ece")


@configurable
def make_metrics(multi_label: bool, num_labels: int, names: Sequence[str] | None = None) -> list[keras.metrics.Metric]:
    """Makes the metrics of `fit`. They take example weights, so that the empty examples that fill a batch do not count.

    Args:
        multi_label: whether labels are multi-hot [B, L] rather than ids [B].
        num_labels: number of labels, L.
        names: the first metric chooses the best epoch, so higher must be better. By default they are micro_f1 and
            cross_entropy for multi-label data; top_1, top_5 (with more than 5 labels) and cross_entropy for multi-class data.
            All data has cross_entropy, ece, and <average>_<score> with an average of micro, macro, weighted or samples and a
            score of precision, recall or f1. Multi-label data also has imaged_<score>, which follows ImageD's rule, and
            binned_mAP, since the exact mAP needs all scores at once. Multi-class data also has top_<k> for k below L.

    Raises:
        ValueError: for an unknown name, for no name at all, or if lower is better for the first one.
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
    """Logits [N, L] -> probabilities float64 [N, L]: softmax (multi-class) or sigmoid (multi-label)."""
    logits = logits.astype(np.float64)
    return expit(logits) if multi_label else softmax(logits, axis=1)


def mean_logits(answers: list[np.ndarray], multi_label: bool) -> np.ndarray:
    """Averages the probabilities of several arrays of logits [N, L], and returns the logits [N, L] of the mean.

    The logits of a single array are returned unchanged.
    """
    if len(answers) == 1:
        return answers[0]
    mean = np.mean([probabilities_of(logits, multi_label) for logits in answers], axis=0)
    return logit(mean) if multi_label else np.log(mean)


def evaluate_logits(
    logits: np.ndarray, labels: np.ndarray, multi_label: bool, thresholds: np.ndarray | None = None
) -> dict[str, float]:
    """Computes the metrics of all examples of a split at once.

    Args:
        logits: float [N, L].
        labels: int [N] (multi-class) or 0/1 [N, L] (multi-label).
        multi_label: whether the data is multi-label rather than multi-class.
        thresholds: probabilities [L] above which a label is predicted, tuned on another split. Multi-label only.

    Returns:
        Values within [0, 1] by name; `streaming_metrics` defines them. For multi-class data: top_1, top_5 (with more than 5
        labels), macro_<score> and weighted_<score> for precision, recall and f1 (the micro average equals top_1), and ece. For
        multi-label data: <average>_<score> for all averages, where labels with a probability above 0.5 are predicted; mAP,
        over the labels that occur; imaged_<score>, ImageD's rule with micro averages, and imaged_example_<score>, the rule
        counted by example, as in the paper; tuned_<average>_<score>, if `thresholds` are given; and ece. F1 and mAP are 0 if no
        label is positive.

    Raises:
        ValueError: if a logit is NaN.
    """
    if np.isnan(logits).any():
        raise ValueError(f"the model answers {np.isnan(logits).any(axis=1).sum():,} of {len(logits):,} examples with no number")
    num_labels = logits.shape[1]
    scores = LabelScore("micro_f1", num_labels, multi_label)
    calibration = CalibrationError(multi_label)
    if not multi_label:
        _update([scores, calibration], logits, labels)
        averages = {
            name: float(value) for name, value in scores.all_results().items() if name.startswith(("macro_", "weighted_"))
        }
        return _accuracies(logits, labels) | averages | {"ece": float(calibration.result())}
    imaged = ImageDScore("f1", num_labels)
    tuned = [LabelScore("micro_f1", num_labels, True, thresholds)] if thresholds is not None else []
    _update([scores, imaged, *tuned, calibration], logits, labels)
    results = {name: float(value) for name, value in scores.all_results().items()}
    imaged_results = {name: float(value) for name, value in imaged.all_results().items()}
    results |= {f"imaged_{score}": imaged_results[f"micro_{score}"] for score in SCORES}
    results |= _imaged_by_example(imaged, logits, labels)
    results |= {f"tuned_{name}": float(value) for metric in tuned for name, value in metric.all_results().items()}
    first = {name: results[name] for name in ("micro_f1", "macro_f1")}
    return first | {"mAP": _mean_average_precision(logits, labels)} | results | {"ece": float(calibration.result())}


def _imaged_by_example(rule: ImageDScore, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1 as ImageD counts them: by example.

    An example counts as true positive if its rule predicts labels and all of them are true, as false positive if one of them is
    not, and as false negative if a true label has a probability below 0.3, whether it is among the four best or not. An example
    may be a true positive and a false negative; one for which nothing is predicted is neither true nor false positive.

    Reference: the ImageD paper, section 5; its scores of 71.11, 74.2 and 72.62 % are these.
    """
    true_positives = false_positives = false_negatives = 0
    rows = max(1, _CHUNK // logits.shape[1])
    for start in range(0, len(logits), rows):
        scores, true = logits[start : start + rows].astype("float32"), labels[start : start + rows] > 0
        predicted = keras.ops.convert_to_numpy(rule.decide(scores)) > 0
        wrong = (predicted & ~true).any(axis=1)
        true_positives += int((predicted.any(axis=1) & ~wrong).sum())
        false_positives += int(wrong.sum())
        false_negatives += int((true & (scores < logit(0.3))).any(axis=1).sum())
    precision = true_positives / max(true_positives + false_positives, 1)
    recall = true_positives / max(true_positives + false_negatives, 1)
    f1 = 2 * precision * recall / (precision + recall) if true_positives else 0.0
    return {"imaged_example_precision": precision, "imaged_example_recall": recall, "imaged_example_f1": f1}


def _update(metrics: list[keras.metrics.Metric], logits: np.ndarray, labels: np.ndarray) -> None:
    rows = max(1, _CHUNK // logits.shape[1])
    for start in range(0, len(logits), rows):
        for metric in metrics:
            metric.update_state(labels[start : start + rows], logits[start : start + rows])


def _accuracies(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    true = np.take_along_axis(logits, labels[:, np.newaxis], axis=1)
    # Of equal scores the smaller id ranks first, so that constant logits do not count as right answers.
    smaller_id = np.arange(logits.shape[1]) < labels[:, np.newaxis]
    rank = ((logits > true) | ((logits == true) & smaller_id)).sum(axis=1)
    return {f"top_{k}": float((rank < k).mean()) for k in (1, 5) if k == 1 or logits.shape[1] > 5}


def _mean_average_precision(logits: np.ndarray, labels: np.ndarray) -> float:
    occurring = np.flatnonzero(labels.any(axis=0))
    of_labels = [_average_precision(logits[:, label], labels[:, label]) for label in occurring]
    return float(np.mean(of_labels)) if of_labels else 0.0


def _average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average precision of one label, from scores [N] and labels 0/1 [N]. Examples of equal scores share one rank.

    The result is that of scikit-learn, which takes three times as long; with 10,000 labels that matters.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_equals = np.append(ranked[1:] != ranked[:-1], True)
    hits = np.cumsum(labels[order], dtype="float64")[last_of_equals]
    retrieved = np.flatnonzero(last_of_equals) + 1
    return (np.diff(hits, prepend=0) * hits / retrieved).sum() / hits[-1]
