"""The model card of a run, in the fields that Hugging Face's hub reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mm_keras.features import IMAGE
from mm_keras.report.evidence import Evidence
from tfrecords_tools.dataset.atomic_file import write_text

_METRICS = {"accuracy": "accuracy", "top_5": "top_5_accuracy", "macro_f1": "f1", "mAP": "mean_average_precision"}
_MOST_LABELS = 50


def write_card(path: Path, evidence: Evidence, content: Mapping) -> None:
    """Writes MODEL_CARD.md: a head in YAML with the metrics, and what a user has to know.

    Args:
        path: the file.
        evidence: the run and the split.
        content: what report.json holds.
    """
    write_text(path, format_card(content, list(evidence.names), evidence.loaded.run.facts()))


def format_card(content: Mapping, labels: list[str], facts: Mapping) -> str:
    """The text of a model card.

    Args:
        content: what report.json holds.
        labels: the names of all labels.
        facts: what run.json holds.
    """
    has_image = IMAGE in content["modalities"]
    lines = ["---", *_head(content, has_image), "---", "", f"# {content['run']}", "", content["verdict"]["trained"], ""]
    lines += ["## Intended use", "", _use(content), ""]
    lines += ["## Training", "", *_training(content, facts), ""]
    lines += ["## Evaluation", "", *_evaluation(content), ""]
    findings = [f"- {finding['text']}" for finding in content["verdict"]["findings"]]
    lines += ["## Limitations", "", *(findings or ["- None were found by the rules of the report."]), ""]
    shown = ", ".join(f"`{label}`" for label in labels[:_MOST_LABELS])
    more = f" and {len(labels) - _MOST_LABELS:,} more" if len(labels) > _MOST_LABELS else ""
    return "\n".join([*lines, "## Labels", "", f"{len(labels):,}: {shown}{more}.", ""])


def _head(content: Mapping, has_image: bool) -> list[str]:
    """The YAML head; strings are written as JSON, which YAML reads."""
    task = "text-classification" if not has_image else "image-classification"
    lines = ["library_name: keras", f"pipeline_tag: {task}", "tags:", "  - mm_keras"]
    lines += ["  - multimodal"] if len(content["modalities"]) > 1 else []
    lines += ["  - multi-label"] if content["multi_label"] else []
    metrics = [(name, content["measures"][name]) for name in _METRICS if name in content["measures"]]
    if not metrics:
        return lines
    lines += [
        "model-index:",
        f"  - name: {json.dumps(content['run'])}",
        "    results:",
        "      - task:",
        f"          type: {task}",
    ]
    lines += [
        "        dataset:",
        f"          name: {json.dumps(content['dataset'])}",
        f"          type: {json.dumps(content['dataset'])}",
    ]
    lines += [f"          split: {json.dumps(content['split'])}", "        metrics:"]
    for name, result in metrics:
        lines += [
            f"          - type: {_METRICS[name]}",
            f"            name: {name}",
            f"            value: {result['value']:.4f}",
        ]
    return lines


def _use(content: Mapping) -> str:
    inputs = " and ".join(content["modalities"])
    several = "any number of" if content["multi_label"] else "one of"
    return (
        f"It takes {inputs}, any of which may be missing, and gives {several} {content['num_labels']:,} labels and "
        "probabilities. An input that is missing is an empty string. It was measured on data like the training's alone."
    )


def _training(content: Mapping, facts: Mapping) -> list[str]:
    learned = f"{content['train_examples']:,} examples of " if content["train_examples"] else ""
    lines = [f"- data: {learned}{content['trained_on']}, split {facts.get('train_split', 'train')}"]
    if facts.get("frozen"):
        lines.append(f"- frozen encoders: {', '.join(facts['frozen'])}")
    if facts.get("parameters"):
        lines.append(f"- size: {facts['parameters']:,} parameters, {facts['weight_bytes'] / 1e6:.1f} MB")
    lines += [f"- {name}: {value}" for name, value in facts.get("versions", {}).items()]
    return lines


def _evaluation(content: Mapping) -> list[str]:
    if not content["measures"]:
        return ["The examples had no labels."]
    lines = [
        f"On {content['num_examples']:,} examples of {content['dataset']}, split {content['split']}, with intervals of 95 %:",
        "",
    ]
    lines += ["| measure | value | interval |", "| --- | --- | --- |"]
    lines += [
        f"| {name} | {result['value']:.3f} | {result['low']:.3f}–{result['high']:.3f} |"
        for name, result in content["measures"].items()
    ]
    if content["verdict"]["single"]:
        lines += ["", content["verdict"]["single"]]
    return lines
