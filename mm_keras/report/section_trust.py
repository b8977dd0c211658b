"""The section "Trust": whether probabilities come true, what is gained by answering less, and what is unlike the training."""

from __future__ import annotations

import numpy as np

from mm_keras.report.calibration import (
    calibration_error,
    claimed_and_true,
    histogram,
    reliability,
    reliability_curve,
    risk_coverage,
)
from mm_keras.report.evidence import Evidence
from mm_keras.report.measures import multi_hot
from mm_keras.report.neighbours import novelty
from mm_keras.report.subsets import subset_name

_COVERAGES = (0.5, 0.8, 0.9, 0.95)
_UNUSUAL = 99  # percentile of the training examples' own distances
_EXAMPLES = 6
_MOST_COMPARED = 10_000  # examples, the first ones: they are in random order


def make_trust(evidence: Evidence) -> dict:
    """The section's content, as JSON values; without labels only what needs none."""
    content: dict = {"novelty": _novelty(evidence)}
    if evidence.labels is None:
        return content | {"confidence": histogram(evidence.confidence, np.ones(len(evidence), bool), 0.0, 1.0)}
    curve = risk_coverage(evidence.confidence, evidence.right)
    return content | {
        "patterns": [_reliability(evidence, subset) for subset in evidence.subsets if subset],
        "risk_coverage": curve,
        "coverage_table": [_at_coverage(curve, share) for share in _COVERAGES if curve],
        "confidence": histogram(evidence.confidence, evidence.right, 0.0, 1.0),
    }


def _reliability(evidence: Evidence, subset: int) -> dict:
    true = multi_hot(evidence.labels[evidence.rows], len(evidence.names))
    claims = claimed_and_true(evidence.answers[subset], true, evidence.multi_label)
    bins = reliability(*claims)
    count = sum(entry["count"] for entry in bins)
    claimed = sum(entry["count"] * entry["claimed"] for entry in bins) / max(count, 1)
    came_true = sum(entry["count"] * entry["true"] for entry in bins) / max(count, 1)
    return {
        "inputs": subset_name(subset, evidence.modalities),
        "ece": calibration_error(bins),
        "claimed": claimed,
        "true": came_true,
        "curve": reliability_curve(*claims),
        "single": subset.bit_count() == 1,
    }


def _at_coverage(curve: list[dict], share: float) -> dict:
    return next((point for point in curve if point["coverage"] >= share - 1e-9), curve[-1]) | {"asked": share}


def _novelty(evidence: Evidence) -> dict | None:
    """How far the examples are from the training's; None without training examples."""
    if not evidence.train or len(evidence.train.examples) < 2:
        return None
    distances, train_distances = novelty(evidence.embeddings["fused"][:_MOST_COMPARED], evidence.train.embeddings["fused"])
    limit = float(np.percentile(train_distances, _UNUSUAL))
    far = np.flatnonzero(distances > limit)
    far = far[np.argsort(-distances[far], kind="stable")]
    top = max(float(np.max(distances, initial=0.0)), float(np.max(train_distances, initial=0.0)), 1e-6)
    all_distances = np.concatenate([distances, train_distances])
    is_of_split = np.repeat([True, False], [len(distances), len(train_distances)])
    content = {
        "limit": limit,
        "count": len(far),
        "share": len(far) / max(len(distances), 1),
        "histogram": histogram(all_distances, is_of_split, 0.0, top),
        "examples": [evidence.describe(int(row), distance=float(distances[row])) for row in far[:_EXAMPLES]],
        "compared": len(distances),
        "is_sample": evidence.train.is_sample or len(distances) < len(evidence),
    }
    if evidence.labels is not None and len(far):
        near = np.setdiff1d(np.arange(len(distances)), far)
        content["right_far"] = float(evidence.right[far].mean())
        content["right_near"] = float(evidence.right[near].mean()) if len(near) else None
    return content
