import re
import shlex
from pathlib import Path

import pytest

import mm_keras
from mm_keras.cli import run_py
from mm_keras.cli.main import COMMANDS, find_command, make_parser
from mm_keras.runs.late_fusion.fuse import METHODS

REPOSITORY = Path(mm_keras.__file__).parent.parent


def test_help_of_all_commands_comes_before_anything_heavy_is_loaded(tmp_path, run_python):
    script = """
import sys
from mm_keras.cli import main, run_py
for program, arguments in [(main.main, [command, "--help"]) for command in main.COMMANDS] + [(run_py.main, ["--help"])]:
    try:
        program(arguments)
    except SystemExit as stop:
        assert stop.code == 0
heavy = {"tensorflow", "keras", "gin", "numpy", "tfrecords_tools.packing.pack"} & set(sys.modules)
assert not heavy, heavy
"""
    out = run_python(script, cwd=tmp_path)
    for told in ("--config", "--dry_run", "--workdir", "run.py --config=quickstart.gin", "--examples"):
        assert told in out


def test_program_without_arguments_lists_all_commands(run):
    status, out, err = run()
    assert (status, err) == (0, "")
    for command in COMMANDS:
        assert re.search(rf"^    {command}\s", out, re.MULTILINE)
        assert find_command(command).SUMMARY.split()[0] in out


def test_version_is_printed(run):
    assert run("--version")[:2] == (0, f"mm-keras {mm_keras.__version__}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_in_help_are_calls_of_the_command(run, command):
    status, out, _ = run(command, "--help")
    assert status == 0
    examples = [line.strip().partition("   ")[0] for line in out.partition("examples:\n")[2].splitlines()]
    assert examples
    for example in examples:
        program, name, *rest = shlex.split(example)
        assert (program, name) == ("mm-keras", command)
        make_parser().parse_args([name, *rest])


@pytest.mark.parametrize("spelling", ["--dry_run", "--dry-run"])
def test_long_options_are_spelled_either_way(spelling):
    options = make_parser().parse_args(["train", "quickstart.gin", spelling, "--gin-bindings=a-b=c-d", "--local-workers", "2"])
    assert (options.dry_run, options.gin_bindings, options.local_workers) == (True, ["a-b=c-d"], 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "invalid choice: 'trian' (choose from 'train', "),
        (["trian"], "did you mean train?"),
        (["train", "quickstart.gin", "--overwirte"], "unrecognized arguments: --overwirte; did you mean --overwrite?"),
        (["--config=quickstart.gin"], "the command comes first, as in `mm-keras train quickstart.gin`"),
        (["train"], "train takes one config, for example `mm-keras train quickstart.gin`"),
        (["train", "a.gin", "--config=b.gin"], "train takes one config"),
        (["evaluate"], "required: RUN"),
        (["evaluate", "x", "--dry_run"], "--dry_run"),
        (["train", "quikstart.gin"], "did you mean quickstart.gin?"),
        (["train", "quickstart.gin", "--set=train.epoch=3"], "'epoch'"),
        (["train", "quickstart.gin", "--strategy=all"], "Received: 'all'"),
        (["train", "quickstart.gin", "--resume", "--overwrite"], "--resume goes on with a run; --overwrite does not"),
        (["train", "quickstart.gin", "--resume", "--dry-run"], "--resume goes on with a run; --dry_run does not"),
        (["evaluate", "none"], "'none' is no run folder"),
        (["evaluate", "none", "--set=evaluate.batch_size=0"], "expected a whole number, at least 1. Received: 0"),
        (["predict", "none", "--text=title=x"], "'none' is no run folder"),
        (["predict", "none", "--text=oak"], "--text takes FIELD=TEXT"),
        (["predict", "none"], "give one example (--image=photo.jpg"),
        (["export", "none"], "'none' is no run folder"),
        (["add-classes", "none"], "required: TEXTS, --output"),
        (["add-classes", "none", "x.csv", "--output=y"], "'none' is no run folder"),
        (["fuse", "a", "b"], "required: --output"),
        (["fuse", "none", "b", "--output=x"], "'none' is no run folder"),
        (["fuse", "a", "b", "--output=x", "--method=mean"], "Received: 'mean'"),
        (["sweep"], "required: FILE"),
        (["sweep", "none.toml"], "there is no sweep file none.toml"),
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


def test_commands_of_the_guides_and_configs_are_ones_that_the_program_knows():
    guides = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md"), *(REPOSITORY / "configs").glob("*.gin")]
    if not (REPOSITORY / "docs").is_dir():
        pytest.skip("mm_keras is installed without its source")
    text = "\n".join(path.read_text("utf-8") for path in guides)
    text = re.sub(r" \\\n(# *)?", " ", text).replace(" …", "")
    commands = re.findall(r"^(?:[ #A-Za-z]*? |\w+='.*?' +|\w+=\w+ +)?(mm-keras|python run\.py) (.*)$", text, re.MULTILINE)
    assert len(commands) >= 20
    for program, words in commands:
        words = shlex.split(words)
        words = words if program == "mm-keras" else run_py.translate(words)
        options = make_parser().parse_args(words)
        assert getattr(options, "method", None) in (None, *METHODS)
