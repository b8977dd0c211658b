"""Compares runs on the same examples: one page, with paired differences, seeds side by side, and size against score."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from mm_keras.distribution.preemption import end_if_asked
from mm_keras.report.draw_compare import draw_comparison
from mm_keras.report.examples import Examples
from mm_keras.report.loaded_run import LoadedRun
from mm_keras.report.measures import compare_answers, main_measure, measure_all
from mm_keras.report.page import as_json, data_folder, render, write_report
from mm_keras.runs.run_folder import RunFolder
from tfrecords_tools.dataset.checksums import read_json
from tfrecords_tools.progress import progress_bar

_SEED = re.compile(r"^(?!.*(dataset|fractions)).*\bseed = \d+$", re.MULTILINE)
_MOST_PAIRS = 12  # up to so many runs, every pair is compared; of more, each run is compared with the best one


class Answered(NamedTuple):
    """A run and its answers to the examples that all runs are compared on.

    Attributes:
        name: what the page calls it.
        run: its folder.
        probabilities: float32 [N, L].
        thresholds: float64 [L] of multi-label runs.
    """

    name: str
    run: RunFolder
    probabilities: np.ndarray
    thresholds: np.ndarray | None


def compare(
    runs: Sequence[str | Path], dataset: str | None = None, split: str | None = None, output: str | Path | None = None
) -> Path:
    """Writes a page that compares runs on the same split.

    Args:
        runs: two or more run folders with the same labels.
        dataset: the dataset to compare on; default: the one that the runs were trained on.
        split: the split; None: "test".
        output: the page's path; default: comparison/comparison.html beside the first run, with its data, tables and figures
            beside it; those of a page elsewhere stand in <its name>_data/.

    Returns:
        the page's path.

    Raises:
        ValueError: for fewer than two runs, one that is named twice, or runs that were made for other labels or datasets.

    Example:
        >>> compare(["runs/image", "runs/both"])
        PosixPath('runs/comparison/comparison.html')
    """
    began = time.monotonic()
    folders = [RunFolder(run) for run in runs]
    resolved = [folder.path.resolve() for folder in folders]
    if len(set(resolved)) < 2 or len(set(resolved)) < len(resolved):
        raise ValueError(f"a comparison takes two or more different runs. Received: {[str(run) for run in runs]}")
    path = Path(output) if output else folders[0].path.parent / "comparison" / "comparison.html"
    data = data_folder(path, is_own=not output)
    measured = _common_dataset(folders, dataset).split(split or "test")
    answered, examples = _ask(folders, measured)
    if examples.labels is None:
        raise ValueError(
            f"runs are compared on examples with labels; split {measured.name!r} of {measured.dataset.folder} has none"
        )
    multi_label = examples.labels.ndim == 2
    content: dict = as_json(
        {
            "version": 1,
            "dataset": measured.dataset.info.name,
            "split": measured.name,
            "num_examples": len(examples),
            "measure": main_measure(multi_label),
            "runs": [_describe(run, examples.labels, multi_label) for run in answered],
            "differences": _differences(answered, examples.labels, multi_label),
            "settings": _settings(answered, examples.labels, multi_label),
        }
    )
    content["verdict"] = _verdict(content)
    drawings = draw_comparison(content)
    page = render(
        "compare_page.html",
        title=f"{len(runs)} runs on {content['dataset']}",
        drawings=drawings,
        of=content,
        stem=path.stem,
        data_beside="" if data == path.parent else f"{data.name}/",
    )
    tables = {"runs": [_flat(row) for row in content["runs"]], "differences": content["differences"]}
    write_report(path, data, page, content, tables, drawings)
    logging.info(f"comparison: {path} ({time.monotonic() - began:.0f} s)")
    return path


def _common_dataset(folders: Sequence[RunFolder], dataset: str | None):
    first, *others = folders
    for other in others if not dataset else ():
        if other.facts()["dataset"] != first.facts()["dataset"]:
            raise ValueError(
                f"{first.path} was trained on {first.facts()['dataset']}, {other.path} on {other.facts()['dataset']}; name the "
                "dataset to compare on with --dataset"
            )
    return first.dataset(dataset)


def _ask(folders: Sequence[RunFolder], split) -> tuple[list[Answered], Examples]:
    """The answers of each run, and the examples that are answered; only one model is in memory at a time."""
    names = _short_names([folder.path.resolve() for folder in folders])
    answered, examples, labels = [], None, None
    with progress_bar("comparing", "runs", len(folders)) as bar:
        for name, folder in zip(names, folders, strict=True):
            end_if_asked()
            loaded = LoadedRun(folder.path)
            labels = labels or loaded.features.labels
            if loaded.features.labels != labels:
                raise ValueError(f"{folder.path} has other labels than {folders[0].path}: only runs of the same labels compare")
            examples = examples or Examples.of_split(split, loaded.features)
            answered.append(Answered(name, folder, loaded.probabilities(loaded.encode(split)), loaded.thresholds))
            bar.update()
    return answered, examples


def _short_names(paths: Sequence[Path]) -> list[str]:
    """The names of folders, with as many of the folders above them as tell them apart."""
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in paths]


def _describe(answered: Answered, labels: np.ndarray, multi_label: bool) -> dict:
    facts = answered.run.facts()
    solved = answered.run.report / "solver.json"
    seconds = facts.get("seconds", {}).get("total")
    if seconds is None and solved.is_file():
        seconds = read_json(solved)["seconds"]
    return {
        "run": answered.name,
        "setting": _setting(answered),
        "seed": facts.get("seed"),
        "inputs": list(facts.get("modalities", ())),
        "measures": measure_all(answered.probabilities, labels, multi_label, answered.thresholds),
        "parameters": facts.get("parameters"),
        "megabytes": facts["weight_bytes"] / 1e6 if facts.get("weight_bytes") else None,
        "seconds": seconds,
    }


def _differences(answered: Sequence[Answered], labels: np.ndarray, multi_label: bool) -> list[dict]:
    """The difference in the main measure of each pair of runs, with the chance that there is none."""
    name = main_measure(multi_label)
    order = sorted(
        answered, key=lambda run: -measure_all(run.probabilities, labels, multi_label, run.thresholds, [name])[name]["value"]
    )
    firsts = order if len(order) <= _MOST_PAIRS else order[:1]
    rows = []
    for place, first in enumerate(firsts):
        for second in order[place + 1 :]:
            thresholds = first.thresholds, second.thresholds
            difference = compare_answers(first.probabilities, second.probabilities, labels, multi_label, thresholds)
            rows.append(
                {
                    "first": first.name,
                    "second": second.name,
                    **difference,
                    "more_than_chance": difference["low"] > 0 or difference["high"] < 0,
                }
            )
    return rows


def _setting(answered: Answered) -> str:
    """What runs have in common that differ in their seeds alone: the configuration without the seed, or else the run's name."""
    config = answered.run.path / "operative_config.gin"
    return _SEED.sub("", config.read_text("utf-8")) if config.is_file() else answered.name


def _settings(answered: Sequence[Answered], labels: np.ndarray, multi_label: bool) -> list[dict]:
    """Runs of one configuration with several seeds: their scores side by side."""
    groups: dict[str, list[Answered]] = {}
    for run in answered:
        groups.setdefault(_setting(run), []).append(run)
    name, rows = main_measure(multi_label), []
    for group in groups.values():
        values = [measure_all(run.probabilities, labels, multi_label, run.thresholds, [name])[name]["value"] for run in group]
        rows.append(
            {
                "setting": group[0].name if len(group) == 1 else f"{group[0].name} and {len(group) - 1} more seeds",
                "runs": [run.name for run in group],
                "values": values,
                "mean": float(np.mean(values)),
                "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            }
        )
    return sorted(rows, key=lambda row: -row["mean"])


def _verdict(content: Mapping) -> list[str]:
    """Which run is best, and whether that is more than chance."""
    name = content["measure"]
    best = max(content["runs"], key=lambda row: row["measures"][name]["value"])
    equal = [row["second"] for row in content["differences"] if row["first"] == best["run"] and not row["more_than_chance"]]
    worse = [row["second"] for row in content["differences"] if row["first"] == best["run"] and row["more_than_chance"]]
    lines = [f"{best['run']} has the highest {name}, {best['measures'][name]['value']:.3f}."]
    if equal:
        lines.append(f"It is not better by more than chance than {', '.join(equal)}.")
    if worse:
        lines.append(f"It is better by more than chance than {', '.join(worse)}.")
    small = [row for row in content["runs"] if row["run"] in equal and row["megabytes"] and best["megabytes"]]
    small = [row for row in small if row["megabytes"] < 0.67 * best["megabytes"]]
    if small:
        least = min(small, key=lambda row: row["megabytes"])
        lines.append(f"{least['run']} is as good within chance at {least['megabytes'] / best['megabytes']:.0%} of its size.")
    return lines


def _flat(row: Mapping) -> dict:
    flat = {name: value for name, value in row.items() if name not in ("measures", "setting")}
    for name, result in row["measures"].items():
        flat |= {name: result["value"], f"{name} low": result["low"], f"{name} high": result["high"]}
    return flat
