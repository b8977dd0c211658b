"""`mm-keras export`: a SavedModel of a trained run."""

from __future__ import annotations

import argparse

from mm_keras.cli.shared_options import add_config_of_a_run, add_examples_options, configured, given_examples
from mm_keras.cli.start_up import import_tensorflow

SUMMARY = "write a SavedModel of a trained run, for TensorFlow Serving"
DESCRIPTION = """Write a trained run as a SavedModel, RUN/export/<next version>, whose inputs are encoded images and
plain strings. It is then loaded in a fresh process and compared with the trained model on the first
records of a split."""
EXAMPLES = """  mm-keras export runs/quickstart
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="the folder of a trained run")
    add_examples_options(parser, "the records to compare on")
    add_config_of_a_run(parser)


def run(options: argparse.Namespace) -> int:
    import_tensorflow()
    configured("export", options.config, options.gin_bindings)(options.run_folder, **given_examples(options))
    return 0
