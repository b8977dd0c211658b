import functools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import mm_keras
from mm_keras.cli.main import _make_parser, main
from mm_keras.runs.late_fusion.fuse import METHODS
from mm_keras.training.checkpoint_callbacks import SaveCheckpoints

REPOSITORY = Path(mm_keras.__file__).parent.parent


@pytest.fixture
def run(call):
    """A function: (arguments) -> exit status, standard output, standard error."""
    return functools.partial(call, main)


def _command(*arguments, cwd):
    script = "import sys; from mm_keras.cli.main import main; sys.exit(main())"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def moved_run(tmp_path, trained_run, monkeypatch):
    """A trained run of the title alone, in a folder of its own, which is the working folder."""
    shutil.copytree(trained_run / "baselines" / "title", tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "moved"


@pytest.fixture
def config(tmp_path, dataset):
    """A config that trains the title's model in a moment."""
    (tmp_path / "tiny.gin").write_text(
        f"""
include "base/experiment.gin"
include "model/small.gin"
train.dataset = '{dataset}'
train.modalities = ("title",)
train.epochs = 1
train_and_evaluate.export = None
make_features.image_size = (16, 16)
make_features.text_fields = ("title",)
"""
    )
    return tmp_path / "tiny.gin"


def test_help_comes_before_anything_heavy_is_loaded(tmp_path, run_python):
    script = """
import sys
from mm_keras.cli.main import main
try:
    main(["--help"])
except SystemExit as stop:
    assert stop.code == 0
heavy = {"tensorflow", "keras", "gin", "numpy", "tfrecords_tools.packing.pack"} & set(sys.modules)
assert not heavy, heavy
"""
    out = run_python(script, cwd=tmp_path)
    for told in ("--config", "--dry_run", "--workdir", "mm-keras --config=quickstart.gin", "--examples"):
        assert told in out


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
def test_wrong_call_ends_with_status_two_and_says_why(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(*arguments)
    assert status == 2
    assert message in err
    assert "Traceback" not in err
    assert "In call to configurable" not in err
    assert list(tmp_path.iterdir()) == []


def test_error_in_a_run_is_one_line(run, config):
    status, _, err = run(f"--config={config}", f"--workdir={config.parent / 'run'}", "--gin_bindings=train.batch_size=5000")
    assert status == 2
    (line,) = err.splitlines()
    assert line.startswith("mm-keras: batch_size 5000 is larger than split 'train'")


def test_traceback_is_shown_if_asked_for(config):
    with pytest.raises(ValueError, match="batch_size 5000"):
        main(
            [f"--config={config}", f"--workdir={config.parent / 'run'}", "--gin_bindings=train.batch_size=5000", "--traceback"]
        )


def test_training_leaves_its_configs_in_the_run_folder(run, config):
    workdir = config.parent / "run"
    status, out, err = run(f"--config={config}", f"--workdir={workdir}", "--gin_bindings=train.batch_size=64")
    assert status == 0, err
    assert "| title " in out
    saved = (workdir / "config.gin").read_text()
    assert config.read_text() in saved
    assert "train.batch_size=64" in saved
    assert "train.batch_size = 64" in (workdir / "operative_config.gin").read_text()
    assert json.loads((workdir / "run.json").read_text())["batch_size"] == 64
    status, _, err = run(f"--config={config}", f"--workdir={workdir}")
    assert status == 2
    assert "already holds a run" in err
    assert "--overwrite" in err
    assert json.loads((workdir / "run.json").read_text())["batch_size"] == 64


def test_run_goes_where_the_config_is_named_after(run, config, monkeypatch):
    monkeypatch.chdir(config.parent)
    status, _, err = run("--config=tiny.gin", "--mode=train", "--strategy=none")
    assert status == 0, err
    assert (config.parent / "runs" / "tiny" / "checkpoints" / "best.keras").is_file()
    assert not (config.parent / "runs" / "tiny" / "report").exists()


def test_run_folder_alone_can_be_evaluated(run, moved_run):
    status, out, err = run("--mode=evaluate", "--workdir=moved", "--split=val")
    assert status == 0, err
    assert "split val" in out
    assert (moved_run / "report" / "evaluation.json").is_file()


def test_run_folder_alone_can_predict(run, moved_run):
    status, out, err = run("--mode=predict", "--workdir=moved", "--text=title=Solid oak = good")
    assert status == 0, err
    assert len(out.splitlines()) == 5
    (moved_run.parent / "new.jsonl").write_text('{"title": "oak"}\n{"titel": "oak"}\n')
    status, out, _ = run("--mode=predict", "--workdir=moved", "--examples=new.jsonl")
    assert status == 0
    assert "1 predictions, 1 bad lines" in out
    status, _, err = run("--mode=predict", "--workdir=moved", "--text=titel=oak")
    assert (status, "no input 'titel'" in err) == (2, True)


def test_run_folder_alone_can_be_exported(run, moved_run):
    status, out, err = run("--mode=export", "--workdir=moved")
    assert status == 0, err
    assert "equal to the trained model on 32 records" in out
    assert (moved_run / "export" / "1" / "saved_model.pb").is_file()


def test_class_is_added_from_its_text_and_predicted(run, config, monkeypatch):
    monkeypatch.chdir(config.parent)
    config.write_text(
        config.read_text()
        + """
build_two_tower.head = @build_class_embedding_head
train.embed_classes = @embed_classes
embed_classes.texts = None
embed_classes.make_tokenizer = @classes/make_word_tokenizer
classes/make_word_tokenizer.min_count = 1
"""
    )
    status, _, err = run("--config=tiny.gin")
    assert status == 0, err
    (config.parent / "new.jsonl").write_text('{"label": "oak stool", "text": "oak stool"}\n')
    status, out, err = run("--mode=add_classes", "--workdir=runs/tiny", "--classes=new.jsonl", "--output=more")
    assert status == 0, err
    assert "more: 1 classes added to 20" in out
    assert len(json.loads((config.parent / "more" / "features.json").read_text())["labels"]) == 21
    status, out, err = run("--mode=evaluate", "--workdir=more")
    assert (status, "| title " in out) == (0, True), err
    status, out, err = run("--mode=export", "--workdir=more")
    assert (status, "equal to the trained model" in out) == (0, True), err
    status, _, err = run("--mode=predict", "--workdir=more", "--text=title=Solid oak")
    assert status == 0, err


def test_commands_of_the_guides_are_ones_that_the_program_knows():
    guides = REPOSITORY / "docs"
    if not guides.is_dir():
        pytest.skip("mm_keras is installed without its source")
    lines = [line for path in guides.glob("*.md") for line in path.read_text("utf-8").splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("mm-keras ")]
    assert len(commands) >= 6
    for words in commands:
        options = _make_parser().parse_args(words)
        assert not options.method or options.method in METHODS


def test_training_that_is_asked_to_end_says_so_by_its_status_and_is_resumed(run, config, monkeypatch):
    monkeypatch.chdir(config.parent)
    whole = SaveCheckpoints.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        if self.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        whole(self, batch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(SaveCheckpoints, "on_train_batch_end", on_train_batch_end)
        status, _, err = run("--mode=train", f"--config={config}")
    assert status == 75
    assert "mm-keras: the training was asked to end (SIGTERM) after step 2" in err
    assert "step-0000000002.safetensors. Run the same command again with --resume to go on" in err
    status, _, err = run("--mode=train", f"--config={config}")
    assert (status, "pass --resume to go on with it" in err) == (2, True)
    given = Path("runs/tiny/config.gin").read_text()
    status, out, err = run("--mode=train", f"--config={config}", "--resume")
    assert (status, "going on after step 2" in out) == (0, True), err
    assert Path("runs/tiny/config.gin").read_text() == given
    status, _, err = run("--mode=train", f"--config={config}", "--resume", "--gin_bindings=train.batch_size=16")
    assert (status, "batch_size: " in err and "16 now" in err) == (2, True)
    assert Path("runs/tiny/config.gin").read_text() == given


def test_start_up_is_quiet(config):
    done = _command(f"--config={config}", "--dry_run", cwd=config.parent)
    assert done.returncode == 0
    assert "dry run: stopping here" in done.stdout
    assert done.stderr == ""


def test_run_py_is_the_same_command(tmp_path):
    script = REPOSITORY / "run.py"
    if not script.is_file():
        pytest.skip("mm_keras is installed without its source")
    done = subprocess.run([sys.executable, script, "--mode=fly"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "invalid choice: 'fly'" in done.stderr


def test_run_py_is_the_same_program(tmp_path):
    script = REPOSITORY / "run.py"
    if not script.is_file():
        pytest.skip("run.py belongs to a checkout, not to an installation")
    done = subprocess.run([sys.executable, script, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--config=quickstart.gin" in done.stdout
