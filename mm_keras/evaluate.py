"""Evaluates a trained run with all inputs and with some of them hidden."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from mm_keras.data.pipeline import make_evaluation_batches
from mm_keras.features import IMAGE, FeatureSpec, present
from mm_keras.metrics import evaluate_logits
from mm_keras.model.two_tower import split_at_embeddings
from mm_keras.run_folder import RunFolder
from tfrecords_tools.dataset_info import DatasetInfo


def evaluate(workdir: str | Path, dataset: str | None = None, split: str = "test", batch_size: int = 64) -> dict:
    """Evaluates a run on a split: with each modality alone, all texts, and everything; prints and writes a table.

    Hidden modalities are masked by their presence flags: the model is one and the same. Baselines that were trained alone
    follow. Of several texts in a field the first is taken. Written to report/evaluation.json and .md.

    Args:
        workdir: the run folder.
        dataset: a dataset folder with the same labels; default: the one that the run was trained on.
        split: its split.
        batch_size: only memory depends on it.

    Returns:
        {"split", "dataset", "num_examples", "rows": [{"inputs", "trained", "present", metrics…}, …]}.
    """
    run = RunFolder(workdir)
    dataset = dataset or run.facts()["dataset"]
    info = DatasetInfo.load(dataset)
    num_examples, rows = _evaluate_model(run, dataset, split, batch_size)
    for baseline in sorted(run.baselines.glob("*/")):
        rows.append(_evaluate_model(RunFolder(baseline), dataset, split, batch_size)[1][-1])
    for row in rows:
        if row["inputs"] in info.ceilings:
            row["ceiling"] = info.ceilings[row["inputs"]]
    report = {"dataset": info.name, "split": split, "num_examples": num_examples, "rows": rows}
    table = format_report(report)
    run.report.mkdir(parents=True, exist_ok=True)
    (run.report / "evaluation.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    (run.report / "evaluation.md").write_text(table + "\n", "utf-8")
    print(table)
    return report


def format_report(report: dict) -> str:
    """The report as a Markdown table; fractions of 1, top_1 with its standard error."""
    rows = report["rows"]
    metrics = [name for name in rows[0] if name not in ("inputs", "trained", "present", "ceiling")]
    has_ceiling = any("ceiling" in row for row in rows)
    header = ["inputs", "trained", "examples with it", *metrics, *(["ceiling"] if has_ceiling else [])]
    cells = [header] + [
        [row["inputs"], row["trained"], f"{row['present']:,}"]
        + [_format_metric(name, row[name], report["num_examples"]) for name in metrics]
        + ([f"{row['ceiling']:.3f}" if "ceiling" in row else ""] if has_ceiling else [])
        for row in rows
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    cells.insert(1, ["-" * width for width in widths])
    title = f"dataset {report['dataset']}, split {report['split']}: {report['num_examples']:,} examples"
    lines = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join([title, "", *(f"| {line} |" for line in lines)])


def _evaluate_model(run: RunFolder, dataset: str, split: str, batch_size: int) -> tuple[int, list[dict]]:
    """The number of examples, and a row per combination of inputs; the last shows all that the model sees."""
    model, features = run.load_model()
    encoders, fusion_and_head = split_at_embeddings(model, features.modalities)
    batches = make_evaluation_batches(dataset, split, features, batch_size)
    parts: list[dict[str, np.ndarray]] = []
    for inputs, labels, _ in batches.dataset:
        flags = {present(modality): inputs[present(modality)].numpy() for modality in features.modalities}
        parts.append(encoders.predict_on_batch(inputs) | flags | {"labels": labels.numpy()})
    whole = {name: np.concatenate([part[name] for part in parts])[: batches.num_examples] for name in parts[0]}
    labels = whole.pop("labels")
    trained = "together" if len(features.modalities) > 1 else "alone"
    rows = []
    for name, shown in _combinations(features).items():
        hidden = {present(m): np.zeros_like(whole[present(m)]) for m in features.modalities if m not in shown}
        logits = fusion_and_head.predict(whole | hidden, batch_size=1024, verbose=0)
        with_input = np.any([whole[present(modality)] for modality in shown], axis=0).sum()
        metrics = evaluate_logits(logits, labels, features.multi_label)
        rows.append({"inputs": name, "trained": trained, "present": int(with_input), **metrics})
    return batches.num_examples, rows


def _combinations(features: FeatureSpec) -> dict[str, tuple[str, ...]]:
    """Name -> modalities that are shown: each alone, all texts, everything."""
    if len(features.modalities) == 1:
        return {features.modalities[0]: features.modalities}
    combinations = {modality: (modality,) for modality in features.modalities}
    fields = tuple(text.field for text in features.texts)
    if len(fields) > 1 and IMAGE in features.modalities:
        combinations["text"] = fields
    return combinations | {"all": features.modalities}


def _format_metric(name: str, value: float, num_examples: int) -> str:
    if name == "top_1":
        return f"{value:.3f} ± {math.sqrt(value * (1 - value) / num_examples):.3f}"
    return f"{value:.3f}"
