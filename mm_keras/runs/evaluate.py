"""Evaluates a trained run, with all its inputs and with some of them hidden."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
from absl import logging

from mm_keras.configurable import PositiveInt, configurable
from mm_keras.distribution.preemption import end_if_asked
from mm_keras.features import ALL_INPUTS, ALL_TEXTS, IMAGE, FeatureSpec, present
from mm_keras.objectives.metrics import evaluate_logits, mean_logits
from mm_keras.objectives.streaming_metrics import AVERAGES, SCORES
from mm_keras.runs.encode_split import encode_split
from mm_keras.runs.example_answers import write_answers
from mm_keras.runs.predictions_file import check_output
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.thresholds import load_thresholds
from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.folder import Split

_MULTI_CLASS_COLUMNS = ("top_1", "top_5")
_MULTI_LABEL_COLUMNS = ("micro_f1", "macro_f1", "mAP")


@configurable
def evaluate(
    workdir: str | Path,
    dataset: str | None = None,
    split: str = "test",
    batch_size: PositiveInt = 64,
    texts_per_field: PositiveInt = 1,
    predictions: str | None = None,
) -> dict:
    """Evaluates a run on a split: each modality alone, all texts, and everything. Prints a table and writes it.

    Modalities are hidden by their presence flags; the model stays the same. Baselines, which were trained alone, follow. The
    table is written to report/evaluation.json, with all metrics of `evaluate_logits` in each row, and to report/evaluation.md,
    where a second table has the other metrics of the model with all its inputs.

    Args:
        workdir: the run folder.
        dataset: a dataset folder with the same labels; default: the one that the run was trained on.
        split: the split to measure on.
        batch_size: examples in a batch; only the memory depends on it.
        texts_per_field: number of texts of a field that are used, the first ones. The model answers once for each of them,
            which takes as many times as long, and its probabilities are averaged.
        predictions: a file to write (.parquet, .csv, .jsonl), with a row for each example: see `example_answers.write_answers`.

    Returns:
        {"dataset", "folder", "split", "num_examples", "seconds", "rows": [{"inputs", "trained", "present", metrics…}, …]}, and
        "thresholds_from", the split on which thresholds were tuned, if they were. "seconds" is the time for the run's own
        model: loading it, compiling it, and all combinations of its inputs.

    Example:
        >>> report = evaluate("runs/products", split="val")
        >>> report["rows"][-1]["top_1"]
        0.93
    """
    run = RunFolder(workdir)
    if predictions:
        check_output(Path(predictions))
    eval_split = run.dataset(dataset).split(split)
    info = eval_split.dataset.info
    start = time.monotonic()
    answers: dict[str, np.ndarray] | None = {} if predictions else None
    num_examples, rows = _evaluate_model(run, eval_split, batch_size, texts_per_field, answers)
    seconds = time.monotonic() - start
    for baseline in sorted(run.baselines.glob("*/")):
        rows.append(_evaluate_model(RunFolder(baseline), eval_split, batch_size, texts_per_field)[1][-1])
    for row in rows:
        if row["inputs"] in info.ceilings:
            row["ceiling"] = info.ceilings[row["inputs"]]
    folder = str(eval_split.dataset.folder.absolute())
    report = {
        "dataset": info.name,
        "folder": folder,
        "split": split,
        "num_examples": num_examples,
        "seconds": round(seconds, 3),
        "rows": rows,
    }
    thresholds = load_thresholds(run, FeatureSpec.load(run.path))
    if thresholds:
        report["thresholds_from"] = thresholds.split
    table = format_report(report)
    run.report.mkdir(parents=True, exist_ok=True)
    write_text(run.report / "evaluation.json", json.dumps(report, indent=2) + "\n")
    write_text(run.report / "evaluation.md", f"{table}\n\n{format_details(report)}\n")
    logging.info(table)
    if predictions:
        write_answers(Path(predictions), eval_split, FeatureSpec.load(run.path), answers, thresholds and thresholds.values)
        logging.info(f"{predictions}: the answers to {num_examples:,} examples, by inputs shown")
    return report


def format_report(report: dict) -> str:
    """The report as a Markdown table. Metrics are fractions, and top_1 has its standard error."""
    rows = report["rows"]
    columns = _MULTI_CLASS_COLUMNS if "top_1" in rows[0] else _MULTI_LABEL_COLUMNS
    metrics = [name for name in columns if name in rows[0]]
    has_ceiling = any("ceiling" in row for row in rows)
    cells = [["inputs", "trained", "examples with it", *metrics, *(["ceiling"] if has_ceiling else [])]]
    cells += [
        [row["inputs"], row["trained"], f"{row['present']:,}"]
        + [_format_metric(name, row[name], report["num_examples"]) for name in metrics]
        + ([f"{row['ceiling']:.3f}" if "ceiling" in row else ""] if has_ceiling else [])
        for row in rows
    ]
    title = f"dataset {report['dataset']}, split {report['split']}: {report['num_examples']:,} examples"
    return f"{title}\n\n{markdown_table(cells)}"


def format_details(report: dict) -> str:
    """Further metrics of the model with all its inputs: precision, recall and F1 by average and rule, and calibration."""
    *_, row = [row for row in report["rows"] if row["trained"] == report["rows"][0]["trained"]]
    multi_label = "micro_f1" in row
    rules = {
        "": "probability above 0.5" if multi_label else "most probable label",
        "tuned_": f"above its label's threshold, tuned on {report.get('thresholds_from')}",
    }
    cells = [["predicted", "average", *SCORES]]
    for prefix, rule in rules.items():
        for average in AVERAGES:
            if f"{prefix}{average}_f1" in row:
                cells.append([rule, average, *(f"{row[f'{prefix}{average}_{score}']:.3f}" for score in SCORES)])
    if multi_label:
        rule = "ImageD's: at least 0.3, the four best"
        cells.append([rule, "micro", *(f"{row[f'imaged_{score}']:.3f}" for score in SCORES)])
        cells.append([rule, "by example, as the paper", *(f"{row[f'imaged_example_{score}']:.3f}" for score in SCORES)])
    return f"inputs {row['inputs']}: expected calibration error {row['ece']:.3f}\n\n{markdown_table(cells)}"


def markdown_table(cells: list[list[str]]) -> str:
    """A Markdown table; the first row of cells is its header."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    cells = [cells[0], ["-" * width for width in widths], *cells[1:]]
    lines = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(f"| {line} |" for line in lines)


def _evaluate_model(
    run: RunFolder,
    split: Split,
    batch_size: int,
    texts_per_field: int,
    all_logits: dict[str, np.ndarray] | None = None,
) -> tuple[int, list[dict]]:
    """The number of examples, and a row for each combination of inputs; the last row shows all of them.

    The logits of each combination are added to `all_logits`, if it is given, by the combination's name.
    """
    if texts_per_field < 1:
        raise ValueError(f"texts_per_field must be at least 1. Received: {texts_per_field}")
    model, features = run.load_model()
    thresholds = load_thresholds(run, features)
    encoded, labels, behind = encode_split(run, model, features, split, batch_size, texts_per_field)
    trained = "fused" if run.late_fusion.is_file() else "together" if len(features.modalities) > 1 else "alone"
    rows = []
    for name, shown in _combinations(features).items():
        end_if_asked()
        hidden = {present(m): np.zeros(len(labels), bool) for m in features.modalities if m not in shown}
        answers = [behind.predict(inputs | hidden, batch_size=1024, verbose=0) for inputs in encoded]
        with_input = np.any([encoded[0][present(modality)] for modality in shown], axis=0).sum()
        logits = mean_logits(answers, features.multi_label)
        if all_logits is not None:
            all_logits[name] = logits
        metrics = evaluate_logits(logits, labels, features.multi_label, thresholds and thresholds.values)
        rows.append({"inputs": name, "trained": trained, "present": int(with_input), **metrics})
    return len(labels), rows


def _combinations(features: FeatureSpec) -> dict[str, tuple[str, ...]]:
    """Name -> modalities that are shown: each alone, all texts, everything."""
    if len(features.modalities) == 1:
        return {features.modalities[0]: features.modalities}
    combinations = {modality: (modality,) for modality in features.modalities}
    fields = tuple(text.name for text in features.texts)
    if len(fields) > 1 and IMAGE in features.modalities:
        combinations[ALL_TEXTS] = fields
    return combinations | {ALL_INPUTS: features.modalities}


def _format_metric(name: str, value: float, num_examples: int) -> str:
    if name == "top_1":
        return f"{value:.3f} ± {math.sqrt(value * (1 - value) / num_examples):.3f}"
    return f"{value:.3f}"
