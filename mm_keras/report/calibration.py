"""Whether probabilities can be believed: reliability, risk against coverage, and histograms of scores."""

from __future__ import annotations

import numpy as np

from mm_keras.report.measures import NUM_BINS

_POINTS = 101  # of a risk-coverage curve, at most
_SCORE_BINS = 20
_CLAIMS_A_POINT = 20  # of the curve that is drawn, at least


def claimed_and_true(probabilities: np.ndarray, true: np.ndarray, multi_label: bool) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities that are claimed, and whether they came true.

    Args:
        probabilities: float [N, L].
        true: bool [N, L].
        multi_label: True: each label of each example is a claim. False: the most probable label of each example.

    Returns:
        (float [claims], bool [claims]).
    """
    if multi_label:
        return probabilities.ravel(), true.ravel()
    best = probabilities.argmax(axis=1)
    rows = np.arange(len(best))
    return probabilities[rows, best], true[rows, best]


def reliability(claimed: np.ndarray, came_true: np.ndarray, num_bins: int = NUM_BINS) -> list[dict[str, float]]:
    """How often claims of about the same probability come true.

    Args:
        claimed: float [C], within [0, 1].
        came_true: bool [C].
        num_bins: number of bins of equal width.

    Returns:
        for each bin that is not empty {"claimed": the mean probability, "true": the share that came true, "count"}.

    Reference: Guo et al., "On Calibration of Modern Neural Networks", section 2.
    """
    bins = np.clip(np.ceil(claimed * num_bins), 1, num_bins).astype(int) - 1
    counts = np.bincount(bins, minlength=num_bins)
    claims = np.bincount(bins, claimed, num_bins)
    hits = np.bincount(bins, came_true, num_bins)
    return [
        {"claimed": claims[place] / counts[place], "true": hits[place] / counts[place], "count": int(counts[place])}
        for place in np.flatnonzero(counts)
    ]


def reliability_curve(claimed: np.ndarray, came_true: np.ndarray) -> list[dict[str, float]]:
    """Reliability for drawing: bins of about equally many claims, at least 20 of them, so that a point is more than chance."""
    number = int(np.clip(len(claimed) // _CLAIMS_A_POINT, 1, NUM_BINS))
    parts = np.array_split(np.argsort(claimed, kind="stable"), number)
    return [
        {"claimed": float(claimed[part].mean()), "true": float(came_true[part].mean()), "count": len(part)}
        for part in parts
        if len(part)
    ]


def calibration_error(bins: list[dict[str, float]]) -> float:
    """The expected calibration error of what `reliability` gives; 0 without claims."""
    total = sum(entry["count"] for entry in bins)
    return sum(entry["count"] * abs(entry["claimed"] - entry["true"]) for entry in bins) / max(total, 1)


def risk_coverage(confidence: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """How often answers are wrong if only the surest are given.

    Args:
        confidence: float [N].
        right: bool [N].

    Returns:
        [{"coverage": the share of examples that are answered, "risk": the share of these answers that are wrong, "confidence":
        that of the least sure of them}], with rising coverage.

    Reference: Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", section 2.
    """
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(~right[order])
    ends = np.unique(np.linspace(1, len(order), min(_POINTS, len(order))).round().astype(int)) if len(order) else []
    return [
        {"coverage": end / len(order), "risk": wrong[end - 1] / end, "confidence": float(confidence[order[end - 1]])}
        for end in ends
    ]


def histogram(values: np.ndarray, groups: np.ndarray, low: float, high: float) -> dict[str, list]:
    """Two histograms on the same bins: {"edges": [21], "yes": counts [20] where `groups` is True, "no": the others}."""
    edges = np.linspace(low, high, _SCORE_BINS + 1)
    return {
        "edges": edges.tolist(),
        "yes": np.histogram(values[groups], edges)[0].tolist(),
        "no": np.histogram(values[~groups], edges)[0].tolist(),
    }
