"""`mm-keras fuse`: one run of several that were trained apart (late fusion)."""

from __future__ import annotations

import argparse

from mm_keras.cli.shared_options import add_examples_options, given_examples
from mm_keras.cli.start_up import import_tensorflow

SUMMARY = "make one run of several that were trained apart (late fusion)"
DESCRIPTION = """Make one run of several that were trained apart, on one dataset: late fusion. The new run brings
their answers together as the method says, and is evaluated, exported and asked like any other."""
EXAMPLES = """  mm-keras fuse runs/image runs/texts --output=runs/fused --method=stacking
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="two or more run folders of one dataset")
    parser.add_argument("--output", metavar="FOLDER", required=True, help="the run folder to make")
    parser.add_argument(
        "--method",
        help="weights (default): the weighted sum of probabilities; weights_per_label: the same, with other weights for each "
        "label; vote: the majority; stacking: a logistic layer over the answers",
    )
    parser.add_argument("--weights", metavar="L,…", help="with method weights: these numbers, one a run, instead of the best")
    add_examples_options(parser, "the examples that the method is fitted on", "val")
    parser.add_argument("--overwrite", action="store_true", help="delete a run that is already in the output folder")


def run(options: argparse.Namespace) -> int:
    import_tensorflow()
    from mm_keras.runs.late_fusion.fuse import late_fusion

    method = {"method": options.method} if options.method else {}
    try:
        weights = [float(number) for number in options.weights.split(",")] if options.weights else None
    except ValueError:
        raise ValueError(f"--weights takes numbers, for example --weights=0.4,0.6. Received: {options.weights!r}") from None
    late_fusion(options.output, options.runs, overwrite=options.overwrite, weights=weights, **method, **given_examples(options))
    return 0
