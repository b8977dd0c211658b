"""`mm-keras thresholds`: where a run of several labels draws the line."""

from __future__ import annotations

import argparse

from mm_keras.cli.shared_options import add_examples_options, given_examples
from mm_keras.cli.start_up import import_tensorflow

SUMMARY = "show what thresholds do to a run of several labels, or tune them anew"
DESCRIPTION = """Show precision, recall and F1 of a run of several labels at thresholds from 0.1 to 0.9. --tune keeps in
the run the thresholds with the best F1, one a label (as training does) or one for all."""
EXAMPLES = """  mm-keras thresholds runs/captions
  mm-keras thresholds runs/captions --tune=shared
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="the folder of a trained run of several labels")
    parser.add_argument("--tune", choices=("per_label", "shared"), help="keep the best ones in the run")
    add_examples_options(parser, "the examples to measure or tune on", "val")


def run(options: argparse.Namespace) -> int:
    import_tensorflow()
    from mm_keras.runs.thresholds import measure_thresholds, tune_thresholds

    print(measure_thresholds(options.run_folder, **given_examples(options)))
    if options.tune:
        values = tune_thresholds(options.run_folder, **given_examples(options), shared=options.tune == "shared")
        print(f"kept: {values[0]:.3f} for all labels" if options.tune == "shared" else f"kept: {len(values)}, one a label")
    return 0
