"""Takes a trained run apart into its experts, one for each input, and measures what each knows, and what is lost without it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from mm_keras.distribution.preemption import end_if_asked
from mm_keras.features import ALL_INPUTS, present
from mm_keras.model.expert import build_expert
from mm_keras.objectives.metrics import evaluate_logits
from mm_keras.runs.class_embeddings import ClassEncoder, read_texts, write_class_texts
from mm_keras.runs.encode_split import encode_split
from mm_keras.runs.evaluate import markdown_table
from mm_keras.runs.run_folder import RunFolder
from tfrecords_tools.dataset.atomic_file import atomic_file, write_bytes, write_text
from tfrecords_tools.dataset.info import CLASS_DESCRIPTIONS_FILE


def measure_experts(
    workdir: str | Path, dataset: str | None = None, split: str = "test", num_classes: int = 5, seed: int = 0
) -> dict:
    """Measures a run with each of its inputs alone, and with each of them removed; over all classes, and for a few drawn ones.

    Inputs are removed by their presence flags; the model stays the same. The table is printed, and written to
    report/experts.json and report/experts.md.

    Args:
        workdir: the run folder, of a model with two inputs or more.
        dataset: a dataset folder with the same labels; default: the one that the run was trained on.
        split: the split to measure on.
        num_classes: how many classes are drawn and shown one by one: of these, the fraction of the examples that are answered
            right (several labels: the F1 of the label). Only classes that the split has are drawn.
        seed: another seed draws other classes.

    Returns:
        {"split", "num_examples", "metric", "classes": [names], "rows": [{"inputs", metric, "classes": {name: value}}, …]}.

    Raises:
        ValueError: for a run with one input, which is an expert already.
    """
    run = RunFolder(workdir)
    model, features = run.load_model()
    if len(features.modalities) < 2:
        raise ValueError(f"{run.path} sees {features.modalities[0]!r} alone: it is one expert already")
    eval_split = run.dataset(dataset).split(split)
    (inputs,), labels, behind = encode_split(run, model, features, eval_split)
    metric = "micro_f1" if features.multi_label else "top_1"
    drawn = draw_classes(labels, len(features.labels), num_classes, seed)
    rows = []
    for name, hidden in _ablations(features.modalities).items():
        end_if_asked()
        flags = {present(modality): np.zeros(len(labels), bool) for modality in hidden}
        logits = behind.predict(inputs | flags, batch_size=1024, verbose=0)
        metrics = evaluate_logits(logits, labels, features.multi_label)
        of_classes = {features.labels[c]: score_of(c, logits, labels, features.multi_label) for c in drawn}
        extra = {"top_5": metrics["top_5"]} if "top_5" in metrics else {}
        rows.append({"inputs": name, metric: metrics[metric], **extra, "classes": of_classes})
    report = {
        "split": split,
        "num_examples": len(labels),
        "metric": metric,
        "classes": [features.labels[c] for c in drawn],
        "rows": rows,
    }
    run.report.mkdir(parents=True, exist_ok=True)
    write_text(run.report / "experts.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    table = format_experts(report)
    write_text(run.report / "experts.md", table + "\n")
    logging.info(table)
    return report


def write_experts(workdir: str | Path, output: str | Path) -> list[Path]:
    """Writes each expert of a run as a run of its own, <output>/<modality>, which is evaluated, exported and fused like any.

    An expert answers as the whole run does where all its other inputs are missing; see `build_expert`.

    Args:
        workdir: the run folder.
        output: the folder to write the runs into.

    Returns:
        the run folders.

    Raises:
        FileExistsError: if one of them holds a run already.
        ValueError: for a run with one input, or a late fusion.
    """
    run = RunFolder(workdir)
    model, features = run.load_model()
    if len(features.modalities) < 2:
        raise ValueError(f"{run.path} sees {features.modalities[0]!r} alone: it is one expert already")
    folders = [RunFolder(Path(output) / RunFolder(workdir).baseline(modality).name) for modality in features.modalities]
    for folder in folders:
        folder.check_free(overwrite=False)
    facts = run.facts()
    for modality, folder in zip(features.modalities, folders, strict=True):
        end_if_asked()
        expert = build_expert(model, features, modality)
        folder.start(overwrite=False)
        features.only([modality]).save(folder.path)
        with atomic_file(folder.best) as temporary:
            expert.save(temporary)
        if run.class_encoder.is_dir():
            ClassEncoder.load(run.class_encoder).save(folder.class_encoder)
            write_class_texts(folder.class_encoder, read_texts(run.class_encoder / CLASS_DESCRIPTIONS_FILE))
        if run.thresholds.is_file():
            write_bytes(folder.thresholds, run.thresholds.read_bytes())
        frozen = [name for name in facts.get("frozen", ()) if name == modality]
        expert_facts = {"modalities": [modality], "frozen": frozen, "expert_of": str(run.path.absolute())}
        folder.save_facts(**facts | expert_facts)
        logging.info(f"{folder.path}: the expert of {modality!r}")
    return [folder.path for folder in folders]


def format_experts(report: Mapping) -> str:
    """The report as a Markdown table."""
    metrics = [name for name in (report["metric"], "top_5") if name in report["rows"][0]]
    cells = [["inputs", *metrics, *report["classes"]]]
    for row in report["rows"]:
        of_classes = (f"{row['classes'][name]:.2f}" for name in report["classes"])
        cells.append([row["inputs"], *(f"{row[name]:.3f}" for name in metrics), *of_classes])
    drawn = f"; {len(report['classes'])} drawn classes one by one" if report["classes"] else ""
    return f"split {report['split']}: {report['num_examples']:,} examples{drawn}\n\n{markdown_table(cells)}"


def _ablations(modalities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Name of a row -> the modalities that are hidden."""
    rows = {f"{shown} alone": tuple(m for m in modalities if m != shown) for shown in modalities}
    if len(modalities) > 2:
        rows |= {f"without {hidden}": (hidden,) for hidden in modalities}
    return rows | {ALL_INPUTS: ()}


def draw_classes(labels: np.ndarray, num_labels: int, number: int, seed: int) -> list[int]:
    present_ids = np.flatnonzero(labels.any(axis=0)) if labels.ndim == 2 else np.unique(labels)
    drawn = np.random.default_rng(seed).permutation(present_ids)[:number]
    return sorted(int(label) for label in drawn if label < num_labels)


def score_of(label: int, logits: np.ndarray, labels: np.ndarray, multi_label: bool) -> float:
    """The score of one class: the fraction of its examples that are answered right, or the F1 of the label."""
    if not multi_label:
        return float((logits[labels == label].argmax(axis=1) == label).mean())
    predicted, true = logits[:, label] > 0, labels[:, label] > 0
    positives = predicted.sum() + true.sum()
    return float(2 * (predicted & true).sum() / positives) if positives else 0.0
