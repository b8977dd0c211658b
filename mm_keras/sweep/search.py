"""Searches for the best setting with Optuna. Settings are measured on the validation split alone, never on the test split.

Optuna draws settings with a tree-structured Parzen estimator and remembers them in search.db. From the second epoch on, a
training is ended early once it is worse than the median of earlier trainings at that epoch (`MedianPruner`).
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from mm_keras.config.load import find_config
from mm_keras.runs.evaluate import markdown_table
from mm_keras.runs.run_folder import RunFolder
from mm_keras.sweep.sweep_file import Range, Search, Setting, Sweep, SweepError
from mm_keras.sweep.trials import Trial, failure, make_trials, read_setting, run_trials
from mm_keras.training.checkpoint import prune
from tfrecords_tools.dataset.atomic_file import atomic_file, write_text
from tfrecords_tools.progress import progress_bar

STUDY = "search.db"
_NEVER_PRUNED = 5  # trainings
_NEVER_PRUNED_EPOCHS = 1


class _Search:
    """One call of `search`: the trainings that are running, and the study that their results are told to."""

    def __init__(self, sweep: Sweep, workdir: Path, study, states, bar):
        self._sweep = sweep
        self._workdir = workdir
        self._study = study
        self._states = states
        self._bar = bar
        self._asked: dict[Trial, object] = {}  # running trainings -> the trials of Optuna
        self._reported: dict[Trial, int] = {}  # running trainings -> the last epoch that Optuna knows of
        self._pruned: set[Trial] = set()
        self.failed: list[tuple[Trial, str]] = []

    def draw(self) -> Iterator[Trial]:
        """Yields the trainings to run, until as many are finished or running as the sweep file asks for."""
        while _num_done(self._study, self._states) + len(self.failed) + len(self._asked) < self._sweep.search.trials:
            optuna_trial = self._study.ask()
            setting = self._sweep.search.setting(self._sweep, _values(optuna_trial, self._sweep.search))
            (trial,) = make_trials(self._sweep, setting, self._workdir, train_only=True)
            optuna_trial.set_user_attr("folder", str(trial.folder.relative_to(self._workdir)))
            twin = any(other.folder == trial.folder for other in self._asked)
            self._asked[trial] = optuna_trial
            if twin:
                self._tell(trial, "is being trained already", state=self._states.PRUNED)
            elif trial.finished:
                self.ended(trial, 0)
            else:
                yield trial

    def go_on(self, trial: Trial) -> bool:
        """Whether the training should go on: it is as good as others were at its epoch."""
        self._report(trial)
        if self._reported.get(trial) and self._asked[trial].should_prune():
            self._pruned.add(trial)
        return trial not in self._pruned

    def _report(self, trial: Trial) -> None:
        for epoch, value in _followed(trial):
            if epoch > self._reported.get(trial, 0):
                self._asked[trial].report(value, epoch - 1)
                self._reported[trial] = epoch

    def ended(self, trial: Trial, status: int) -> None:
        self._report(trial)
        values = [value for _, value in _followed(trial)]
        if status == 0 and not values:
            reason = "it followed no metric from epoch to epoch; a head that is solved has none: bind train.solver = 'gradient'"
            self.failed.append((trial, reason))
            self._tell(trial, f"failed: {reason}", state=self._states.FAIL)
        elif status == 0:
            trial.finish()
            best = max(values)
            self._tell(trial, f"{RunFolder(trial.folder).facts()['followed']} {best:.4f}", values=best)
        elif trial in self._pruned:
            prune(RunFolder(trial.folder).checkpoints, kept=0)
            self._tell(trial, f"ended early, after epoch {self._reported[trial]}", state=self._states.PRUNED)
        else:
            self.failed.append((trial, failure(trial, status)))
            self._tell(trial, f"failed: {self.failed[-1][1]}, see {trial.log}", state=self._states.FAIL)

    def _tell(self, trial: Trial, text: str, **result) -> None:
        self._study.tell(self._asked.pop(trial), **result)
        self._bar.write(f"{trial.setting.name}: {text}", file=sys.stdout)
        sys.stdout.flush()
        self._bar.update()


def search(sweep: Sweep, workdir: Path, workers: int) -> list[tuple[Trial, str]]:
    """Tries as many settings as the sweep file asks for; writes table.md, table.csv and best.gin.

    Trainings that an earlier call left unfinished are resumed. For each training that failed, another setting is tried.

    Returns:
        the trainings that failed, each with the reason.

    Raises:
        ImportError: if Optuna is not installed; the message says how to install it.
        SweepError: if the file is wrong, or the folder holds another search than that of the file.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError(f"a search needs Optuna: pip install 'mm_keras[tune]' ({error})") from error

    checksum = _check(sweep, workdir)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    states = optuna.trial.TrialState
    storage = optuna.storages.RDBStorage(f"sqlite:///{(workdir / STUDY).absolute()}")
    study = optuna.create_study(storage=storage, study_name="search", direction="maximize", load_if_exists=True)
    try:
        if study.user_attrs.setdefault("checksum", checksum) != checksum:
            raise SweepError(
                f"{workdir} holds a search with another config, other bindings or other ranges than {sweep.path} (it is "
                f"{workdir / 'sweep.toml'}); choose another --workdir"
            )
        study.set_user_attr("checksum", checksum)
        # With a constant seed, a search that is continued would draw the settings of its beginning once more.
        study.sampler = optuna.samplers.TPESampler(seed=len(study.get_trials(deepcopy=False)))
        study.pruner = optuna.pruners.MedianPruner(_NEVER_PRUNED, _NEVER_PRUNED_EPOCHS)
        shutil.copyfile(sweep.path, workdir / "sweep.toml")
        for interrupted in study.get_trials(deepcopy=False, states=[states.RUNNING]):
            study.tell(interrupted.number, state=states.FAIL)
            study.enqueue_trial(interrupted.params)  # the same setting has the same folder
        done = _num_done(study, states)
        logging.info(f"search for {len(sweep.search.space)} parameters: {done} of {sweep.search.trials} trainings are there")
        with progress_bar("trainings", "trainings", max(0, sweep.search.trials - done)) as bar:
            trainings = _Search(sweep, workdir, study, states, bar)
            run_trials(trainings.draw(), workers, trainings.ended, trainings.go_on)
        _write_results(sweep, workdir, study.get_trials(deepcopy=False, states=[states.COMPLETE, states.PRUNED]))
    finally:
        storage.engine.dispose()
    return trainings.failed


def _num_done(study, states) -> int:
    return len(study.get_trials(deepcopy=False, states=[states.COMPLETE, states.PRUNED]))


def _check(sweep: Sweep, workdir: Path) -> str:
    """Reads the config with each choice and the lower end of each range; returns a checksum of all that defines the search."""
    first = {key: space.low if isinstance(space, Range) else space[0] for key, space in sweep.search.space.items()}
    for key, space in sweep.search.space.items():
        for choice in () if isinstance(space, Range) else space[1:]:
            make_trials(sweep, sweep.search.setting(sweep, first | {key: choice}), workdir, train_only=True)
    make_trials(sweep, sweep.search.setting(sweep, first), workdir, train_only=True)
    values = read_setting(sweep, sweep.search.setting(sweep, first))
    return hashlib.sha256(f"{sorted(values.items())}{sorted(sweep.search.space.items())}".encode()).hexdigest()


def _values(optuna_trial, search: Search) -> dict[str, object]:
    values = {}
    for key, space in search.space.items():
        if not isinstance(space, Range):
            values[key] = optuna_trial.suggest_categorical(key, space)
        elif type(space.low) is type(space.high) is int:
            values[key] = optuna_trial.suggest_int(key, space.low, space.high, log=space.log)
        else:
            values[key] = optuna_trial.suggest_float(key, space.low, space.high, log=space.log)
    return values


def _followed(trial: Trial) -> list[tuple[int, float]]:
    """(epoch, value) pairs of the finished epochs, counted from 1, with the values of the metric that is followed."""
    run = RunFolder(trial.folder)
    if not (run.metrics.is_file() and run.setup.is_file()):  # the setup file is written before the first step
        return []
    name = run.facts()["followed"]
    lines = run.metrics.read_text("utf-8").splitlines(keepends=True)
    epochs = [json.loads(line) for line in lines if line.endswith("\n")]  # the last line may not be complete yet
    return [(epoch["epoch"], epoch[name]) for epoch in epochs if epoch[name] is not None]


def _write_results(sweep: Sweep, workdir: Path, tried: list) -> None:
    """Writes a table with a row for each setting, the best one first, and the best one as a config."""
    rows = []
    for optuna_trial in tried:
        folder = workdir / optuna_trial.user_attrs["folder"]
        setting = sweep.search.setting(sweep, optuna_trial.params)
        run = RunFolder(folder)
        trial = Trial(setting, 0, folder, train_only=True)
        values = _followed(trial)
        if not values:
            continue
        epoch, best = max(values, key=lambda value: value[1])
        facts = run.facts()
        row = setting.shown | {facts["followed"]: best, "in epoch": epoch, "of": len(values)}
        seconds = facts.get("seconds", {}).get("total", "")
        rows.append(
            (best, setting, row | {"training s": seconds, "parameters": facts["parameters"], "folder": folder.parent.name})
        )
    rows.sort(key=lambda row: -row[0])
    if not rows:
        return
    columns = list(rows[0][2])
    cells = [[f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()] for *_, row in rows]
    table = markdown_table([columns, *cells])
    write_text(workdir / "table.md", table + "\n")
    with atomic_file(workdir / "table.csv") as path, open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(row for *_, row in rows)
    best, setting, row = rows[0]
    write_text(workdir / "best.gin", _best_config(sweep, setting, f"{columns[len(setting.shown)]} {best:.4f}", len(rows)))
    logging.info(f"\n{table}\n\nthe best one as a config: {workdir / 'best.gin'}")


def _best_config(sweep: Sweep, setting: Setting, measured: str, num_tried: int) -> str:
    config = find_config(sweep.configs[0]).absolute()
    lines = [f"# The best of {num_tried} settings of {sweep.path.name}: {measured}.", "", f'include "{config}"', ""]
    return "\n".join([*lines, *setting.bindings, ""])
