"""The trainings of a sweep, each in a process and a run folder of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mm_keras.config.load import find_config, load_config
from mm_keras.distribution.preemption import end_if_asked
from mm_keras.sweep.sweep_file import Setting, Sweep, SweepError
from tfrecords_tools.dataset.atomic_file import write_text

TRIALS = "trials"
_FINISHED = "trial.json"
_GRACE = 60  # seconds that trainings have to save and end in
_POLL = 0.2  # seconds
_NAME_LENGTH = 80
_LAST_LINE = 300  # characters


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """One training of a sweep.

    Attributes:
        setting: the setting that is trained.
        seed: the value of train.seed.
        folder: the run folder.
        train_only: whether the training ends without an evaluation. A search never looks at the test split.
    """

    setting: Setting
    seed: int
    folder: Path
    train_only: bool

    @property
    def name(self) -> str:
        return f"{self.setting.name}, seed {self.seed}"

    @property
    def log(self) -> Path:
        return self.folder / "trial.log"

    @property
    def finished(self) -> bool:
        return (self.folder / _FINISHED).is_file()

    def finish(self) -> None:
        facts = dataclasses.asdict(self.setting) | {"seed": self.seed, "train_only": self.train_only}
        write_text(self.folder / _FINISHED, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")

    def command(self) -> list[str]:
        bindings = [*self.setting.bindings, f"train.seed = {self.seed}"]
        return [
            *(sys.executable, "-m", "mm_keras.cli.main", "train", str(find_config(self.setting.config))),
            *(f"--set={line}" for line in bindings),
            *(f"--workdir={self.folder}", "--resume"),
            *(["--train_only"] if self.train_only else []),
        ]


def make_trials(sweep: Sweep, setting: Setting, workdir: Path, train_only: bool) -> list[Trial]:
    """The trainings of a setting, one for each seed.

    The setting's config is read here, so that an error in it is found before anything is trained. The name of the run folder
    contains a checksum of all bindings, so the results of other bindings are never taken for those of this setting.

    Raises:
        SweepError: if the config is wrong, or if it leaves nothing to measure.
    """
    values = read_setting(sweep, setting)
    if train_only and values.get("train.val_split", "val") is None:
        raise SweepError(f"{sweep.path}: a search measures on train.val_split, and that is None; bind a split of the dataset")
    if not train_only and values.get("train_and_evaluate.evaluate", "") is None:
        raise SweepError(f"{sweep.path}, {setting.name}: train_and_evaluate.evaluate is None, so there is nothing to compare")
    readable = re.sub(r"[^\w.=+-]+", "_", setting.name)[:_NAME_LENGTH].strip("_.")
    checksum = hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:8]
    folder = workdir / TRIALS / f"{readable}-{checksum}"
    return [Trial(setting, seed, folder / f"seed-{seed}", train_only) for seed in range(sweep.repeats)]


def read_setting(sweep: Sweep, setting: Setting) -> Mapping[str, object]:
    """What a setting binds, by "function.parameter".

    Raises:
        SweepError: if its config cannot run.
    """
    try:
        return load_config(find_config(setting.config), setting.bindings).bound
    except ValueError as error:
        raise SweepError(f"{sweep.path}, {setting.name}: {error}") from error


def run_trials(
    trials: Iterator[Trial],
    workers: int,
    ended: Callable[[Trial, int], None],
    go_on: Callable[[Trial], bool] = lambda trial: True,
) -> None:
    """Runs each trial as a process, `workers` at a time. What a trial prints goes into its log.

    If this process is asked to end or interrupted, the trials are asked to end, too, and save what they have done.

    Args:
        trials: the trials to run; the next one is drawn when a worker is free.
        workers: how many trials run at a time, at least 1. If CUDA_VISIBLE_DEVICES names several GPUs and there are several
            workers, each worker uses one of them.
        ended: called as `ended(trial, exit_status)` after each trial.
        go_on: called as `go_on(trial)` again and again while a trial runs; if it returns False, the trial is ended.
    """
    running: dict[Trial, subprocess.Popen] = {}
    slots: dict[Trial, int] = {}
    ending: set[Trial] = set()
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    try:
        while True:
            while len(running) < workers and (trial := next(trials, None)) is not None:
                slots[trial] = min(set(range(workers)) - {slots[other] for other in running})
                device = devices[slots[trial] % len(devices)]
                environment = os.environ | ({"CUDA_VISIBLE_DEVICES": device} if len(devices) > 1 and workers > 1 else {})
                running[trial] = _start(trial, environment)
            if not running:
                return
            time.sleep(_POLL)
            end_if_asked()
            for trial, process in list(running.items()):
                if process.poll() is not None:
                    del running[trial]
                    ended(trial, process.returncode)
                elif trial not in ending and not go_on(trial):
                    ending.add(trial)
                    process.terminate()
    finally:
        _end(list(running.values()))


def _start(trial: Trial, environment: dict[str, str]) -> subprocess.Popen:
    trial.folder.mkdir(parents=True, exist_ok=True)
    with open(trial.log, "ab") as log:
        # In a process group of its own a trial does not see Ctrl-C; `_end` asks it to save. It inherits the lock of the sweep.
        return subprocess.Popen(
            trial.command(), env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, process_group=0, close_fds=False
        )


def _end(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _GRACE
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def failure(trial: Trial, status: int) -> str:
    """Why a trial ended with an exit status other than 0, with the last line that it printed."""
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    lines = [line for line in trial.log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return f"exit status {status}" + (f", {lines[-1].strip()[:_LAST_LINE]!r}" if lines else "")


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Locks the folder for one sweep. Trials that outlive a killed sweep hold the lock until they end.

    Raises:
        FileExistsError: if another sweep, or one of its trials, holds the lock.
    """
    import fcntl

    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / ".lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FileExistsError(
                f"another sweep is at work in {workdir}, or a training that it left behind; wait for it, or choose another "
                "--workdir"
            ) from error
        os.set_inheritable(file.fileno(), True)
        yield


def not_listed(workdir: Path, trials: list[Trial]) -> list[Path]:
    """The run folders of trials whose settings the sweep no longer lists."""
    listed = {trial.folder for trial in trials}
    return sorted(folder for folder in (workdir / TRIALS).glob("*/seed-*") if folder not in listed)
