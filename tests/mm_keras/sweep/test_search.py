import csv
import os
import signal
import sqlite3
import sys
import threading

import pytest

from mm_keras.config.load import load_config
from mm_keras.distribution.preemption import Preempted, noticing_sigterm
from mm_keras.sweep.run_sweep import TrialsFailed, run_sweep
from mm_keras.sweep.sweep_file import SweepError

optuna = pytest.importorskip("optuna")

_SEARCH = """
config = "quickstart.gin"
[search]
trials = 6
train.batch_size = {low = 8, high = 64}
"""


@pytest.fixture
def search(stand_in):
    """The folder, in which search.toml searches a batch size by six trainings."""
    (stand_in / "search.toml").write_text(_SEARCH, "utf-8")
    return stand_in


def _calls(workdir):
    return [line for path in workdir.rglob("calls") for line in path.read_text().splitlines()]


def _states(workdir):
    with sqlite3.connect(workdir / "search.db") as database:
        states = [state for (state,) in database.execute("select state from trials order by number")]
    database.close()
    return states


def test_search_finds_what_is_best_on_the_validation_split_and_never_evaluates(search):
    workdir = run_sweep(search / "search.toml", search / "runs", workers=2)
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


def test_search_goes_on_to_a_larger_number_of_trainings(search, capsys):
    workdir = run_sweep(search / "search.toml", search / "runs")
    (search / "search.toml").write_text(_SEARCH.replace("trials = 6", "trials = 9"))
    run_sweep(search / "search.toml", workdir)
    assert "6 of 9 trainings are there" in capsys.readouterr().out
    assert len(_states(workdir)) == 9


def test_search_that_was_broken_off_goes_on_with_the_same_training(search):
    runs = search / "runs"
    runs.mkdir()
    (runs / "hold").touch()

    def end_when_begun():
        while not list(runs.rglob("metrics.jsonl")):
            threading.Event().wait(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_when_begun, daemon=True).start()
    with pytest.raises(Preempted), noticing_sigterm():
        run_sweep(search / "search.toml", runs)
    assert _states(runs) == ["RUNNING"]
    (begun,) = runs.rglob("calls")
    (runs / "hold").unlink()
    run_sweep(search / "search.toml", runs)
    assert len(begun.read_text().splitlines()) == 2
    assert _states(runs) == ["FAIL", *["COMPLETE"] * 6]


@pytest.mark.ci
def test_training_that_is_worse_than_the_others_is_ended_early(search, capsys):
    class Large(optuna.samplers.TPESampler):
        def sample_independent(self, study, trial, name, distribution):
            return distribution.high

        def sample_relative(self, study, trial, space):
            return {}

    ranges = _SEARCH.replace("high = 64", "high = 100")
    (search / "search.toml").write_text(ranges)
    workdir = run_sweep(search / "search.toml", search / "wide")
    (workdir / "hold_large").touch()  # the next one, far worse than all before, would wait for ever in its second epoch
    (search / "search.toml").write_text(ranges.replace("trials = 6", "trials = 7"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optuna.samplers, "TPESampler", Large)
        run_sweep(search / "search.toml", workdir)
    assert "batch_size=100: ended early, after epoch 2" in capsys.readouterr().out
    assert _states(workdir)[-1] == "PRUNED"
    (folder,) = (workdir / "trials").glob("batch_size=100-*/seed-0")
    assert not list((folder / "checkpoints").iterdir())


@pytest.mark.ci
def test_failed_trainings_are_named_and_others_are_tried_later(search):
    (search / "runs").mkdir()
    (search / "runs" / "broken").touch()
    with pytest.raises(TrialsFailed, match=r"6 trainings failed.*(\n.*exit status 1, 'out of memory', see .*trial\.log){6}"):
        run_sweep(search / "search.toml", search / "runs")
    (search / "runs" / "broken").unlink()
    run_sweep(search / "search.toml", search / "runs")
    assert _states(search / "runs") == ["FAIL"] * 6 + ["COMPLETE"] * 6


def test_search_of_something_else_is_refused(search):
    run_sweep(search / "search.toml", search / "runs")
    for other in (_SEARCH.replace("64", "128"), 'bindings = ["train.epochs = 2"]' + _SEARCH):
        (search / "search.toml").write_text(other)
        with pytest.raises(SweepError, match="holds a search with another config, other bindings or other ranges"):
            run_sweep(search / "search.toml", search / "runs")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('bindings = ["train.val_split = None"]', "a search measures on train.val_split, and that is None"),
        ('bindings = ["train.epoch = 1"]', "'epoch'"),
    ],
)
def test_search_that_can_not_be_measured_or_read_is_refused(search, change, message):
    (search / "search.toml").write_text(change + _SEARCH)
    with pytest.raises(SweepError, match=message):
        run_sweep(search / "search.toml", search / "runs")
    assert not _calls(search)


def test_every_choice_is_read_before_anything_is_trained(search):
    choices = '"build_two_tower.fusion" = ["@build_concatenation", "@build_mist"]'
    (search / "search.toml").write_text(_SEARCH + choices)
    with pytest.raises(SweepError, match="fusion=build_mist"):
        run_sweep(search / "search.toml", search / "runs")
    assert not _calls(search)


def test_without_optuna_it_says_how_to_get_it(search, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"a search needs Optuna: pip install 'mm_keras\[tune\]'"):
        run_sweep(search / "search.toml", search / "runs")


def test_trainings_without_epochs_are_no_search(search, capsys):
    workdir = search / "runs"
    workdir.mkdir()
    (workdir / "solved").touch()
    with pytest.raises(TrialsFailed):
        run_sweep(search / "search.toml", workdir)
    assert "a head that is solved has none: bind train.solver = 'gradient'" in capsys.readouterr().out
