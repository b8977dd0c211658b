"""The published interface of `python run.py`: `--config=…`, and `--mode=…`, as commands of `mm-keras`.

--config=webvision_use.gin --strategy=none   ->  train webvision_use.gin --strategy=none
--mode=evaluate --workdir=runs/x --split=val ->  evaluate runs/x --split=val
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mm_keras.cli import main as commands
from tfrecords_tools.cli.parser import Parser

MODES = ("train_and_evaluate", "train", "evaluate", "predict", "export", "add_classes", "late_fusion", "experiments")

_TRAINING = ("train_and_evaluate", "train")
_MODES_OF_OPTIONS = {
    **dict.fromkeys(("strategy", "local_workers", "dry_run", "resume"), _TRAINING),
    "overwrite": (*_TRAINING, "late_fusion"),
    "gin_bindings": (*_TRAINING, "evaluate", "export"),
    **dict.fromkeys(("dataset", "split"), ("evaluate", "export", "late_fusion")),
    **dict.fromkeys(("image", "text", "examples", "allow_outside"), ("predict",)),
    **dict.fromkeys(("classes", "output"), ("add_classes",)),
    **dict.fromkeys(("runs", "method"), ("late_fusion",)),
    **dict.fromkeys(("sweep", "workers"), ("experiments",)),
}
_SAME = ("dataset", "split", "image", "method", "workers", "strategy", "local_workers")  # passed on under the same name
_FLAGS = ("dry_run", "resume", "overwrite", "allow_outside", "traceback")

_DESCRIPTION = (
    "Train, evaluate and export a model as a gin config says. This is `mm-keras train` and, by --mode, other commands."
)
_EPILOG = """examples:
  python run.py --config=quickstart.gin
  python run.py --mode=evaluate --workdir=runs/quickstart

`mm-keras --help` describes the commands, and `mm-keras COMMAND --help` their options.
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command that the options stand for; returns its exit status, as `mm_keras.cli.main.main` does."""
    return commands.main(translate(arguments), is_program=arguments is None)


def translate(arguments: list[str] | None) -> list[str]:
    """The arguments of `mm-keras` that do the same; exits with status 2 if options do not go together."""
    parser = _make_parser()
    options = parser.parse_args(arguments)
    _check(parser, options)
    workdir = options.workdir or (str(Path("runs") / Path(options.config).stem) if options.config else None)
    config = [f"--config={options.config}"] if options.config else []
    config += [f"--set={line}" for line in options.gin_bindings]
    passed_on = [f"--{name}={getattr(options, name)}" for name in _SAME if getattr(options, name) is not None]
    passed_on += [f"--text={text}" for text in options.text]
    passed_on += [f"--{name}" for name in _FLAGS if getattr(options, name)]
    own_workdir = [f"--workdir={options.workdir}"] if options.workdir else []
    return {
        "train_and_evaluate": lambda: ["train", *config, *own_workdir, *passed_on],
        "train": lambda: ["train", "--train_only", *config, *own_workdir, *passed_on],
        "evaluate": lambda: ["evaluate", workdir, *config, *passed_on],
        "export": lambda: ["export", workdir, *config, *passed_on],
        "predict": lambda: ["predict", workdir, *filter(None, [options.examples]), *passed_on],
        "add_classes": lambda: ["add-classes", workdir, options.classes, f"--output={options.output}", *passed_on],
        "late_fusion": lambda: ["fuse", *options.runs.split(","), f"--output={workdir}", *passed_on],
        "experiments": lambda: ["sweep", options.sweep, *own_workdir, *passed_on],
    }[options.mode]()


def _check(parser: Parser, options: argparse.Namespace) -> None:
    mode = options.mode
    if mode in _TRAINING and not options.config:
        parser.error(f"--mode={mode} needs a config, for example --config=quickstart.gin")
    if mode == "experiments" and (not options.sweep or options.config or options.gin_bindings):
        parser.error("--mode=experiments needs --sweep=FILE; its config and bindings stand in that file")
    if not options.config and not options.workdir and not options.sweep:
        parser.error("name a run folder (--workdir), a config (--config), or both")
    if mode == "add_classes" and not (options.classes and options.output):
        parser.error("--mode=add_classes needs --classes=FILE and --output=FOLDER")
    if mode == "late_fusion" and not (options.runs and options.workdir):
        parser.error("--mode=late_fusion needs --runs=FOLDER,FOLDER,… and --workdir=FOLDER, the run folder to make")
    for option, modes in _MODES_OF_OPTIONS.items():
        if getattr(options, option) and mode not in modes:
            parser.error(f"--{option} goes with --mode={' or '.join(modes)}, not with --mode={mode}")


def _make_parser() -> Parser:
    parser = Parser("run.py", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--config", metavar="FILE", help="gin config; a bare name is also looked up in configs/")
    parser.add_argument("--mode", choices=MODES, default="train_and_evaluate", help="default: train_and_evaluate")
    parser.add_argument("--workdir", metavar="FOLDER", help="the run folder (default: runs/<name of the config or sweep>)")
    parser.add_argument("--gin_bindings", action="append", default=[], metavar="LINE", help="overrides the config; repeatable")
    parser.add_argument("--text", action="append", default=[], metavar="FIELD=TEXT", help="of --mode=predict; repeatable")
    for name in ("local_workers", "workers"):
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"of --mode={' or '.join(_MODES_OF_OPTIONS[name])}")
    for name in ("strategy", "dataset", "split", "image", "examples", "classes", "output", "runs", "method", "sweep"):
        parser.add_argument(f"--{name}", help=f"of --mode={' or '.join(_MODES_OF_OPTIONS[name])}")
    for name in _FLAGS:
        parser.add_argument(f"--{name}", action="store_true")
    return parser
