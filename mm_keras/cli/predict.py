"""`mm-keras predict`: the labels of one example, or of a file of them."""

from __future__ import annotations

import argparse

from mm_keras.cli.start_up import import_tensorflow
from mm_keras.input_names import IMAGE, input_name

SUMMARY = "predict the labels of one example, or of a file of examples"
DESCRIPTION = """Predict labels with a trained run: those of one example, which are printed, or of all examples in a
file FILE.jsonl, which are written to FILE.predictions.jsonl beside it. An input that is not given
counts as missing."""
EXAMPLES = """  mm-keras predict runs/quickstart --image=photo.jpg --text='title=Solid oak, new'
  mm-keras predict runs/quickstart new.jsonl
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="the folder of a trained run")
    parser.add_argument(
        "examples", nargs="?", metavar="FILE", help='.jsonl, an object a line: {"image": path, "title": text, …}'
    )
    parser.add_argument("--image", metavar="FILE", help="the picture of one example: JPEG, PNG, GIF or BMP")
    parser.add_argument(
        "--text", action="append", default=[], metavar="FIELD=TEXT", help="a text of one example; may be repeated"
    )


def run(options: argparse.Namespace) -> int:
    example = {"image": options.image} if options.image else {}
    for text in options.text:
        field, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--text takes FIELD=TEXT, for example --text='title=Blue mug'. Received: {text!r}")
        example[input_name(field) if field == IMAGE else field] = value  # --image is the picture
    import_tensorflow()
    from mm_keras.runs.predict import predict

    predict(options.run_folder, example, options.examples)
    return 0
