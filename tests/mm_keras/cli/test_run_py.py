import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mm_keras
from mm_keras.cli.run_py import translate

REPOSITORY = Path(mm_keras.__file__).parent.parent


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["--config=quickstart.gin"], ["train", "--config=quickstart.gin"]),
        (
            ["--config=a/webvision_use.gin", "--gin_bindings=train.epochs=3", "--gin_bindings=X='a b'", "--workdir=runs/x"],
            ["train", "--config=a/webvision_use.gin", "--set=train.epochs=3", "--set=X='a b'", "--workdir=runs/x"],
        ),
        (
            ["--config=c.gin", "--strategy=mirrored", "--local_workers=2", "--overwrite", "--dry_run", "--traceback"],
            ["train", "--config=c.gin", "--strategy=mirrored", "--local_workers=2", "--dry_run", "--overwrite", "--traceback"],
        ),
        (
            ["--mode=train", "--config=c.gin", "--resume", "--workdir=w"],
            ["train", "--train_only", "--config=c.gin", "--workdir=w", "--resume"],
        ),
        (["--mode=evaluate", "--workdir=w", "--split=val"], ["evaluate", "w", "--split=val"]),
        (
            ["--mode=evaluate", "--config=c/tiny.gin", "--gin_bindings=evaluate.batch_size=8", "--dataset=d"],
            ["evaluate", "runs/tiny", "--config=c/tiny.gin", "--set=evaluate.batch_size=8", "--dataset=d"],
        ),
        (
            ["--mode=predict", "--workdir=w", "--image=p.jpg", "--text=title=a b", "--text=tags=c"],
            ["predict", "w", "--image=p.jpg", "--text=title=a b", "--text=tags=c"],
        ),
        (["--mode=predict", "--config=tiny.gin", "--examples=new.jsonl"], ["predict", "runs/tiny", "new.jsonl"]),
        (["--mode=export", "--workdir=w", "--traceback"], ["export", "w", "--traceback"]),
        (
            ["--mode=add_classes", "--workdir=w", "--classes=c.jsonl", "--output=o"],
            ["add-classes", "w", "c.jsonl", "--output=o"],
        ),
        (
            ["--mode=late_fusion", "--workdir=w", "--runs=a,b", "--method=vote", "--overwrite"],
            ["fuse", "a", "b", "--output=w", "--method=vote", "--overwrite"],
        ),
        (
            ["--mode=experiments", "--sweep=s.toml", "--workdir=w", "--workers=2"],
            ["sweep", "s.toml", "--workdir=w", "--workers=2"],
        ),
    ],
)
def test_options_become_a_command(old, new):
    assert translate(old) == new


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs a config, for example --config=quickstart.gin"),
        (["--mode=evaluate"], "name a run folder (--workdir), a config (--config), or both"),
        (["--mode=evaluate", "--workdir=x", "--dry_run"], "--dry_run"),
        (["--mode=fly"], "invalid choice: 'fly'"),
        (["--config=quikstart.gin"], "did you mean quickstart.gin?"),
        (["--config=quickstart.gin", "--gin_bindings=train.epoch=3"], "'epoch'"),
        (["--mode=evaluate", "--workdir=none"], "'none' is no run folder"),
        (["--mode=predict", "--workdir=none", "--text=title=x"], "'none' is no run folder"),
        (["--mode=predict", "--workdir=none", "--text=oak"], "--text takes FIELD=TEXT"),
        (["--mode=export", "--workdir=none"], "'none' is no run folder"),
        (["--mode=add_classes", "--workdir=none"], "--mode=add_classes needs --classes=FILE and --output=FOLDER"),
        (["--config=quickstart.gin", "--resume", "--overwrite"], "--resume goes on with a run; --overwrite does not"),
        (["--mode=export", "--workdir=none", "--classes=new.jsonl"], "--classes goes with --mode=add_classes"),
        (
            ["--mode=predict", "--workdir=none", "--gin_bindings=x.y=1"],
            "--gin_bindings goes with --mode=train",
        ),
        (
            ["--mode=late_fusion", "--workdir=x", "--method=vote"],
            "--mode=late_fusion needs --runs=FOLDER,FOLDER,… and --workdir=FOLDER",
        ),
        (["--mode=late_fusion", "--workdir=x", "--runs=none,b"], "'none' is no run folder"),
        (["--mode=late_fusion", "--workdir=x", "--runs=a,b", "--method=mean"], "Received: 'mean'"),
        (["--mode=evaluate", "--workdir=none", "--runs=a,b"], "--runs goes with --mode=late_fusion"),
        (["--mode=add_classes", "--workdir=none", "--classes=x.csv", "--output=y"], "'none' is no run folder"),
        (["--mode=experiments", "--workdir=x"], "--mode=experiments needs --sweep=FILE; its config and bindings stand in that"),
        (["--mode=experiments", "--sweep=x.toml", "--config=quickstart.gin"], "its config and bindings stand in that file"),
        (["--config=quickstart.gin", "--workers=2"], "--workers goes with --mode=experiments"),
    ],
)
def test_wrong_call_ends_with_status_two_and_says_why(run_old, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, _, err = run_old(*arguments)
    assert status == 2
    assert message in err
    assert "Traceback" not in err
    assert "In call to configurable" not in err
    assert list(tmp_path.iterdir()) == []


def test_config_is_trained_and_mode_goes_on_with_its_run(run_old, tiny_config, trained_run, monkeypatch):
    monkeypatch.chdir(tiny_config.parent)
    status, out, err = run_old("--config=tiny.gin", "--gin_bindings=train.batch_size=64", "--strategy=none", "--dry_run")
    assert (status, "steps of 64" in out, "dry run: stopping here" in out) == (0, True, True), err
    shutil.copytree(trained_run / "baselines" / "title", "runs/tiny")
    status, out, err = run_old("--mode=evaluate", "--config=tiny.gin", "--split=val")
    assert (status, "split val" in out) == (0, True), err
    status, out, err = run_old("--mode=predict", "--workdir=runs/tiny", "--text=title=Solid oak = good")
    assert (status, len(out.splitlines())) == (0, 5), err


def test_script_of_a_checkout_is_this_program(tmp_path):
    script = REPOSITORY / "run.py"
    if not script.is_file():
        pytest.skip("run.py belongs to a checkout, not to an installation")
    for arguments, status, told in ((["--help"], 0, "--config=quickstart.gin"), (["--mode=fly"], 2, "invalid choice: 'fly'")):
        command = [sys.executable, script, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == status
        assert told in done.stdout + done.stderr
