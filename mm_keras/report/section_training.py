"""The section "Training": curves, the solver's table, sizes, times, the configuration and versions. It reads files alone."""

from __future__ import annotations

import json
import platform
from pathlib import Path

from mm_keras.runs.run_folder import RunFolder
from tfrecords_tools.dataset.checksums import read_json

_NOT_MEASURES = ("epoch", "learning_rate", "examples_per_second", "input_wait")


def make_training(run: RunFolder) -> dict:
    """The section's content, as JSON values."""
    facts = run.facts()
    epochs = [json.loads(line) for line in _lines(run.metrics)]
    solver = run.report / "solver.json"
    solved = read_json(solver) if solver.is_file() else None
    return {
        "epochs": epochs,
        "curves": _curves(epochs),
        "solver": solved,
        "late_fusion": read_json(run.late_fusion) if run.late_fusion.is_file() else None,
        "parameters": facts.get("parameters"),
        "weight_bytes": facts.get("weight_bytes"),
        "seconds": _seconds(facts, solved),
        "frozen": list(facts.get("frozen", ())),
        "seed": facts.get("seed"),
        "versions": facts.get("versions", {}) | {"python": platform.python_version()},
        "config": _text(run.path / "operative_config.gin"),
        "given_config": _text(run.path / "config.gin"),
    }


def _curves(epochs: list[dict]) -> list[dict]:
    """A curve for each measure, with that of the validation split beside it."""
    names = dict.fromkeys(name.removeprefix("val_") for epoch in epochs for name in epoch)
    curves = []
    for name in names:
        if name == "epoch":
            continue
        curve: dict = {"name": name, "is_measure": name not in _NOT_MEASURES}
        for part, key in (("train", name), ("val", f"val_{name}")):
            points = [{"epoch": epoch["epoch"], "value": epoch[key]} for epoch in epochs if epoch.get(key) is not None]
            if points:
                curve[part] = points
        if "train" in curve or "val" in curve:
            curves.append(curve)
    return curves


def _seconds(facts: dict, solved: dict | None) -> dict[str, float]:
    """Time by phase."""
    seconds = dict(facts.get("seconds", {}))
    if solved:
        seconds["solving"] = solved["seconds"]
    return seconds


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.is_file() else []


def _text(path: Path) -> str | None:
    return path.read_text("utf-8") if path.is_file() else None
