"""Per-label decision thresholds, tuned on a validation split and kept in the run folder as thresholds.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from mm_keras.features import FeatureSpec
from mm_keras.runs.encode_split import encode_split
from mm_keras.runs.run_folder import RunFolder
from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.checksums import check, read_json

_UNTUNED = 0.5


class Thresholds(NamedTuple):
    """The probabilities float64 [num_labels] above which labels are predicted, and the split they were tuned on."""

    values: np.ndarray
    split: str


def tune_thresholds(
    workdir: str | Path, dataset: str | None = None, split: str = "val", batch_size: int = 64, shared: bool = False
) -> np.ndarray:
    """Finds and keeps, for each label of a multi-label run, the threshold with the best F1 on a split.

    Args:
        workdir: the run folder; thresholds.json is written there, with probabilities by label name.
        dataset: the dataset or its folder; default: the one that the run was trained on.
        split: the split to tune on, which should not be the one that is reported on. All its embeddings and logits are held
            in memory.
        batch_size: examples in a batch; only the memory depends on it.
        shared: find one threshold for all labels, that with the best micro-F1. Rare labels have too few examples for one of
            their own.

    Returns:
        probabilities float64 [num_labels]; a label is predicted if its probability is above its own threshold. Labels that
        the split does not have get 0.5.

    Raises:
        ValueError: for a multi-class run.
    """
    run = RunFolder(workdir)
    model, features = run.load_model()
    _check_multi_label(run, features)
    (inputs,), labels, behind = encode_split(run, model, features, run.dataset(dataset).split(split), batch_size)
    logits = behind.predict(inputs, batch_size=1024, verbose=0)
    thresholds = shared_threshold(logits, labels) if shared else best_thresholds(logits, labels)
    save_thresholds(run, features, thresholds, split)
    return thresholds


def _check_multi_label(run: RunFolder, features: FeatureSpec) -> None:
    if not features.multi_label:
        raise ValueError(f"{run.path} is multi-class: its answer is the most probable label, without a threshold")


def save_thresholds(run: RunFolder, features: FeatureSpec, thresholds: np.ndarray, split: str) -> None:
    """Writes thresholds [num_labels] that were tuned on a split, by the names of the labels."""
    content = {"split": split, "thresholds": dict(zip(features.labels, thresholds.tolist(), strict=True))}
    write_text(run.thresholds, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def load_thresholds(run: RunFolder, features: FeatureSpec) -> Thresholds | None:
    """The thresholds of a run's labels, 0.5 for labels without one; None if no thresholds were tuned.

    Raises:
        DamagedFileError: if their file is not what was written, or is lost.
    """
    check(run.thresholds)
    if not run.thresholds.is_file():
        return None
    content = read_json(run.thresholds)
    return Thresholds(np.array([content["thresholds"].get(label, _UNTUNED) for label in features.labels]), content["split"])


def shared_threshold(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """One threshold for all labels: that with the best micro-F1, float64 [L]. The arguments are those of `best_thresholds`."""
    threshold = best_thresholds(logits.reshape(-1, 1), labels.reshape(-1, 1))
    return np.repeat(threshold, logits.shape[1])


def measure_thresholds(workdir: str | Path, dataset: str | None = None, split: str = "val") -> str:
    """Measures a multi-label run at shared thresholds from 0.1 to 0.9: a Markdown table of precision, recall and F1 (micro).

    Raises:
        ValueError: for a multi-class run.
    """
    run = RunFolder(workdir)
    model, features = run.load_model()
    _check_multi_label(run, features)
    (inputs,), labels, behind = encode_split(run, model, features, run.dataset(dataset).split(split))
    probabilities, true = expit(behind.predict(inputs, batch_size=1024, verbose=0)), labels > 0
    lines = ["| threshold | precision | recall | micro-F1 |", "| --: | --: | --: | --: |"]
    for tenths in range(1, 10):
        predicted = probabilities > tenths / 10
        hits, of_predicted, of_true = (int(count.sum()) for count in (predicted & true, predicted, true))
        scores = (hits / max(of_predicted, 1), hits / max(of_true, 1), 2 * hits / max(of_predicted + of_true, 1))
        lines.append(f"| {tenths / 10} | {' | '.join(f'{score:.3f}' for score in scores)} |")
    return "\n".join(lines)


def best_thresholds(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The threshold with the best F1 for each label, midway between two scores.

    Args:
        logits: float [N, L].
        labels: 0 or 1 [N, L].

    Returns:
        float64 [L]; 0.5 for labels without a positive example. If several thresholds are equally good, the highest one.
    """
    thresholds = np.full(logits.shape[1], _UNTUNED)
    for label in np.flatnonzero(labels.any(axis=0)):
        order = np.argsort(-logits[:, label], kind="stable")
        scores, hits = logits[order, label].astype("float64"), np.cumsum(labels[order, label])
        f1 = 2 * hits / (np.arange(1, len(scores) + 1) + hits[-1])
        below = np.append(scores[1:], scores[-1] - 1)
        best = np.argmax(np.where(scores > below, f1, 0))  # examples of one score are predicted all or none
        thresholds[label] = expit((scores[best] + below[best]) / 2)
    return thresholds
