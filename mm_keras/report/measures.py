"""How good answers are, with intervals: measures that take any weighting of the examples, the bootstrap, Wilson's interval.

A measure is a function `counts float32 [B, N] -> float64 [B]`: `counts` says how often each of N examples stands in each of B
samples that are drawn with replacement. With `counts` of ones, a measure gives its value on the examples themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

Measure = Callable[[np.ndarray], np.ndarray]

NUM_BINS = 15  # of the calibration error, as in `objectives.streaming_metrics`
_MOST_DRAWS, _FEWEST_DRAWS = 1000, 200  # bootstrap samples
_MOST_EXAMPLES = 4000  # that bootstrap samples are drawn from
_MOST_NUMBERS = 20_000_000  # draws x examples x labels
_MOST_LABELS = 300  # labels whose average precision is computed on each sample
_CHUNK = 20_000_000  # numbers of `counts` at a time
_Z = 1.959964  # standard deviations to either side of an interval of 95 %


def main_measure(multi_label: bool) -> str:
    """The measure that everything is compared by."""
    return "mAP" if multi_label else "accuracy"


def predicted_labels(probabilities: np.ndarray, multi_label: bool, thresholds: np.ndarray | None = None) -> np.ndarray:
    """The predicted labels, bool [N, L]: the most probable one, or (multi-label) all above their thresholds, by default 0.5."""
    if multi_label:
        return probabilities > (0.5 if thresholds is None else thresholds)
    return np.arange(probabilities.shape[1]) == probabilities.argmax(axis=1)[:, np.newaxis]


def multi_hot(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Labels int [N] or 0/1 [N, L] -> bool [N, L]; an id of -1 means that an example has none."""
    return labels > 0.5 if labels.ndim == 2 else np.arange(num_labels) == labels[:, np.newaxis]


def is_right(
    probabilities: np.ndarray, labels: np.ndarray, multi_label: bool, thresholds: np.ndarray | None = None
) -> np.ndarray:
    """Which examples are answered right, bool [N].

    With several labels, an answer is right if at least half of the labels that are predicted or true are both.

    Args:
        probabilities: float [N, L].
        labels: int [N], or 0/1 [N, L].
        multi_label: whether an example may have any number of labels.
        thresholds: float [L], of multi-label data.
    """
    if not multi_label:
        return probabilities.argmax(axis=1) == labels
    predicted, true = predicted_labels(probabilities, True, thresholds), labels > 0.5
    return 2 * (predicted & true).sum(axis=1) >= (predicted | true).sum(axis=1)


def make_measures(
    probabilities: np.ndarray,
    labels: np.ndarray,
    multi_label: bool,
    thresholds: np.ndarray | None = None,
    most_labels: int | None = None,
) -> dict[str, Measure]:
    """The measures of some answers.

    Args:
        probabilities: float [N, L].
        labels: int [N], or 0/1 [N, L] (multi-label).
        multi_label: whether an example may have any number of labels.
        thresholds: float [L], of multi-label data; None: 0.5.
        most_labels: mAP is computed on at most so many labels, which stand for all; None: on all.

    Returns:
        "accuracy", "top_5" (of more than 5 labels), "macro_f1" and "ece"; of multi-label data "mAP", "micro_f1", "macro_f1" and
        "ece". All are within [0, 1], and defined as in `objectives.metrics.evaluate_logits`.
    """
    true = multi_hot(labels, probabilities.shape[1])
    predicted = predicted_labels(probabilities, multi_label, thresholds)
    if multi_label:
        measures = {"mAP": _mean_average_precision(probabilities, true, most_labels), "micro_f1": _micro_f1(predicted, true)}
    else:
        measures = {"accuracy": _mean(probabilities.argmax(axis=1) == labels)}
        if probabilities.shape[1] > 5:
            of_true = np.take_along_axis(probabilities, labels[:, np.newaxis], axis=1)
            smaller_id = np.arange(probabilities.shape[1]) < labels[:, np.newaxis]
            rank = ((probabilities > of_true) | ((probabilities == of_true) & smaller_id)).sum(axis=1)
            measures["top_5"] = _mean(rank < 5)
    return measures | {
        "macro_f1": _macro_f1(predicted, true, multi_label),
        "ece": _calibration_error(probabilities, true, multi_label),
    }


def value_of(measure: Measure, num_examples: int) -> float:
    """The value of a measure on all examples, each once."""
    return float(measure(np.ones((1, num_examples), np.float32))[0])


def measure_all(
    probabilities: np.ndarray,
    labels: np.ndarray,
    multi_label: bool,
    thresholds: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """The values of measures, each with its bootstrap interval of 95 %.

    Args:
        probabilities, labels, multi_label, thresholds: see `make_measures`.
        names: which measures; None: all of them.
        seed: of the samples.

    Returns:
        {name: {"value", "low", "high"}}. The interval is 1.96 standard deviations of the samples to either side, on the scale
        of log-odds, so that it stays within 0–1 and is as skewed as it has to be. Of more than 4,000 examples, samples are
        drawn from 4,000 of them, and the deviation is made smaller by the root of the ratio. Of more than 300 labels, the
        deviation of mAP is that of 300 of them, which is rather too large.
    """
    measures = make_measures(probabilities, labels, multi_label, thresholds)
    names = list(measures if names is None else names)
    sample = _sample(len(labels), seed)
    sample_measures = make_measures(probabilities[sample], labels[sample], multi_label, thresholds, _MOST_LABELS)
    draws = _bootstrap({name: sample_measures[name] for name in names}, len(sample), probabilities.shape[1], seed)
    results = {}
    for name in names:
        value = value_of(measures[name], len(labels))
        deviation = float(draws[name].std()) * math.sqrt(len(sample) / len(labels))
        low, high = _on_log_odds(value, deviation, len(labels))
        results[name] = {"value": value, "low": low, "high": high}
    return results


def compare_answers(
    first: np.ndarray,
    second: np.ndarray,
    labels: np.ndarray,
    multi_label: bool,
    thresholds: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
    seed: int = 0,
) -> dict[str, float]:
    """How much better the first answers are than the second ones to the same examples, by the paired bootstrap.

    Args:
        first, second: probabilities float [N, L].
        labels: int [N], or 0/1 [N, L].
        multi_label: whether an example may have any number of labels.
        thresholds: those of the first and of the second answers.
        seed: of the samples.

    Returns:
        {"value": the difference of the main measure, "low", "high": its interval of 95 %, "chance": twice the share of the
        samples in which the difference is 0 or has the other sign, at most 1}; a difference is more than chance where the
        interval does not hold 0.
    """
    name, sample = main_measure(multi_label), _sample(len(labels), seed)
    sides = [
        {
            part: make_measures(answers[rows], labels[rows], multi_label, threshold, most_labels)[name]
            for part, rows, most_labels in (("whole", slice(None), None), ("sampled", sample, _MOST_LABELS))
        }
        for answers, threshold in zip((first, second), thresholds, strict=True)
    ]

    def difference(part: str) -> Measure:
        return lambda counts: sides[0][part](counts) - sides[1][part](counts)

    draws = _bootstrap({name: difference("sampled")}, len(sample), first.shape[1], seed)[name]
    value = value_of(difference("whole"), len(labels))
    deviations = np.percentile(draws, [2.5, 97.5]) - value_of(difference("sampled"), len(sample))
    low, high = value + deviations * math.sqrt(len(sample) / len(labels))
    chance = min(1.0, 2 * min(float((draws <= 0).mean()), float((draws >= 0).mean())))
    return {"value": value, "low": float(low), "high": float(high), "chance": chance}


def wilson(hits: float, of: float) -> tuple[float, float]:
    """Wilson's interval of 95 % for the share hits / of, also where that is 0 or 1; (0, 1) where `of` is 0.

    Reference: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if not of:
        return 0.0, 1.0
    share, z2 = hits / of, _Z**2
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def f1_interval(hits: float, predicted: float, true: float) -> tuple[float, float]:
    """An interval of 95 % of F1: it rises with hits / (predicted or true), which is a share and has Wilson's interval."""
    low, high = wilson(hits, predicted + true - hits)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def _sample(num_examples: int, seed: int) -> np.ndarray:
    """The rows of the examples that bootstrap samples are drawn from, int [n], in their order."""
    if num_examples <= _MOST_EXAMPLES:
        return np.arange(num_examples)
    return np.sort(np.random.default_rng(seed).choice(num_examples, _MOST_EXAMPLES, replace=False))


def _bootstrap(measures: Mapping[str, Measure], num_examples: int, num_labels: int, seed: int) -> dict[str, np.ndarray]:
    """The values of measures on samples of the examples: name -> float64 [draws]."""
    draws = int(np.clip(_MOST_NUMBERS // (num_examples * num_labels), _FEWEST_DRAWS, _MOST_DRAWS))
    values: dict[str, list] = {name: [] for name in measures}
    for counts in _iter_counts(num_examples, draws, seed):
        for name, measure in measures.items():
            values[name].append(measure(counts))
    return {name: np.concatenate(parts) for name, parts in values.items()}


def _iter_counts(num_examples: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    while draws > 0:
        size = min(draws, max(1, _CHUNK // num_examples))
        drawn = rng.integers(num_examples, size=(size, num_examples)) + np.arange(size)[:, np.newaxis] * num_examples
        yield np.bincount(drawn.ravel(), minlength=size * num_examples).reshape(size, -1).astype(np.float32)
        draws -= size


def _on_log_odds(value: float, deviation: float, num_examples: int) -> tuple[float, float]:
    """An interval of 95 % around a value, on the scale of log-odds; Wilson's where it is 0 or 1, or all samples agree."""
    if not 0 < value < 1 or deviation == 0:
        return wilson(value * num_examples, num_examples)
    odds, half = value / (1 - value), math.exp(min(_Z * deviation / (value * (1 - value)), 50))
    return odds / half / (1 + odds / half), odds * half / (1 + odds * half)


def _mean(hits: np.ndarray) -> Measure:
    values = hits.astype(np.float32)
    return lambda counts: (counts @ values / counts.sum(axis=1)).astype(np.float64)


def _micro_f1(predicted: np.ndarray, true: np.ndarray) -> Measure:
    hits, totals = (predicted & true).sum(axis=1), predicted.sum(axis=1) + true.sum(axis=1)
    return lambda counts: _ratio(2 * (counts @ hits.astype(np.float32)), counts @ totals.astype(np.float32))


def _macro_f1(predicted: np.ndarray, true: np.ndarray, multi_label: bool) -> Measure:
    hits, totals = (predicted & true).astype(np.float32), predicted.astype(np.float32) + true

    def measure(counts: np.ndarray) -> np.ndarray:
        sample_totals = counts @ totals
        scores = _ratio(2 * (counts @ hits), sample_totals)
        return scores.sum(axis=1) / (scores.shape[1] if multi_label else np.maximum(1, (sample_totals > 0).sum(axis=1)))

    return measure


def _mean_average_precision(probabilities: np.ndarray, true: np.ndarray, most_labels: int | None) -> Measure:
    """The mean of the average precision over the labels that occur in a sample. Examples of equal scores share one rank."""
    orders, occurring = [], np.flatnonzero(true.any(axis=0))
    if most_labels and len(occurring) > most_labels:
        occurring = occurring[np.linspace(0, len(occurring) - 1, most_labels).astype(int)]
    for label in occurring:
        order = np.argsort(-probabilities[:, label], kind="stable")
        ranked = probabilities[order, label]
        last_of_equals = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        orders.append((order, true[order, label].astype(np.float32), last_of_equals))

    def measure(counts: np.ndarray) -> np.ndarray:
        total, seen = np.zeros(len(counts)), np.zeros(len(counts))
        for order, positive, last in orders:
            weights = counts[:, order]
            retrieved = np.cumsum(weights, axis=1)[:, last]
            hits = np.cumsum(weights * positive, axis=1)[:, last]
            precision = _ratio(hits, retrieved)
            total += _ratio((np.diff(hits, axis=1, prepend=0) * precision).sum(axis=1), hits[:, -1])
            seen += hits[:, -1] > 0
        return _ratio(total, seen)

    return measure


def _calibration_error(probabilities: np.ndarray, true: np.ndarray, multi_label: bool) -> Measure:
    if not multi_label:
        best = probabilities.argmax(axis=1)[:, np.newaxis]
        probabilities, true = (np.take_along_axis(array, best, axis=1) for array in (probabilities, true))
    bins = np.clip(np.ceil(probabilities * NUM_BINS), 1, NUM_BINS).astype(int) - 1
    gaps = np.zeros((len(bins), NUM_BINS), np.float32)  # of each example, by bin: what is claimed less what came true
    rows = np.repeat(np.arange(len(bins)), bins.shape[1])
    np.add.at(gaps, (rows, bins.ravel()), (probabilities - true).ravel().astype(np.float32))
    num_claims = probabilities.shape[1]
    return lambda counts: np.abs(counts @ gaps).sum(axis=1).astype(np.float64) / (counts.sum(axis=1) * num_claims)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=whole > 0)
