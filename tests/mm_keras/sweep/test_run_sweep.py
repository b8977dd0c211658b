import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mm_keras.cli.main import main
from mm_keras.config.parse import CONFIG_FOLDER
from mm_keras.distribution.preemption import Preempted, noticing_sigterm
from mm_keras.runs.run_folder import RunFolder
from mm_keras.sweep.results import draw_box_plots, read_result, write_table
from mm_keras.sweep.run_sweep import TrialsFailed, run_sweep
from mm_keras.sweep.sweep_file import Setting, SweepError, find_sweep, read_sweep
from mm_keras.sweep.trials import locked, read_setting


@pytest.fixture
def sweep(stand_in):
    """The folder, in which sweep.toml lists two settings with two seeds."""
    (stand_in / "sweep.toml").write_text(
        'config = "quickstart.gin"\nrepeats = 2\n[sweep]\ntrain.batch_size = [16, 32]\n', "utf-8"
    )
    return stand_in


def _calls(workdir):
    return {path.parent.relative_to(workdir / "trials"): path.read_text().splitlines() for path in workdir.rglob("calls")}


def _rows(workdir):
    return list(csv.DictReader((workdir / "table.csv").read_text().splitlines()))


def test_each_setting_is_trained_with_each_seed_and_compared(sweep, capsys):
    workdir = run_sweep(sweep / "sweep.toml", sweep / "runs", workers=2)
    calls = [line for lines in _calls(workdir).values() for line in lines]
    assert len(calls) == 4
    assert all(line.startswith("train ") and "--train_only" not in line for line in calls)
    assert all("--resume" in line for line in calls)
    table = (workdir / "table.md").read_text().splitlines()
    assert [cell.strip() for cell in table[2].strip("|").split("|")] == [
        *("16", "2", "0.210 ± 0.071", "0.210 ± 0.071", "0.250 ± 0.000", "10.5 ± 0.7", "2.00 ± 0.00", "0.00", "1,000")
    ]
    assert "top_1 image alone" in table[0]
    rows = _rows(workdir)
    assert [row["batch_size"] for row in rows] == ["16", "32"]
    assert [float(row["top_1"]) for row in rows] == pytest.approx([0.21, 0.37])
    assert float(rows[0]["top_1 std"]) == pytest.approx(0.0707, abs=1e-3)
    assert (workdir / "box_plots.png").read_bytes().startswith(b"\x89PNG")
    assert "batch_size=32, seed 1: top_1 0.420 in" in capsys.readouterr().out


def test_finished_trainings_are_not_done_again(sweep, capsys):
    workdir = run_sweep(sweep / "sweep.toml", sweep / "runs")
    before = (workdir / "table.csv").read_text()
    run_sweep(sweep / "sweep.toml", workdir)
    assert all(len(lines) == 1 for lines in _calls(workdir).values())
    assert (workdir / "table.csv").read_text() == before
    assert "4 of 4 trainings are there" in capsys.readouterr().out


def test_failed_trainings_are_named_and_tried_again_and_the_others_go_on(sweep):
    (sweep / "runs").mkdir()
    (sweep / "runs" / "broken").write_text("32")
    with pytest.raises(
        TrialsFailed, match=r"2 trainings failed.*\n.*batch_size=32, seed 0: exit status 1, 'out of memory'"
    ) as e:
        run_sweep(sweep / "sweep.toml", sweep / "runs")
    log = Path(str(e.value).splitlines()[1].rpartition(", see ")[2])
    assert log.read_text() == "out of memory\n"
    assert [row["n"] for row in _rows(sweep / "runs")] == ["2"]
    (sweep / "runs" / "broken").unlink()
    run_sweep(sweep / "sweep.toml", sweep / "runs")
    assert sorted(len(lines) for lines in _calls(sweep / "runs").values()) == [1, 1, 2, 2]
    assert [row["n"] for row in _rows(sweep / "runs")] == ["2", "2"]


def test_changed_sweep_adds_trainings_and_deletes_none(sweep, capsys):
    workdir = run_sweep(sweep / "sweep.toml", sweep / "runs")
    (sweep / "sweep.toml").write_text('config = "quickstart.gin"\n[sweep]\ntrain.batch_size = [16, 64]\n')
    run_sweep(sweep / "sweep.toml", workdir)
    out = capsys.readouterr().out
    assert out.count("is of no setting in") == 3  # the second seed of 16, both of 32
    calls = _calls(workdir)
    assert len(calls) == 5
    assert all(len(lines) == 1 for lines in calls.values())
    assert [row["batch_size"] for row in _rows(workdir)] == ["16", "64"]


@pytest.mark.ci
def test_other_bindings_are_other_trainings(sweep):
    workdir = run_sweep(sweep / "sweep.toml", sweep / "runs")
    given = (sweep / "sweep.toml").read_text()
    (sweep / "sweep.toml").write_text('bindings = ["train.epochs = 2"]\n' + given)
    run_sweep(sweep / "sweep.toml", workdir)
    assert len(_calls(workdir)) == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('config = "quickstart.gin"\n[sweep]\ntrain.batchsize = [1]', r"batchsize=1: .*\n.*no parameter 'batchsize'"),
        ('config = "quikstart.gin"', "did you mean quickstart.gin"),
        ('config = "quickstart.gin"\nbindings = ["train_and_evaluate.evaluate = None"]', "nothing to compare"),
        (
            'config = "quickstart.gin"\n[variants]\na = ["train.epochs = 3"]\nb = ["train.epochs=3"]',
            "'variant=b' bind the same",
        ),
    ],
)
def test_wrong_setting_is_found_before_anything_is_trained(sweep, text, message):
    (sweep / "sweep.toml").write_text(text)
    with pytest.raises(SweepError, match=message):
        run_sweep(sweep / "sweep.toml", sweep / "runs")
    assert not list(sweep.rglob("calls"))


def test_two_sweeps_do_not_share_a_folder(sweep):
    with locked(sweep / "runs"), pytest.raises(FileExistsError, match="another sweep is at work in"):
        run_sweep(sweep / "sweep.toml", sweep / "runs")
    run_sweep(sweep / "sweep.toml", sweep / "runs")


def test_training_that_a_killed_sweep_left_behind_keeps_the_folder_locked(tmp_path):
    with locked(tmp_path):
        left_behind = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        with pytest.raises(FileExistsError, match="or a training that it left behind"), locked(tmp_path):
            pass
    finally:
        left_behind.communicate(b"\n")
    with locked(tmp_path):
        pass


@pytest.mark.parametrize(("number", "stop"), [(signal.SIGTERM, Preempted), (signal.SIGINT, KeyboardInterrupt)])
def test_sweep_that_is_asked_to_end_ends_its_trainings(sweep, number, stop):
    runs = sweep / "runs"
    runs.mkdir()
    (runs / "hold").touch()

    def end_when_begun():
        while len(_calls(runs)) < 2:
            threading.Event().wait(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=end_when_begun, daemon=True).start()
    with pytest.raises(stop), noticing_sigterm():
        run_sweep(sweep / "sweep.toml", runs, workers=2)
    (runs / "hold").unlink()
    assert not (runs / "table.md").exists()
    run_sweep(sweep / "sweep.toml", runs, workers=2)
    assert sorted(len(lines) for lines in _calls(runs).values()) == [1, 1, 2, 2]


def test_each_of_several_workers_has_a_gpu_of_its_own(sweep, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    run_sweep(sweep / "sweep.toml", sweep / "runs", workers=2)
    assert {path.read_text() for path in (sweep / "runs").rglob("devices")} == {"4", "7"}


def test_workers_are_counted_from_one(sweep):
    with pytest.raises(SweepError, match=r"--workers is how many trainings run at a time, at least 1\. Received: 0"):
        run_sweep(sweep / "sweep.toml", sweep / "runs", workers=0)


def test_settings_with_other_inputs_leave_cells_empty(tmp_path):
    costs = {"training s": 1.0, "evaluation s": 1.0, "MB": 1.0, "parameters": 5}
    both, image = Setting({"modalities": "both"}, "a.gin", ()), Setting({"modalities": "image"}, "a.gin", ())
    results = [(both, [{"top_1": 0.5, "top_1 image": 0.4} | costs]), (image, [{"top_1": 0.3} | costs])]
    lines = write_table(tmp_path, results).splitlines()
    assert [cell.strip() for cell in lines[-1].strip("|").split("|")] == ["image", "1", "0.300", "", "1.0", "1.00", "1.00", "5"]
    draw_box_plots(tmp_path / "plots.png", results)


@pytest.mark.parametrize(
    "rates", [pytest.param([1e-3], marks=pytest.mark.ci), pytest.param([1e-3, 1e-2], marks=pytest.mark.slow)]
)
def test_command_sweeps_for_real(tiny_config, rates, monkeypatch, call):
    monkeypatch.chdir(tiny_config.parent)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    Path("sweep.toml").write_text(f'config = "tiny.gin"\n[sweep]\nmake_optimizer.learning_rate = {rates}\n')
    status, out, err = call(main, "sweep", "sweep.toml", "--workers=2")
    assert status == 0, out + err
    folders = sorted(Path("runs", "sweep", "trials").glob("*/seed-0"))
    assert [folder.parent.name.rpartition("-")[0] for folder in folders] == [f"learning_rate={rate}" for rate in rates]
    for folder in folders:
        result = read_result(folder)
        model, _ = RunFolder(folder).load_model()
        assert result["parameters"] == model.count_params()
        assert result["MB"] == pytest.approx(4 * model.count_params() / 1e6, rel=0.01)
        assert (result["training s"] > 0, result["evaluation s"] > 0) == (True, True)
        report = json.loads((folder / "report" / "evaluation.json").read_text())
        assert result["top_1"] == report["rows"][-1]["top_1"]
        assert not (folder / "export").exists()
    assert "| learning_rate | n | top_1" in out


def test_bindings_and_repeats_of_the_call_are_those_of_all_trainings(sweep):
    workdir = run_sweep(sweep / "sweep.toml", sweep / "runs", bindings=["train.epochs = 2"], repeats=1)
    (calls,) = {tuple(line.split("--set=train.epochs = ")[1][0] for line in lines) for lines in _calls(workdir).values()}
    assert calls == ("2",)
    assert [row["n"] for row in _rows(workdir)] == ["1", "1"]
    with pytest.raises(SweepError, match="--repeats is how many trainings"):
        run_sweep(sweep / "sweep.toml", sweep / "runs", repeats=0)


@pytest.mark.parametrize("path", sorted((CONFIG_FOLDER / "sweeps").glob("*.toml")), ids=lambda path: path.stem)
def test_sweeps_that_are_shipped_can_be_read_with_their_data(path):
    sweep = read_sweep(find_sweep(path.name))
    data = ["TABLE = 't.csv'", "CAPTION = 'c'", "LABELS = 'l'", "DATASET = 'd'"]
    data += ["IMAGE = 'i'", "IMAGE_WEIGHTS = None"] if "image" in path.stem else []
    sweep = dataclasses.replace(sweep, bindings=(*sweep.bindings, *data))
    settings = list(sweep.settings())
    assert len(settings) > 1
    assert len({repr(sorted(read_setting(sweep, setting).items())) for setting in settings}) == len(settings)
