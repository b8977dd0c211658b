"""Runs a sweep: one training for each setting and seed, whose results are compared in a table and a figure."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import logging

from mm_keras.sweep.results import draw_box_plots, read_result, write_table
from mm_keras.sweep.search import search
from mm_keras.sweep.sweep_file import Sweep, SweepError, find_sweep, read_sweep
from mm_keras.sweep.trials import Trial, failure, locked, make_trials, not_listed, run_trials
from tfrecords_tools.progress import progress_bar


class TrialsFailed(RuntimeError):  # noqa: N818  the name says what has happened
    """Some trainings of a sweep failed; the message names them and their logs."""


def run_sweep(
    sweep: str | Path, workdir: str | Path, workers: int = 1, bindings: Sequence[str] = (), repeats: int | None = None
) -> Path:
    """Trains and measures all settings that a sweep file lists, or searches for the best setting.

    Called again for the same folder, it skips trainings that are finished, resumes those that were interrupted, and repeats
    those that failed. Run folders of settings that the file no longer lists are named and kept.

    Args:
        sweep: the sweep file; `sweep_file` describes it.
        workdir: the folder of the sweep. It is made, or continued if it is there.
        workers: how many trainings run at a time, at least 1.
        bindings: gin lines of all trainings, beside those of the file.
        repeats: trainings a setting; None: as many as the file says.

    Returns:
        `workdir`. A sweep leaves table.md, table.csv and box_plots.png in it, a search table.md, table.csv and best.gin.

    Raises:
        SweepError: if something is wrong with the file or a config. Nothing has been trained then.
        FileExistsError: if another sweep is at work in the folder.
        TrialsFailed: if some trainings failed. All others are finished then.

    Example:
        >>> run_sweep("captions_width.toml", "sweeps/width", workers=2)
        PosixPath('sweeps/width')
    """
    if workers < 1:
        raise SweepError(f"--workers is how many trainings run at a time, at least 1. Received: {workers}")
    plan, workdir = read_sweep(find_sweep(sweep)), Path(workdir)
    if repeats is not None and (repeats < 1 or plan.search):
        raise SweepError(f"--repeats is how many trainings a setting of a sweep has, at least 1. Received: {repeats}")
    plan = dataclasses.replace(plan, bindings=(*plan.bindings, *bindings), repeats=repeats or plan.repeats)
    with locked(workdir):
        failed = search(plan, workdir, workers) if plan.search else _run_all(plan, workdir, workers)
    if failed:
        lines = "".join(f"\n  {trial.name}: {why}, see {trial.log}" for trial, why in failed)
        raise TrialsFailed(f"{len(failed)} trainings failed; the same command goes on from here:{lines}")
    return workdir


def _run_all(sweep: Sweep, workdir: Path, workers: int) -> list[tuple[Trial, str]]:
    """Runs all trainings that are not finished; returns those that failed, each with the reason."""
    trials = [trial for setting in sweep.settings() for trial in make_trials(sweep, setting, workdir, train_only=False)]
    _check_different(sweep, trials)
    shutil.copyfile(sweep.path, workdir / "sweep.toml")
    for folder in not_listed(workdir, trials):
        logging.info(f"{folder} is of no setting in {sweep.path} any more; it stays, and is not in the table")
    waiting = [trial for trial in trials if not trial.finished]
    settings = len(trials) // sweep.repeats
    logging.info(
        f"{settings} settings x {sweep.repeats} seeds: {len(trials) - len(waiting)} of {len(trials)} trainings are there"
    )
    failed: list[tuple[Trial, str]] = []
    began: dict[Trial, float] = {}

    def begin() -> Iterator[Trial]:
        for trial in waiting:
            began[trial] = time.monotonic()
            yield trial

    with progress_bar("trainings", "trainings", len(waiting)) as bar:

        def ended(trial: Trial, status: int) -> None:
            if status:
                failed.append((trial, failure(trial, status)))
                bar.write(f"{trial.name} failed: {failed[-1][1]}, see {trial.log}", file=sys.stdout)
            else:
                trial.finish()
                metric, value = next(iter(read_result(trial.folder).items()))
                took = time.monotonic() - began[trial]
                bar.write(f"{trial.name}: {metric} {value:.3f} in {took:.0f} s", file=sys.stdout)
            sys.stdout.flush()
            bar.update()

        run_trials(begin(), workers, ended)
    results = {}
    for trial in trials:
        if trial.finished:
            results.setdefault(trial.setting.name, (trial.setting, []))[1].append(read_result(trial.folder))
    if results:
        logging.info(f"\n{write_table(workdir, list(results.values()))}")
        draw_box_plots(workdir / "box_plots.png", list(results.values()))
        finished = [str(trial.folder) for trial in trials if trial.finished]
        if len(finished) > 1:
            logging.info(f"\nwhich differences are more than chance: mm-keras report {shlex.join(finished)}")
    return failed


def _check_different(sweep: Sweep, trials: list[Trial]) -> None:
    """Raises SweepError if two settings have the same bindings: they would train in one folder."""
    by_checksum: dict[str, Trial] = {}
    for trial in trials:
        other = by_checksum.setdefault(f"{trial.folder.parent.name.rpartition('-')[2]} {trial.seed}", trial)
        if other is not trial:
            raise SweepError(f"{sweep.path}: {other.setting.name!r} and {trial.setting.name!r} bind the same")
