import csv
import os
import signal
import sqlite3
import sys
import threading

import pytest

from mm_keras.config.load import load_config
from mm_keras.distribution.preemption import Preempted, raise_on_sigterm
from mm_keras.sweep.run_sweep import TrialsFailed, run_sweep
from mm_keras.sweep.sweep_file import SweepError
from mm_keras.sweep.trials import Trial

optuna = pytest.importorskip("optuna")

# Stands for a training of three epochs, whose metric is best at 32 examples a batch; it waits wherever it finds a file `hold`.
_STAND_IN = """
import json, pathlib, sys, time
arguments = dict(each.removeprefix("--").split("=", 1) for each in sys.argv[1:] if "=" in each and each.startswith("--workdir"))
bindings = [each.split("=", 1)[1] for each in sys.argv[1:] if each.startswith("--set")]
bound = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in bindings)}
folder = pathlib.Path(arguments["workdir"])
with open(folder / "calls", "a") as file:
    file.write(" ".join(sys.argv[1:]) + chr(10))
size = int(bound["train.batch_size"])
workdir = folder.parents[2]
if (workdir / "broken").exists():
    sys.exit("out of memory")
value = 1 - abs(size - 32) / 100
(folder / "checkpoints").mkdir(exist_ok=True)
(folder / "checkpoints" / "step-0000000001.safetensors").touch()
(folder / "metrics.jsonl").unlink(missing_ok=True)
facts = {"format_version": 1, "followed": "val_top_1", "parameters": 10, "seconds": {"total": 1.5}}
(folder / "run.json").write_text(json.dumps(facts))
(folder / "training.json").touch()
patience = time.time() + 20
for epoch in (1, 2, 3):
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"epoch": epoch, "top_1": 1.0, "val_top_1": value * epoch / 3}) + chr(10))
    holding = [workdir / "hold", *([workdir / "hold_large"] if size > 90 else [])]
    while epoch == 2 and time.time() < patience and any(path.exists() for path in holding):
        time.sleep(0.05)
"""

_SEARCH = """
config = "quickstart.gin"
[search]
trials = 6
train.batch_size = {low = 8, high = 64}
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    (tmp_path / "search.toml").write_text(_SEARCH, "utf-8")
    command = Trial.command
    monkeypatch.setattr(Trial, "command", lambda self: [sys.executable, "-c", _STAND_IN, *command(self)[3:]])
    return tmp_path


def _calls(workdir):
    return [line for path in workdir.rglob("calls") for line in path.read_text().splitlines()]


def _states(workdir):
    with sqlite3.connect(workdir / "search.db") as database:
        states = [state for (state,) in database.execute("select state from trials order by number")]
    database.close()
    return states


def test_search_finds_what_is_best_on_the_validation_split_and_never_evaluates(stand_in):
    workdir = run_sweep(stand_in / "search.toml", stand_in / "runs", workers=2)
    calls = _calls(workdir)
    assert 1 <= len(calls) <= 6
    assert all(
        line.startswith("train ") and "--train_only" in line and "--resume" in line and "train.seed = 0" in line
        for line in calls
    )
    rows = list(csv.DictReader((workdir / "table.csv").read_text().splitlines()))
    values = [float(row["val_top_1"]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(1 - abs(int(rows[0]["batch_size"]) - 32) / 100)
    best = (workdir / "best.gin").read_text()
    assert f"train.batch_size = {rows[0]['batch_size']}\n" in best
    load_config(workdir / "best.gin")


def test_search_goes_on_to_a_larger_number_of_trainings(stand_in, capsys):
    workdir = run_sweep(stand_in / "search.toml", stand_in / "runs")
    (stand_in / "search.toml").write_text(_SEARCH.replace("trials = 6", "trials = 9"))
    run_sweep(stand_in / "search.toml", workdir)
    assert "6 of 9 trainings are there" in capsys.readouterr().out
    assert len(_states(workdir)) == 9


def test_search_that_was_broken_off_goes_on_with_the_same_training(stand_in):
    runs = stand_in / "runs"
    runs.mkdir()
    (runs / "hold").touch()

    def end_when_begun():
        while not list(runs.rglob("metrics.jsonl")):
            threading.Event().wait(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_when_begun, daemon=True).start()
    with pytest.raises(Preempted), raise_on_sigterm():
        run_sweep(stand_in / "search.toml", runs)
    assert _states(runs) == ["RUNNING"]
    (begun,) = runs.rglob("calls")
    (runs / "hold").unlink()
    run_sweep(stand_in / "search.toml", runs)
    assert len(begun.read_text().splitlines()) == 2
    assert _states(runs) == ["FAIL", *["COMPLETE"] * 6]


def test_training_that_is_worse_than_the_others_is_ended_early(stand_in, capsys):
    class Large(optuna.samplers.TPESampler):
        def sample_independent(self, study, trial, name, distribution):
            return distribution.high

        def sample_relative(self, study, trial, space):
            return {}

    ranges = _SEARCH.replace("high = 64", "high = 100")
    (stand_in / "search.toml").write_text(ranges)
    workdir = run_sweep(stand_in / "search.toml", stand_in / "wide")
    (workdir / "hold_large").touch()  # the next one, far worse than all before, would wait for ever in its second epoch
    (stand_in / "search.toml").write_text(ranges.replace("trials = 6", "trials = 7"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optuna.samplers, "TPESampler", Large)
        run_sweep(stand_in / "search.toml", workdir)
    assert "batch_size=100: ended early, after epoch 2" in capsys.readouterr().out
    assert _states(workdir)[-1] == "PRUNED"
    (folder,) = (workdir / "trials").glob("batch_size=100-*/seed-0")
    assert not list((folder / "checkpoints").iterdir())


def test_failed_trainings_are_named_and_others_are_tried_later(stand_in):
    (stand_in / "runs").mkdir()
    (stand_in / "runs" / "broken").touch()
    with pytest.raises(TrialsFailed, match=r"6 trainings failed.*(\n.*exit status 1, 'out of memory', see .*trial\.log){6}"):
        run_sweep(stand_in / "search.toml", stand_in / "runs")
    (stand_in / "runs" / "broken").unlink()
    run_sweep(stand_in / "search.toml", stand_in / "runs")
    assert _states(stand_in / "runs") == ["FAIL"] * 6 + ["COMPLETE"] * 6


def test_search_of_something_else_is_refused(stand_in):
    run_sweep(stand_in / "search.toml", stand_in / "runs")
    for other in (_SEARCH.replace("64", "128"), 'bindings = ["train.epochs = 2"]' + _SEARCH):
        (stand_in / "search.toml").write_text(other)
        with pytest.raises(SweepError, match="holds a search with another config, other bindings or other ranges"):
            run_sweep(stand_in / "search.toml", stand_in / "runs")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('bindings = ["train.val_split = None"]', "a search measures on train.val_split, and that is None"),
        ('bindings = ["train.epoch = 1"]', "'epoch'"),
    ],
)
def test_search_that_can_not_be_measured_or_read_is_refused(stand_in, change, message):
    (stand_in / "search.toml").write_text(change + _SEARCH)
    with pytest.raises(SweepError, match=message):
        run_sweep(stand_in / "search.toml", stand_in / "runs")
    assert not _calls(stand_in)


def test_every_choice_is_read_before_anything_is_trained(stand_in):
    choices = '"build_two_tower.fusion" = ["@build_concatenation", "@build_mist"]'
    (stand_in / "search.toml").write_text(_SEARCH + choices)
    with pytest.raises(SweepError, match="fusion=build_mist"):
        run_sweep(stand_in / "search.toml", stand_in / "runs")
    assert not _calls(stand_in)


def test_without_optuna_it_says_how_to_get_it(stand_in, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"a search needs Optuna: pip install 'mm_keras\[tune\]'"):
        run_sweep(stand_in / "search.toml", stand_in / "runs")
