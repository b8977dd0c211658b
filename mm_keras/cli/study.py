"""`mm-keras study`: one of the published studies, step by step."""

from __future__ import annotations

import argparse
import gc
import importlib
from pathlib import Path

from mm_keras.cli.start_up import import_tensorflow

STUDIES = ("webvision", "imaged", "captions-relevance", "multilabel-captions")
SUMMARY = "run one of the published studies, on its data or in miniature"
DESCRIPTION = """Run one of the four studies that docs/studies describes: webvision, imaged, captions-relevance or
multilabel-captions. Its steps are ordinary commands, which are printed before they run; what is done is
not done again, and a step whose data is not given is left out and named. --list shows the steps, what
data each needs and where it is had, and which are done. --miniature runs all of it on drawn data, in
about a minute, to see the shape of the result before one owns the data."""
EXAMPLES = """  mm-keras study webvision --list
  mm-keras study webvision --miniature
  mm-keras study multilabel-captions --data=table=train.csv --only=lstm_0,lstm_1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", choices=STUDIES, help=", ".join(STUDIES))
    parser.add_argument("--list", action="store_true", help="list the steps and run nothing")
    parser.add_argument("--miniature", action="store_true", help="run everything in small, on drawn data")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="where something lies that --list names; may be repeated",
    )
    parser.add_argument("--workdir", metavar="FOLDER", help="the study's folder (default: runs/studies/NAME[_miniature])")
    parser.add_argument("--only", default="", metavar="STEP,…", help="run these steps alone")
    parser.add_argument("--draw", metavar="FOLDER", help="write the drawn data of the miniature there, and stop")
    parser.add_argument(
        "--set",
        dest="gin_bindings",
        action="append",
        default=[],
        metavar="[RUN:]LINE",
        help="a gin line of all trainings, or of the one into the folder RUN, as 'image: train.epochs=3'; may be repeated",
    )


def run(options: argparse.Namespace) -> int:
    import_tensorflow()
    from mm_keras.studies.study import RESULTS_FILE, Settings, StudyError, check_data, list_steps, run_steps

    module = importlib.import_module(f"mm_keras.studies.{options.name.replace('-', '_')}")
    if options.draw:
        module.draw(Path(options.draw))
        print(f"{options.draw}: the drawn data of {options.name}")
        return 0
    data = {}
    for entry in options.data:
        name, equals, path = entry.partition("=")
        if not (equals and path):
            raise StudyError(f"--data takes NAME=PATH. Received: {entry!r}")
        data[name] = path
    if data and options.miniature:
        raise StudyError("--miniature draws its data; --data is for the study itself")
    folder = Path("runs/studies") / (options.name + ("_miniature" if options.miniature else ""))
    workdir = Path(options.workdir) if options.workdir else folder
    settings = Settings(workdir, data, options.miniature, tuple(options.gin_bindings))
    study = module.make_study(settings)
    check_data(study, data)
    if options.list:
        print(list_steps(study, settings))
        return 0
    status = run_steps(study, settings, _call, [name for name in options.only.split(",") if name])
    if (workdir / RESULTS_FILE).is_file():
        print(f"\n{workdir / RESULTS_FILE}")
    return status


def _call(command: tuple[str, ...]) -> int:
    """Runs a command as if it were typed, in this process: loading TensorFlow takes longer than a miniature's step."""
    import keras

    programs = {"mm-keras": "mm_keras.cli.main", "tfrecords-tools": "tfrecords_tools.cli.main"}
    status = importlib.import_module(programs[command[0]]).main(list(command[1:]))
    keras.backend.clear_session()
    gc.collect()
    return status
