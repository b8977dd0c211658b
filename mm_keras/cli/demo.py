"""`mm-keras demo`: a page to try a model on."""

from __future__ import annotations

import argparse
import webbrowser

from mm_keras.cli.server_options import add_server_options, check_extra, server_options
from mm_keras.cli.start_up import import_tensorflow

SUMMARY = "open a page to try a model on: labels, and why"
DESCRIPTION = """Serve a page to try a model on, beside what `mm-keras serve` serves. Give it a picture and texts, or leave
some out: it shows the labels, what each input added, which words and which part of the picture mattered, and
the nearest training examples where the dataset is still there. A run with a class-embedding head takes new
classes. Nothing leaves the machine, and nothing is loaded from elsewhere. It needs the extra [serve]."""
EXAMPLES = """  mm-keras demo runs/quickstart
  mm-keras demo runs/products --port=8080 --open
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="RUN_OR_EXPORT", help="a run folder, a folder of exported versions, or one version")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    add_server_options(parser)


def run(options: argparse.Namespace) -> int:
    check_extra()
    limits = server_options(options)
    import_tensorflow()
    from mm_keras.serve.demo.routes import add_demo
    from mm_keras.serve.run_server import find_source, run_server

    def began(message: str) -> None:
        address = message.rpartition(" ")[2]
        print(f"{message}: open {address}/ in a browser (Ctrl-C ends it)", flush=True)
        if options.open:
            webbrowser.open(f"{address}/")

    run_server([find_source(options.model)], limits, add_demo, began)
    return 0
