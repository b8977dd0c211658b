"""`mm-keras agree`: do examples agree with the classes that they are claimed to be of?"""

from __future__ import annotations

import argparse

from mm_keras.cli.shared_options import add_examples_options, given_examples
from mm_keras.cli.start_up import import_tensorflow

SUMMARY = "check whether pictures and texts agree with the class that they are claimed to be of"
DESCRIPTION = """Check claims: does an example's picture and text agree with the class that it is filed under? For each row
of a table a score (the probability of the claimed class), a decision, and the reason, by input. Without
a table, measure how well the run tells true claims from false ones, and find the score from which on a
claim is believed; later calls use it."""
EXAMPLES = """  mm-keras agree runs/quickstart                              measure, and find the threshold
  mm-keras agree runs/products listed.csv --label=category    check a table
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="the folder of a trained run of single labels")
    parser.add_argument("table", nargs="?", metavar="FILE", help="a table as mm-keras predict reads it, with claimed classes")
    parser.add_argument("--label", metavar="COLUMN", help="the column of claimed classes")
    parser.add_argument("--threshold", type=float, metavar="P", help="the score from which on a claim is believed")
    parser.add_argument("--output", metavar="FILE", help="default: NAME.agreement.jsonl beside the table")
    parser.add_argument("--image_root", metavar="FOLDER", help="of image paths (default: the folder of the table)")
    add_examples_options(parser, "the examples to measure on")


def run(options: argparse.Namespace) -> int:
    if bool(options.table) != bool(options.label):
        raise ValueError("a table of claims needs --label=COLUMN, and --label a table")
    import_tensorflow()
    from mm_keras.runs.agree import check_claims, measure_agreement
    from mm_keras.runs.example_rows import InputOptions

    if options.table:
        input_options = InputOptions(image_root=options.image_root)
        check_claims(options.run_folder, options.table, options.label, options.threshold, input_options, options.output)
    else:
        measure_agreement(options.run_folder, **given_examples(options))
    return 0
