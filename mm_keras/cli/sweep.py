"""`mm-keras sweep`: many trainings of one config, compared."""

from __future__ import annotations

import argparse
from pathlib import Path

from mm_keras.cli.shared_options import add_bindings
from mm_keras.cli.start_up import import_tensorflow

SUMMARY = "train all settings that a sweep file lists, or search for the best one"
DESCRIPTION = """Train each setting that a sweep file lists with several seeds and compare them in a table and box
plots, or search for the best setting. Each training is a process. Started again, the command goes
on where it stopped. docs/sweeps.md describes the file."""
EXAMPLES = """  mm-keras sweep sweep.toml --workdir=runs/sweep --workers=2
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a TOML file, or one of configs/sweeps by its name",
    )
    parser.add_argument("--workdir", metavar="FOLDER", help="the folder to make or continue (default: runs/<name of FILE>)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="trainings at a time (default: 1)")
    parser.add_argument("--repeats", type=int, metavar="N", help="trainings a setting (default: what FILE says)")
    add_bindings(parser)


def run(options: argparse.Namespace) -> int:
    import_tensorflow()
    from mm_keras.sweep.run_sweep import run_sweep

    workdir = options.workdir or Path("runs") / Path(options.file).stem
    run_sweep(options.file, workdir, options.workers, options.gin_bindings, options.repeats)
    return 0
