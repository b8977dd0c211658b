"""`mm-keras serve`: a server of exported models."""

from __future__ import annotations

import argparse

from mm_keras.cli.server_options import add_server_options, check_extra, server_options
from mm_keras.cli.start_up import import_tensorflow

SUMMARY = "serve exported models over HTTP, as TensorFlow Serving does"
DESCRIPTION = """Serve exported models. The server speaks TensorFlow Serving's REST (/v1/models/NAME:predict) and the Open
Inference Protocol v2 (/v2/models/NAME/infer), answers a picture and texts sent as a form (/classify), and
counts for Prometheus (/metrics); /docs lists all of it. A model is the newest version in its folder, and
a newer one takes its place when it appears. It needs the extra [serve]."""
EXAMPLES = """  mm-keras serve runs/quickstart
  mm-keras serve products=runs/products/export tags=runs/tags --port=8080
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="+",
        metavar="[NAME=]RUN_OR_EXPORT",
        help="a run folder, a folder of exported versions, or one version; NAME is its name in URLs (default: the folder's)",
    )
    parser.add_argument(
        "--label", action="append", default=[], metavar="LABEL=VERSION", help="a name of a version of the one model served"
    )
    add_server_options(parser)


def run(options: argparse.Namespace) -> int:
    check_extra()
    limits = server_options(options)
    if options.label and len(options.models) > 1:
        raise ValueError("--label is for a server of one model")
    import_tensorflow()
    from mm_keras.serve.run_server import find_source, run_server

    run_server([find_source(model, options.label) for model in options.models], limits)
    return 0
