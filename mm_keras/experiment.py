"""An experiment: one training with its baselines, its evaluation and its export."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import logging

from mm_keras.configurable import configurable
from mm_keras.distribution.multi_worker import this_worker
from mm_keras.report.report import report
from mm_keras.runs.evaluate import evaluate
from mm_keras.runs.export import export
from mm_keras.runs.run_folder import RunFolder, SavedConfig
from mm_keras.training.train import train


@configurable
def train_and_evaluate(
    workdir: str | Path,
    train: Callable = train,
    evaluate: Callable[..., dict] | None = evaluate,
    export: Callable[..., Path] | None = export,
    report: Callable[..., Path | None] | None = report,
    baselines: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    config: SavedConfig | None = None,
) -> dict | None:
    """Trains a model, then baselines that see one modality each; evaluates them in one table; reports; exports.

    Args:
        workdir: the run folder to make.
        train: `(workdir=, …) -> model`, which takes the options of `mm_keras.training.train.train`.
        evaluate: `(workdir) -> table`; None: stop after training.
        export: `(workdir) -> SavedModel folder`; None: do not export.
        report: `(workdir) -> page`, which follows an evaluation; None: there is none.
        baselines: modalities, "image" or text fields; for each of them a further model is trained on it alone.
        resume, overwrite, dry_run, config: see `mm_keras.training.train.train`. A dry run ends after the main model's first
            batch.

    Returns:
        the table of `evaluate`, if there is one; of several workers, the chief alone makes it.
    """
    run = RunFolder(workdir)
    call_options = {"resume": resume, "overwrite": overwrite, "dry_run": dry_run, "config": config}
    options = {name: value for name, value in call_options.items() if value}
    later_splits = [split for split in map(_split_of, (evaluate, export)) if split]
    if later_splits:
        options["later_splits"] = list(dict.fromkeys(later_splits))
    train(workdir=run.path, **options | ({"later_baselines": tuple(baselines)} if baselines else {}))
    if dry_run:
        return None
    for modality in baselines:
        logging.info(f"\nbaseline: {modality} alone")
        train(workdir=run.baseline(modality), modalities=(modality,), **options)
    if not this_worker().is_chief:
        return None
    logging.info("")
    table = evaluate(run.path) if evaluate else None
    if evaluate and report:
        logging.info("")
        report(run.path)
    if export:
        logging.info("")
        export(run.path)
    return table


def _split_of(function: Callable | None) -> str | tuple[str, str] | None:
    """The split that `evaluate` or `export` will read, as `train` takes it, as far as its signature tells."""
    parameters = inspect.signature(function).parameters if function else {}
    default = {name: parameters[name].default for name in ("dataset", "split") if name in parameters}
    dataset, split = default.get("dataset"), default.get("split")
    if split is None or dataset is None:
        return split
    return (dataset, split) if isinstance(dataset, str) else None  # another one is packed only when it is read
