"""`mm-keras export`: a SavedModel of a trained run."""

from __future__ import annotations

import argparse

from mm_keras.cli.shared_options import add_config_of_a_run, add_examples_options, configured, given_examples
from mm_keras.cli.start_up import import_tensorflow

SUMMARY = "write a SavedModel of a trained run, for TensorFlow Serving"
DESCRIPTION = """Write a trained run as a SavedModel, RUN/export/<next version>, whose inputs are encoded images and
plain strings. It is then loaded in a fresh process and compared with the trained model on the first
records of a split.

--format=onnx and --format=litert write RUN/export_<format>/<next version> for runtimes without TensorFlow:
the model of pixels and token ids, preprocess.json, which says how an example becomes these, and client.py,
which does it."""
EXAMPLES = """  mm-keras export runs/quickstart
  mm-keras export runs/quickstart --core_ops_only
  mm-keras export runs/this_week --version_of=runs/shop
  mm-keras export runs/quickstart --format=onnx --precision=int8
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="the folder of a trained run")
    parser.add_argument("--format", choices=("savedmodel", "onnx", "litert"), default="savedmodel", help="default: savedmodel")
    parser.add_argument(
        "--precision",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="of the weights of an ONNX or LiteRT model; refused where the accuracy falls by more than 0.01",
    )
    parser.add_argument(
        "--core_ops_only",
        action="store_true",
        help="write a SavedModel without the operations of TensorFlow Text, for servers that lack them; of the pretrained "
        "tokenizers, those of BERT's kind (WordPiece) can do without",
    )
    parser.add_argument(
        "--version_of",
        metavar="RUN",
        help="another run with the same inputs, such as the one of last week or one that knew fewer classes: this one becomes "
        "the next version in its export folder, and a server that serves it takes it up",
    )
    add_examples_options(parser, "the records to compare on")
    add_config_of_a_run(parser)


def run(options: argparse.Namespace) -> int:
    import_tensorflow()
    examples = given_examples(options)
    if options.format == "savedmodel":
        if options.precision != "float32":
            raise ValueError(f"--precision goes with --format=onnx or litert. Received: --precision={options.precision}")
        choices = {name: getattr(options, name) for name in ("core_ops_only", "version_of") if getattr(options, name)}
        configured("export", options.config, options.gin_bindings)(options.run_folder, **examples, **choices)
        return 0
    for name in ("core_ops_only", "version_of"):
        if getattr(options, name):
            raise ValueError(f"--{name} goes with --format=savedmodel. Received: --format={options.format}")
    export_portable = configured("export_portable", options.config, options.gin_bindings)
    export_portable(options.run_folder, options.format, options.precision, **examples)
    return 0
