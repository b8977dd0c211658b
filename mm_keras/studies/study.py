"""What a study is made of, and how its steps are listed and run: in order, each an ordinary command, and resumable."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from absl import logging

from mm_keras.runs.run_folder import RunFolder
from tfrecords_tools.dataset.atomic_file import write_text

LEDGER_FILE = "study.json"
RESULTS_FILE = "results.md"
Command = tuple[str, ...]
_OF_ONE = re.compile(r"(?P<name>[\w.-]+):\s*(?P<line>.+)")  # no gin line has a colon before its "="


class StudyError(ValueError):
    """A study that cannot be run as asked: an unknown step or data, data that is missing, or a step that failed."""


@dataclasses.dataclass(frozen=True)
class Need:
    """Something that a study's steps need and that this project does not bring.

    Attributes:
        name: what `--data NAME=PATH` calls it.
        what: what it is, and in which form.
        where: where it is to be had.
        default: the value where none is given; "" if it must be given.
    """

    name: str
    what: str
    where: str
    default: str = ""


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a study.

    Attributes:
        name: what lists and `--only` call it.
        what: what it does, in a few words.
        commands: what is typed for it, in order, each as a list of arguments: ("mm-keras", "evaluate", "runs/image").
        makes: files that are there once it is done.
        needs: the names of what it needs.
        after: the names of steps that must be done before.
    """

    name: str
    what: str
    commands: tuple[Command, ...]
    makes: tuple[Path, ...]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a study's steps are made with.

    Attributes:
        workdir: the folder of the study.
        data: maps names of `Need`s to the given paths or names.
        miniature: whether everything runs on drawn data, in small.
        bindings: further gin lines of all trainings; "NAME: line" is one of the training into the folder of that name alone.
    """

    workdir: Path
    data: Mapping[str, str] = dataclasses.field(default_factory=dict)
    miniature: bool = False
    bindings: tuple[str, ...] = ()

    def path_of(self, need: Need) -> str:
        """What was given for a need, its default, or a mark that stands for it in listed commands."""
        return self.data.get(need.name) or need.default or f"<{need.name}>"

    def bindings_of(self, name: str) -> list[str]:
        """The further gin lines of the training into the folder of that name."""
        matches = (_OF_ONE.fullmatch(line) for line in self.bindings)
        pairs = zip(self.bindings, matches, strict=True)
        return [match["line"] if match else line for line, match in pairs if not match or match["name"] == name]

    def train(self, config: str, workdir: Path, *lines: str) -> Command:
        """The command that trains a config into a folder, or goes on with the training that is there."""
        sets = (f"--set={line}" for line in (*lines, *self.bindings_of(workdir.name)))
        return ("mm-keras", "train", config, f"--workdir={workdir}", *sets, "--resume")


@dataclasses.dataclass(frozen=True)
class Study:
    """A study with its steps.

    Attributes:
        name: what the command line calls it.
        title: the paper's title.
        needs: what it needs, for all steps together.
        steps: what is done, in order.
        results: `() -> text`, the study's table of results, as far as there are any.
    """

    name: str
    title: str
    needs: tuple[Need, ...]
    steps: tuple[Step, ...]
    results: Callable[[], str]


def evaluated(run: Path) -> Path:
    """The file that is there once a run is trained and evaluated."""
    return RunFolder(run).report / "evaluation.json"


def check_data(study: Study, data: Mapping[str, str]) -> None:
    """Raises StudyError for data that the study does not know."""
    known = [need.name for need in study.needs]
    unknown = [name for name in data if name not in known]
    if unknown:
        raise StudyError(f"study {study.name} needs {', '.join(known)}. Received: --data {unknown[0]}={data[unknown[0]]}")


def list_steps(study: Study, settings: Settings) -> str:
    """The steps with their commands, what they need and which are done, as text for people."""
    ledger = _read(settings.workdir)
    lines = [f"{study.name}: {study.title}", ""]
    if not settings.miniature:
        lines.append("needs (--data NAME=PATH):")
        for need in study.needs:
            value = settings.data.get(need.name) or (f"{need.default} (default)" if need.default else "not given")
            lines += [f"  {need.name}: {value}", f"      {need.what}", f"      from {need.where}"]
        lines.append("")
    lines.append(f"steps, in {settings.workdir}:")
    for step in study.steps:
        mark = "done" if _is_done(step, ledger) else "    "
        lines.append(f"  [{mark}] {step.name}: {step.what}{_told_needs(step, study, settings)}")
        lines += [f"           {shlex.join(command)}" for command in step.commands]
    return "\n".join(lines)


def run_steps(study: Study, settings: Settings, call: Callable[[Command], int], only: Sequence[str] = ()) -> int:
    """Runs those steps that are not done and can be, in order.

    A step that lacks its data, or a step that must be done before it, is left out and named. What was done is kept in
    study.json: the same call goes on where the last one stopped, and does a step anew if its commands have changed.

    Args:
        study: the study.
        settings: those that its steps were made with.
        call: runs one command and returns its exit status.
        only: the names of the steps to run; none: all.

    Returns:
        0, or the status with which a command was asked to end.

    Raises:
        StudyError: for an unknown step, if a command fails, or if there was nothing that could be done.
    """
    unknown = [name for name in only if name not in {step.name for step in study.steps}]
    if unknown:
        raise StudyError(f"steps of {study.name} are {', '.join(step.name for step in study.steps)}. Received: {unknown[0]!r}")
    ledger, left_out, useful = _read(settings.workdir), [], False
    for step in study.steps:
        if only and step.name not in only:
            continue
        if _is_done(step, ledger):
            logging.info(f"[{step.name}] is done")
            useful = True
            continue
        lacking = [*_lacking(step, study, settings), *_before(step, study, ledger)]
        if lacking:
            left_out.append(f"{step.name} lacks {', '.join(lacking)}")
            continue
        logging.info(f"\n[{step.name}] {step.what}")
        began = time.monotonic()
        for command in step.commands:
            logging.info(f"$ {shlex.join(command)}")
            status = call(command)
            if status in (75, 130):  # asked to end, or interrupted: the command has said so
                return status
            if status:
                raise StudyError(
                    f"step {step.name} ended with status {status}; once it is mended, the same command goes on with it"
                )
        absent = [str(path) for path in step.makes if not path.exists()]
        if absent:
            raise StudyError(f"step {step.name} ran, and {absent[0]} is not there")
        ledger[step.name] = {"commands": step.commands, "seconds": round(time.monotonic() - began, 1)}
        settings.workdir.mkdir(parents=True, exist_ok=True)
        write_text(settings.workdir / LEDGER_FILE, json.dumps(ledger, indent=2) + "\n")
        useful = True
    for line in left_out:
        logging.info(f"left out: {line}")
    if not useful:
        raise StudyError(f"no step of {study.name} could be run; give its data (--data NAME=PATH), or try --miniature")
    results = study.results()
    if results:
        write_text(settings.workdir / RESULTS_FILE, results + "\n")
        logging.info(f"\n{results}")
    return 0


def pointed(value: float | None) -> str:
    """A fraction in percent, as the papers' tables have it; "" for none."""
    return "" if value is None else f"{100 * value:.2f}"


def _read(workdir: Path) -> dict[str, dict]:
    path = workdir / LEDGER_FILE
    if not path.is_file():
        return {}
    ledger = json.loads(path.read_text("utf-8"))
    return {name: {**entry, "commands": tuple(map(tuple, entry["commands"]))} for name, entry in ledger.items()}


def _is_done(step: Step, ledger: Mapping[str, dict]) -> bool:
    entry = ledger.get(step.name)
    return bool(entry) and entry["commands"] == step.commands and all(path.exists() for path in step.makes)


def _lacking(step: Step, study: Study, settings: Settings) -> Iterable[str]:
    """The data that a step needs and that is not given."""
    needs = {need.name: need for need in study.needs}
    return [] if settings.miniature else [n for n in step.needs if not (settings.data.get(n) or needs[n].default)]


def _before(step: Step, study: Study, ledger: Mapping[str, dict]) -> Iterable[str]:
    """The steps that must be done before this one and are not."""
    return [f"step {other.name}" for other in study.steps if other.name in step.after and not _is_done(other, ledger)]


def _told_needs(step: Step, study: Study, settings: Settings) -> str:
    lacking = _lacking(step, study, settings)
    return f" (lacks {', '.join(lacking)})" if lacking else ""
