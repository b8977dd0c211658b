"""The section "Classes": each label's scores, which labels are taken for which others, and which occur together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mm_keras.report.confusion import co_occurrence, confusion_counts, most_confused, top_confusions
from mm_keras.report.evidence import Evidence
from mm_keras.report.measures import f1_interval, make_measures, value_of, wilson

MOST_DRAWN = 30  # labels in a matrix
_TOP, _EXAMPLES = 6, 3  # confusions that are listed, and examples shown of each
_MOST_CONFUSED = 2000  # labels that are looked at for confusions
_CURVES = 8  # labels whose thresholds are drawn
_THRESHOLDS = np.linspace(0.02, 0.98, 49)


def make_classes(evidence: Evidence) -> dict:
    """The section's content, as JSON values. The split must have labels."""
    labels = _most_wrong(evidence)
    names = [evidence.names[label] for label in labels]
    counts = confusion_counts(evidence.true[:, labels], evidence.predicted[:, labels])
    shown = most_confused(counts, MOST_DRAWN)
    errors = counts - np.diag(np.diag(counts))
    taken_for = {name: names[int(row.argmax())] for name, row in zip(names, errors, strict=True) if row.any()}
    content = {
        "labels": _rows(evidence, taken_for),
        "confusion": {"labels": [names[place] for place in shown], "counts": counts[np.ix_(shown, shown)].tolist()},
        "top_confusions": _top_confusions(evidence, counts, labels),
        "absent": int((~evidence.true.any(axis=0)).sum()),
    }
    if evidence.multi_label:
        frequent = np.argsort(-evidence.true.sum(axis=0), kind="stable")[:MOST_DRAWN]
        frequent = np.sort(frequent[evidence.true[:, frequent].any(axis=0)])
        content["co_occurrence"] = {
            "labels": [evidence.names[label] for label in frequent],
            "shares": co_occurrence(evidence.true[:, frequent]).tolist(),
        }
        content["thresholds"] = _threshold_curves(evidence, frequent)
    return content


def _most_wrong(evidence: Evidence) -> np.ndarray:
    """The labels that are looked at for confusions, int [n], in order: all, or of very many those with the most errors."""
    errors = (evidence.true != evidence.predicted).sum(axis=0)
    return np.sort(np.argsort(-errors, kind="stable")[:_MOST_CONFUSED])


def _rows(evidence: Evidence, taken_for: Mapping[str, str]) -> list[dict]:
    """A row for each label: support, scores with intervals, and what it is taken for most."""
    in_training = _training_counts(evidence)
    hits = (evidence.true & evidence.predicted).sum(axis=0)
    predicted, true = evidence.predicted.sum(axis=0), evidence.true.sum(axis=0)
    precisions = _average_precisions(evidence) if evidence.multi_label else {}
    rows = []
    for label, name in enumerate(evidence.names):
        hit, guesses, support = int(hits[label]), int(predicted[label]), int(true[label])
        row = {
            "label": name,
            "train": in_training.get(name),
            "support": support,
            "predicted": guesses,
            "precision": _with_interval(hit / guesses, wilson(hit, guesses)) if guesses else None,
            "recall": _with_interval(hit / support, wilson(hit, support)) if support else None,
            "f1": _with_interval(2 * hit / (guesses + support), f1_interval(hit, guesses, support)) if support else None,
            "taken_for": taken_for.get(name),
        }
        if evidence.multi_label:
            row["average_precision"] = precisions.get(label)
            row["threshold"] = float(evidence.loaded.thresholds[label]) if evidence.loaded.thresholds is not None else 0.5
        rows.append(row)
    return rows


def _with_interval(value: float, interval: tuple[float, float]) -> dict[str, float]:
    return {"value": value, "low": interval[0], "high": interval[1]}


def _training_counts(evidence: Evidence) -> dict[str, int]:
    if not evidence.train:
        return {}
    split = evidence.train.split
    return dict(zip(split.dataset.info.labels.names, split.label_counts, strict=True))


def _average_precisions(evidence: Evidence) -> dict[int, float]:
    values = {}
    for label in np.flatnonzero(evidence.true.any(axis=0)):
        column = slice(label, label + 1)
        measures = make_measures(evidence.probabilities[:, column], evidence.labels[:, column], True)
        values[int(label)] = value_of(measures["mAP"], len(evidence))
    return values


def _top_confusions(evidence: Evidence, counts: np.ndarray, labels: np.ndarray) -> list[dict]:
    confusions = []
    for row, column, count in top_confusions(counts, _TOP):
        true, predicted = labels[row], labels[column]
        is_confused = (
            evidence.true[:, true]
            & ~evidence.predicted[:, true]
            & evidence.predicted[:, predicted]
            & ~evidence.true[:, predicted]
        )
        rows = np.flatnonzero(is_confused)
        rows = rows[np.argsort(-evidence.probabilities[rows, predicted], kind="stable")][:_EXAMPLES]
        confusions.append(
            {
                "true": evidence.names[true],
                "predicted": evidence.names[predicted],
                "count": count,
                "examples": evidence.describe_all(rows),
            }
        )
    return confusions


def _threshold_curves(evidence: Evidence, labels: np.ndarray) -> list[dict]:
    """F1 at each threshold, of the most frequent labels."""
    frequent = labels[np.argsort(-evidence.true[:, labels].sum(axis=0), kind="stable")][:_CURVES]
    curves = []
    for label in frequent:
        true = evidence.true[:, label]
        predicted = evidence.probabilities[:, label, np.newaxis] > _THRESHOLDS
        hits = (predicted & true[:, np.newaxis]).sum(axis=0)
        f1 = 2 * hits / np.maximum(1, predicted.sum(axis=0) + true.sum())
        points = [{"threshold": float(t), "f1": float(value)} for t, value in zip(_THRESHOLDS, f1, strict=True)]
        tuned = evidence.loaded.thresholds
        curves.append(
            {"label": evidence.names[label], "points": points, "chosen": float(tuned[label]) if tuned is not None else 0.5}
        )
    return curves
