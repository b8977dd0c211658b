"""`mm-keras report`: the page of a trained run, or of several runs compared."""

from __future__ import annotations

import argparse

from mm_keras.cli.shared_options import add_config_of_a_run, add_examples_options, configured, given_examples
from mm_keras.cli.start_up import import_tensorflow

SUMMARY = "write a page on a trained run, or one that compares several"
DESCRIPTION = """Write a page on a trained run: what each input adds, which labels are confused, whether probabilities
can be believed, what is wrong with the data, why the model answers what it does. It is one HTML file,
RUN/report/report.html, with its data beside it as JSON, CSV and SVG, and a model card. Of several runs, the
page compares them: which differences are more than chance, seeds side by side, size against score."""
EXAMPLES = """  mm-keras report runs/quickstart
  mm-keras report runs/quickstart --split=val --parts=inputs,classes
  mm-keras report runs/seed_0 runs/seed_1 runs/image_only --output=comparison.html
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folders", metavar="RUN", nargs="+", help="the folder of a trained run")
    add_examples_options(parser, "the examples to report on, also without labels")
    parser.add_argument("--parts", metavar="PART,…", help="inputs, classes, trust, data, why, maps, training (default: all)")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="the page (default: report/report.html in the run's folder; of several runs, "
        "comparison/comparison.html beside the first)",
    )
    add_config_of_a_run(parser)


def run(options: argparse.Namespace) -> int:
    import_tensorflow()
    arguments = given_examples(options)
    if options.output:
        arguments["output"] = options.output
    if options.parts:
        arguments["parts"] = [part.strip() for part in options.parts.split(",") if part.strip()]
    if len(options.run_folders) > 1:
        if options.parts or options.config or options.gin_bindings:
            raise ValueError("--parts, --config and --set are of the page of one run, not of a comparison")
        from mm_keras.report.compare import compare

        compare(options.run_folders, **arguments)
        return 0
    (run_folder,) = options.run_folders
    configured("report", options.config, options.gin_bindings)(run_folder, **arguments)
    return 0
