"""The results of a sweep: reads them from run folders and writes table.md, table.csv and box_plots.png."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from mm_keras.runs.evaluate import markdown_table
from mm_keras.runs.run_folder import RunFolder
from mm_keras.sweep.sweep_file import Setting
from tfrecords_tools.dataset.atomic_file import atomic_file, write_text
from tfrecords_tools.dataset.checksums import read_json

METRICS = ("top_1", "micro_f1")
COSTS = {"training s": ".1f", "evaluation s": ".2f", "MB": ".2f", "parameters": ",.0f"}
_CONSTANT = ("MB", "parameters")  # as a rule they are the same for all trainings of a setting
Results = Sequence[tuple[Setting, Sequence[Mapping[str, float]]]]  # each setting with the results of its trainings


def read_result(folder: Path) -> dict[str, float]:
    """The numbers of a finished run by name.

    "top_1" (or the metric that comes first) is that of the model with all its inputs; "top_1 image" that of the same model
    with the image alone; "top_1 image alone" that of a baseline. "training s" is the time in seconds that the epochs took,
    including validation and saving; "evaluation s" is the time of the evaluation; "MB" is the size of the weights in 10⁶ bytes.

    Raises:
        FileNotFoundError: if the run was not evaluated.
    """
    run = RunFolder(folder)
    facts = run.facts()
    report = read_json(run.report / "evaluation.json")
    rows = report["rows"]
    metric = next(name for name in METRICS if name in rows[0])
    *hidden, everything = [row for row in rows if row["trained"] == rows[0]["trained"]]
    result = {metric: everything[metric]} | {f"{metric} {row['inputs']}": row[metric] for row in hidden}
    baselines = [row for row in rows if row["trained"] != rows[0]["trained"]]
    result |= {f"{metric} {row['inputs']} {row['trained']}": row[metric] for row in baselines}
    return result | {
        "training s": facts["seconds"]["total"],
        "evaluation s": report["seconds"],
        "MB": facts["weight_bytes"] / 1e6,
        "parameters": facts["parameters"],
    }


def write_table(folder: Path, results: Results) -> str:
    """Writes table.md and table.csv with a row for each setting; returns the text of table.md.

    A cell of table.md is the mean ± the standard deviation (with n - 1) over the trainings. table.csv has a column for each.
    """
    axes = list(dict.fromkeys(axis for setting, _ in results for axis in setting.shown)) or ["config"]
    columns = _columns(results)
    cells = [[*axes, "n", *columns]]
    rows = []
    for setting, trials in results:
        shown = setting.shown or {"config": setting.name}
        row = {axis: shown.get(axis, "") for axis in axes} | {"n": len(trials)}
        line = [str(value) for value in row.values()]
        for column in columns:
            values = [trial[column] for trial in trials if column in trial]
            mean, spread = mean_and_spread(values)
            row |= {column: mean, f"{column} std": spread}
            line.append(_format(mean, None if column in _CONSTANT and not spread else spread, COSTS.get(column, ".3f")))
        rows.append(row)
        cells.append(line)
    table = markdown_table(cells)
    write_text(folder / "table.md", table + "\n")
    with atomic_file(folder / "table.csv") as path, open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return table


def draw_box_plots(path: Path, results: Results) -> None:
    """Draws a panel for each metric and each cost. It has a box for each setting, and a dot for each training.

    Raises:
        ImportError: if matplotlib is not installed; the message says how to install it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"box plots need matplotlib: pip install matplotlib ({error})") from error

    columns = [column for column in _columns(results) if column != "parameters"]
    names = [setting.name for setting, _ in results]
    across = min(2, len(columns))
    down = -(-len(columns) // across)
    figure = Figure((1.5 + 0.05 * max(map(len, names)) + 4.5 * across, (1.1 + 0.35 * len(names)) * down), layout="constrained")
    panels = figure.subplots(down, across, sharey=True, squeeze=False)
    for column, panel in zip(columns, panels.flat, strict=False):
        values = [[trial[column] for trial in trials if column in trial] for _, trials in results]
        heights = range(len(names), 0, -1)
        panel.boxplot(values, positions=heights, orientation="horizontal", widths=0.6, showfliers=False)
        for height, dots in zip(heights, values, strict=True):
            panel.plot(dots, [height] * len(dots), "o", color="tab:blue", alpha=0.5, markersize=4)
        panel.set_yticks(heights, names)
        panel.set_title(column)
        panel.grid(axis="x", alpha=0.3)
    for panel in panels.flat[len(columns) :]:
        panel.axis("off")
    figure.savefig(path, dpi=150)


def mean_and_spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """(mean, standard deviation). The mean of no values is None, and so is the deviation of fewer than two."""
    return (
        statistics.fmean(values) if values else None,
        statistics.stdev(values) if len(values) > 1 else None,
    )


def _columns(results: Results) -> list[str]:
    columns = dict.fromkeys(column for _, trials in results for trial in trials for column in trial)
    return [*(column for column in columns if column not in COSTS), *COSTS]


def _format(mean: float | None, spread: float | None, form: str) -> str:
    if mean is None:
        return ""
    return f"{mean:{form}}" + ("" if spread is None else f" ± {spread:{form}}")
