import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mm_keras
from mm_keras.cli.main import main
from mm_keras.training.checkpoint_callbacks import SaveCheckpoints

REPOSITORY = Path(mm_keras.__file__).parent.parent


def _start(*arguments, cwd, path=REPOSITORY):
    """`mm-keras` as a process that leads a process group, as a shell starts it."""
    script = "import sys; from mm_keras.cli.main import main; sys.exit(main())"
    environment = os.environ | {"PYTHONPATH": str(path), "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=cwd, env=environment, text=True, process_group=0, **pipes)


def _interrupt_when(process, ready):
    """Ctrl-C, once `ready()`; gives the exit status and standard error."""
    try:
        deadline = time.monotonic() + 120
        while not ready():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
        return process.returncode, err
    finally:
        process.kill()


def test_error_in_a_run_is_one_line(run, tiny_config):
    status, _, err = run(
        "train", tiny_config, f"--workdir={tiny_config.parent / 'run'}", "--gin_bindings=train.batch_size=5000"
    )
    assert status == 2
    (line,) = err.splitlines()
    assert line.startswith("mm-keras: batch_size 5000 is larger than split 'train'")


def test_traceback_is_shown_if_asked_for(tiny_config):
    with pytest.raises(ValueError, match="batch_size 5000"):
        main(
            ["train", str(tiny_config), f"--workdir={tiny_config.parent / 'run'}", "--set=train.batch_size=5000", "--traceback"]
        )


def test_training_leaves_its_configs_in_the_run_folder(run, tiny_config):
    workdir = tiny_config.parent / "run"
    status, out, err = run("train", f"--config={tiny_config}", f"--workdir={workdir}", "--gin_bindings=train.batch_size=64")
    assert status == 0, err
    assert "| title " in out
    saved = (workdir / "config.gin").read_text()
    assert tiny_config.read_text() in saved
    assert "train.batch_size=64" in saved
    assert "train.batch_size = 64" in (workdir / "operative_config.gin").read_text()
    assert json.loads((workdir / "run.json").read_text())["batch_size"] == 64
    status, _, err = run("train", tiny_config, f"--workdir={workdir}")
    assert status == 2
    assert "already holds a run" in err
    assert "--overwrite" in err
    assert json.loads((workdir / "run.json").read_text())["batch_size"] == 64


@pytest.mark.ci
def test_training_that_is_asked_to_end_says_so_by_its_status_and_is_resumed(run, tiny_config, monkeypatch):
    """In the folder that is named after the config, without an evaluation."""
    monkeypatch.chdir(tiny_config.parent)
    whole = SaveCheckpoints.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        if self.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        whole(self, batch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(SaveCheckpoints, "on_train_batch_end", on_train_batch_end)
        status, _, err = run("train", tiny_config, "--train_only")
    assert status == 75
    assert "mm-keras: the training was asked to end (SIGTERM) after step 2" in err
    assert "step-0000000002.safetensors. Run the same command again with --resume to go on" in err
    status, _, err = run("train", tiny_config, "--train_only")
    assert (status, "pass --resume to go on with it" in err) == (2, True)
    given = Path("runs/tiny/config.gin").read_text()
    status, out, err = run("train", "tiny.gin", "--train-only", "--strategy=none", "--resume")
    assert (status, "going on after step 2" in out) == (0, True), err
    assert Path("runs/tiny/checkpoints/best.keras").is_file()
    assert not Path("runs/tiny/report").exists()
    assert Path("runs/tiny/config.gin").read_text() == given
    status, _, err = run("train", tiny_config, "--train_only", "--resume", "--gin_bindings=train.batch_size=16")
    assert (status, "batch_size: " in err and "16 now" in err) == (2, True)
    assert Path("runs/tiny/config.gin").read_text() == given


@pytest.mark.ci
def test_ctrl_c_ends_a_training_with_one_line(tiny_config):
    """The only one on standard error: starting up and training are quiet."""
    metrics = tiny_config.parent / "runs" / "tiny" / "metrics.jsonl"
    process = _start("train", "tiny.gin", "--set=train.epochs=5000", cwd=tiny_config.parent)
    status, err = _interrupt_when(process, metrics.is_file)
    assert (status, err) == (130, "mm-keras: interrupted\n")


@pytest.mark.parametrize(
    ("number", "status", "line"),
    [
        (signal.SIGINT, 130, "mm-keras: interrupted\n"),
        (signal.SIGTERM, 75, "mm-keras: asked to end (SIGTERM) while it started; run the same command again\n"),
    ],
)
def test_signal_while_tensorflow_is_imported_ends_the_program_at_once(tmp_path, number, status, line):
    (tmp_path / "tensorflow.py").write_text(
        """
import pathlib, time
pathlib.Path("importing").touch()
while True:
    try:
        time.sleep(0.05)
    except BaseException:  # as extension modules do
        pass
"""
    )
    process = _start("evaluate", "runs/x", cwd=tmp_path, path=f"{tmp_path}{os.pathsep}{REPOSITORY}")
    try:
        while not (tmp_path / "importing").exists():
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, err) == (status, line)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1, 4, 8, 12, 16])
def test_training_can_be_asked_to_end_at_any_moment(tiny_config, seconds):
    """While it imports, traces, trains, evaluates."""
    process = _start("train", "tiny.gin", "--set=train.epochs=300", "--resume", cwd=tiny_config.parent)
    try:
        time.sleep(seconds)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 75, err
        process = _start("train", "tiny.gin", "--set=train.epochs=300", "--resume", cwd=tiny_config.parent)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    finally:
        process.kill()
