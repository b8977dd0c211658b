import csv
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import mm_keras
from mm_keras.distribution.preemption import Preempted, raise_on_sigterm
from mm_keras.runs.run_folder import RunFolder
from mm_keras.sweep.results import draw_box_plots, read_result, write_table
from mm_keras.sweep.run_sweep import TrialsFailed, run_sweep
from mm_keras.sweep.sweep_file import Setting, SweepError
from mm_keras.sweep.trials import Trial, locked

REPOSITORY = Path(mm_keras.__file__).parent.parent

# Stands for a training: as many lines in `calls` as it was begun, and a report that depends on bindings and seed.
_STAND_IN = """
import json, os, pathlib, sys, time
arguments = dict(each.removeprefix("--").split("=", 1) for each in sys.argv[1:] if "=" in each and each.startswith("--workdir"))
bindings = [each.split("=", 1)[1] for each in sys.argv[1:] if each.startswith("--set")]
bound = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in bindings)}
folder = pathlib.Path(arguments["workdir"])
with open(folder / "calls", "a") as file:
    file.write(" ".join(sys.argv[1:]) + chr(10))
while (folder.parents[2] / "hold").exists():
    time.sleep(0.05)
if (folder.parents[2] / "broken").exists() and bound["train.batch_size"] == "32":
    sys.exit("out of memory")
seed, size = int(bound["train.seed"]), int(bound["train.batch_size"])
(folder / "report").mkdir(exist_ok=True)
rows = [{"inputs": name, "trained": "together", "top_1": size / 100 + seed / 10} for name in ("image", "all")]
rows.append({"inputs": "image", "trained": "alone", "top_1": 0.25})
(folder / "report" / "evaluation.json").write_text(json.dumps({"rows": rows, "seconds": 2.0}))
facts = {"format_version": 1, "seconds": {"total": 10.0 + seed}, "parameters": 1000, "weight_bytes": 4000}
(folder / "run.json").write_text(json.dumps(facts))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Trainings are stood in for; gives the folder, in which sweep.toml lists two settings with two seeds."""
    (tmp_path / "sweep.toml").write_text(
        'config = "quickstart.gin"\nrepeats = 2\n[sweep]\ntrain.batch_size = [16, 32]\n', "utf-8"
    )
    command = Trial.command
    monkeypatch.setattr(Trial, "command", lambda self: [sys.executable, "-c", _STAND_IN, *command(self)[3:]])
    return tmp_path


def _calls(workdir):
    return {path.parent.relative_to(workdir / "trials"): path.read_text().splitlines() for path in workdir.rglob("calls")}


def _rows(workdir):
    return list(csv.DictReader((workdir / "table.csv").read_text().splitlines()))


def test_each_setting_is_trained_with_each_seed_and_compared(stand_in, capsys):
    workdir = run_sweep(stand_in / "sweep.toml", stand_in / "runs", workers=2)
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


def test_finished_trainings_are_not_done_again(stand_in, capsys):
    workdir = run_sweep(stand_in / "sweep.toml", stand_in / "runs")
    before = (workdir / "table.csv").read_text()
    run_sweep(stand_in / "sweep.toml", workdir)
    assert all(len(lines) == 1 for lines in _calls(workdir).values())
    assert (workdir / "table.csv").read_text() == before
    assert "4 of 4 trainings are there" in capsys.readouterr().out


def test_failed_trainings_are_named_and_tried_again_and_the_others_go_on(stand_in):
    (stand_in / "runs").mkdir()
    (stand_in / "runs" / "broken").touch()
    with pytest.raises(
        TrialsFailed, match=r"2 trainings failed.*\n.*batch_size=32, seed 0: exit status 1, 'out of memory'"
    ) as e:
        run_sweep(stand_in / "sweep.toml", stand_in / "runs")
    log = Path(str(e.value).splitlines()[1].rpartition(", see ")[2])
    assert log.read_text() == "out of memory\n"
    assert [row["n"] for row in _rows(stand_in / "runs")] == ["2"]
    (stand_in / "runs" / "broken").unlink()
    run_sweep(stand_in / "sweep.toml", stand_in / "runs")
    assert sorted(len(lines) for lines in _calls(stand_in / "runs").values()) == [1, 1, 2, 2]
    assert [row["n"] for row in _rows(stand_in / "runs")] == ["2", "2"]


def test_changed_sweep_adds_trainings_and_deletes_none(stand_in, capsys):
    workdir = run_sweep(stand_in / "sweep.toml", stand_in / "runs")
    (stand_in / "sweep.toml").write_text('config = "quickstart.gin"\n[sweep]\ntrain.batch_size = [16, 64]\n')
    run_sweep(stand_in / "sweep.toml", workdir)
    out = capsys.readouterr().out
    assert out.count("is of no setting in") == 3  # the second seed of 16, both of 32
    calls = _calls(workdir)
    assert len(calls) == 5
    assert all(len(lines) == 1 for lines in calls.values())
    assert [row["batch_size"] for row in _rows(workdir)] == ["16", "64"]


def test_other_bindings_are_other_trainings(stand_in):
    workdir = run_sweep(stand_in / "sweep.toml", stand_in / "runs")
    given = (stand_in / "sweep.toml").read_text()
    (stand_in / "sweep.toml").write_text('bindings = ["train.epochs = 2"]\n' + given)
    run_sweep(stand_in / "sweep.toml", workdir)
    assert len(_calls(workdir)) == 8


@pytest.mark.parametrize(
    ("sweep", "message"),
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
def test_wrong_setting_is_found_before_anything_is_trained(stand_in, sweep, message):
    (stand_in / "sweep.toml").write_text(sweep)
    with pytest.raises(SweepError, match=message):
        run_sweep(stand_in / "sweep.toml", stand_in / "runs")
    assert not list(stand_in.rglob("calls"))


def test_two_sweeps_do_not_share_a_folder(stand_in):
    with locked(stand_in / "runs"), pytest.raises(FileExistsError, match="another sweep is at work in"):
        run_sweep(stand_in / "sweep.toml", stand_in / "runs")
    run_sweep(stand_in / "sweep.toml", stand_in / "runs")


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
def test_sweep_that_is_asked_to_end_ends_its_trainings(stand_in, number, stop):
    runs = stand_in / "runs"
    runs.mkdir()
    (runs / "hold").touch()

    def end_when_begun():
        while len(_calls(runs)) < 2:
            threading.Event().wait(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=end_when_begun, daemon=True).start()
    with pytest.raises(stop), raise_on_sigterm():
        run_sweep(stand_in / "sweep.toml", runs, workers=2)
    (runs / "hold").unlink()
    assert not (runs / "table.md").exists()
    run_sweep(stand_in / "sweep.toml", runs, workers=2)
    assert sorted(len(lines) for lines in _calls(runs).values()) == [1, 1, 2, 2]


def test_each_of_several_workers_has_a_gpu_of_its_own(stand_in, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    script = "import os, pathlib, sys\npathlib.Path('{}', os.environ['CUDA_VISIBLE_DEVICES']).touch()\n" + _STAND_IN
    command = Trial.command
    monkeypatch.setattr(
        Trial, "command", lambda self: [sys.executable, "-c", script.replace("{}", str(stand_in)), *command(self)[3:]]
    )
    run_sweep(stand_in / "sweep.toml", stand_in / "runs", workers=2)
    assert {path.name for path in stand_in.iterdir() if path.name.isdigit()} == {"4", "7"}


def test_workers_are_counted_from_one(stand_in):
    with pytest.raises(SweepError, match=r"--workers is how many trainings run at a time, at least 1\. Received: 0"):
        run_sweep(stand_in / "sweep.toml", stand_in / "runs", workers=0)


def test_settings_with_other_inputs_leave_cells_empty(tmp_path):
    costs = {"training s": 1.0, "evaluation s": 1.0, "MB": 1.0, "parameters": 5}
    both, image = Setting({"modalities": "both"}, "a.gin", ()), Setting({"modalities": "image"}, "a.gin", ())
    results = [(both, [{"top_1": 0.5, "top_1 image": 0.4} | costs]), (image, [{"top_1": 0.3} | costs])]
    lines = write_table(tmp_path, results).splitlines()
    assert [cell.strip() for cell in lines[-1].strip("|").split("|")] == ["image", "1", "0.300", "", "1.0", "1.00", "1.00", "5"]
    draw_box_plots(tmp_path / "plots.png", results)


@pytest.fixture
def tiny_sweep(tmp_path, dataset):
    (tmp_path / "tiny.gin").write_text(
        f"""
include "base/experiment.gin"
include "model/small.gin"
train.dataset = '{dataset}'
train.modalities = ("title",)
train.epochs = 2
make_features.image_size = (16, 16)
make_features.text_fields = ("title",)
"""
    )
    (tmp_path / "sweep.toml").write_text('config = "tiny.gin"\n[sweep]\nmake_optimizer.learning_rate = [1e-3, 1e-2]\n')
    return tmp_path


def test_command_sweeps_for_real(tiny_sweep):
    command = [sys.executable, "-m", "mm_keras.cli.main", "sweep", "sweep.toml", "--workers=2"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=tiny_sweep, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    folders = sorted((tiny_sweep / "runs" / "sweep" / "trials").glob("*/seed-0"))
    assert [folder.parent.name.rpartition("-")[0] for folder in folders] == ["learning_rate=0.001", "learning_rate=0.01"]
    for folder in folders:
        result = read_result(folder)
        model, _ = RunFolder(folder).load_model()
        assert result["parameters"] == model.count_params()
        assert result["MB"] == pytest.approx(4 * model.count_params() / 1e6, rel=0.01)
        assert (result["training s"] > 0, result["evaluation s"] > 0) == (True, True)
        report = json.loads((folder / "report" / "evaluation.json").read_text())
        assert result["top_1"] == report["rows"][-1]["top_1"]
        assert not (folder / "export").exists()
    assert "| learning_rate | n | top_1" in done.stdout
