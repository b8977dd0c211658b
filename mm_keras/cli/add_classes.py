"""`mm-keras add-classes`: further classes for a run with a class-embedding head, from their texts or from pictures."""

from __future__ import annotations

import argparse

from mm_keras.cli.start_up import import_tensorflow

SUMMARY = "make a run that knows further classes, from their texts or from a few pictures"
DESCRIPTION = """Make a run that knows further classes, from their texts or from a few pictures of each, and without
training. The run RUN needs a class-embedding head, as quickstart_classes.gin has it; it stays as it is."""
EXAMPLES = """  mm-keras add-classes runs/quickstart_classes classes.jsonl --output=runs/more_classes
  mm-keras add-classes runs/quickstart_classes new_pictures --output=runs/more_classes
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="the folder of a trained run with a class-embedding head")
    parser.add_argument(
        "texts",
        metavar="TEXTS",
        help="texts of the new classes: JSON Lines of label and text, or a CSV of label,description; or a folder with a "
        "subfolder of pictures for each new class",
    )
    parser.add_argument("--output", metavar="FOLDER", required=True, help="the run folder to make")


def run(options: argparse.Namespace) -> int:
    import_tensorflow()
    from mm_keras.runs.add_classes import add_classes

    add_classes(options.run_folder, options.texts, options.output)
    return 0
