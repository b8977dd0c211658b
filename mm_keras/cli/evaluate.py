"""`mm-keras evaluate`: the table of a trained run, on any split."""

from __future__ import annotations

import argparse

from mm_keras.cli.shared_options import add_config_of_a_run, add_examples_options, configured, given_examples
from mm_keras.cli.start_up import import_tensorflow

SUMMARY = "measure a trained run on a split of a dataset"
DESCRIPTION = """Measure a trained run on a split: with all inputs, with some of them hidden, and beside its
baselines. The table is printed and written into the run's folder, report/, and so is a page with much
more, which `mm-keras report` makes as well."""
EXAMPLES = """  mm-keras evaluate runs/quickstart
  mm-keras evaluate runs/quickstart --split=val --no_report
  mm-keras evaluate runs/quickstart --predictions=answers.parquet
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="the folder of a trained run")
    add_examples_options(parser, "the examples to measure on")
    parser.add_argument(
        "--predictions",
        metavar="FILE",
        help="also write each example as a row (.parquet, .csv, .jsonl): id, truth, answer and probabilities, by inputs shown",
    )
    parser.add_argument("--no_report", action="store_true", help="print and write the table alone")
    add_config_of_a_run(parser)


def run(options: argparse.Namespace) -> int:
    import_tensorflow()
    extra = {"predictions": options.predictions} if options.predictions else {}
    configured("evaluate", options.config, options.gin_bindings)(options.run_folder, **given_examples(options) | extra)
    if not options.no_report:
        from mm_keras.report.report import report

        report(options.run_folder)
    return 0
