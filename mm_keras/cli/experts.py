"""`mm-keras experts`: what each input of a trained run knows, and a run for each of them."""

from __future__ import annotations

import argparse

from mm_keras.cli.shared_options import add_examples_options, given_examples
from mm_keras.cli.start_up import import_tensorflow

SUMMARY = "take a trained run apart: each input alone, and each of them removed"
DESCRIPTION = """Measure a trained run with each of its inputs alone and with each of them removed, over all classes and
for a few drawn ones. With --output, also write each expert, the part of the model that sees one input,
as a run of its own, which is evaluated, exported and fused like any other."""
EXAMPLES = """  mm-keras experts runs/quickstart
  mm-keras experts runs/quickstart --output=runs/experts
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="the folder of a trained run with two inputs or more")
    parser.add_argument("--output", metavar="FOLDER", help="write a run for each input there")
    parser.add_argument("--classes", type=int, default=5, metavar="N", help="classes to draw and show one by one (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn classes (default: 0)")
    add_examples_options(parser, "the examples to measure on")


def run(options: argparse.Namespace) -> int:
    if options.classes < 0:
        raise ValueError(f"--classes is how many classes are drawn, at least 0. Received: {options.classes}")
    import_tensorflow()
    from mm_keras.runs.experts import measure_experts, write_experts

    measure_experts(options.run_folder, num_classes=options.classes, seed=options.seed, **given_examples(options))
    if options.output:
        write_experts(options.run_folder, options.output)
    return 0
