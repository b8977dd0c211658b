"""Writes what a run answers to each example of a split, by the inputs shown, beside the truth: for people to look at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import scipy.special

from mm_keras.data.record_index import read_index
from mm_keras.features import FeatureSpec
from mm_keras.runs.predictions_file import write_rows
from tfrecords_tools.dataset.folder import Split

_PART = 512


def write_answers(
    output: Path,
    split: Split,
    features: FeatureSpec,
    logits: Mapping[str, np.ndarray],
    thresholds: np.ndarray | None = None,
) -> None:
    """Writes a row for each example: `id`, `truth`, `answer`, `probabilities`, and the latter two for each set of inputs shown.

    `answer` and `probabilities` are those with all inputs, the last of `logits`; those with "title" alone are called
    `answer: title` and `probabilities: title`. Truth and answers of multi-label runs are lists. Probabilities stand in the
    order of the labels, which Parquet has as metadata.

    Args:
        output: the file to write: .parquet, .csv or .jsonl.
        split: the split, whose labelled examples were answered.
        features: of the run.
        logits: float [N, L] by the name of what was shown, all inputs last.
        thresholds: float [L], above which a label of a multi-label run is predicted; None: 0.5.
    """
    import pyarrow as pa

    index, _ = read_index(split, ["id", "labels", "label/ids"])
    kind = pa.list_(pa.string()) if features.multi_label else pa.string()
    *subsets, everything = logits
    columns = {"id": pa.string(), "truth": kind}
    names = {everything: ""} | {name: f": {name}" for name in subsets}
    for suffix in names.values():
        columns |= {f"answer{suffix}": kind, f"probabilities{suffix}": pa.list_(pa.float32())}
    schema = pa.schema(columns, {"labels": json.dumps(features.labels)})

    def parts() -> Iterator[list[dict]]:
        for start in range(0, len(index), _PART):
            part = slice(start, start + _PART)
            rows = index.slice(start, _PART).select(["id", "labels"]).to_pylist()
            truths = [row["labels"] if features.multi_label else row["labels"][0] for row in rows]
            answer_rows = [{"id": row["id"], "truth": truth} for row, truth in zip(rows, truths, strict=True)]
            for name, suffix in names.items():
                probabilities = _probabilities(logits[name][part], features.multi_label)
                for row, values in zip(answer_rows, probabilities, strict=True):
                    row[f"answer{suffix}"] = _answer(values, features, thresholds)
                    row[f"probabilities{suffix}"] = [round(value, 6) for value in values.tolist()]
            yield answer_rows

    write_rows(output, parts(), schema)


def _probabilities(logits: np.ndarray, multi_label: bool) -> np.ndarray:
    return scipy.special.expit(logits) if multi_label else scipy.special.softmax(logits, axis=1)


def _answer(probabilities: np.ndarray, features: FeatureSpec, thresholds: np.ndarray | None) -> str | list[str]:
    if not features.multi_label:
        return features.labels[int(probabilities.argmax())]
    above = probabilities > (0.5 if thresholds is None else thresholds)
    return [features.labels[number] for number in np.flatnonzero(above)]
