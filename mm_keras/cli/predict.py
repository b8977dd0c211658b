"""`mm-keras predict`: the labels of one example, or of those in a table or a folder."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from mm_keras.cli.start_up import import_tensorflow
from mm_keras.input_names import IMAGE, input_name
from tfrecords_tools.sources.command import comma_list
from tfrecords_tools.sources.files import IMAGE_SUFFIXES
from tfrecords_tools.sources.table_file import delimiter_option

if TYPE_CHECKING:
    from mm_keras.runs.example_rows import InputOptions

SUMMARY = "predict the labels of one example, of a table, or of a folder of pictures"
DESCRIPTION = """Predict labels with a trained run: those of one example, which are printed, or of all rows of a
table (CSV, TSV, JSON, JSON Lines, Parquet), all pictures of a folder, or all records of a packed dataset,
which are written to --output, by default NAME.predictions.jsonl beside the input. Columns are those of the
table that the run was trained on, or have the names of its inputs; others are not used (--keep passes them
on). An input that is not given counts as missing. The rows keep their order, and one that cannot be read
gets its error in its place. Run again, a prediction that was cut off goes on behind what is there. With
--engine=beam an exported model answers in parts, on many machines, as Parquet files."""
EXAMPLES = """  mm-keras predict runs/quickstart --image=photo.jpg --text='title=Solid oak, new'
  mm-keras predict runs/quickstart new.jsonl
  mm-keras predict runs/products new.csv --output=answers.csv --top=1 --keep=all
  mm-keras predict runs/products new.csv --image=picture --text='title=product name' --id=sku
  mm-keras predict runs/products pictures/ --output=embedded.parquet --embed
  mm-keras predict runs/products new.csv --engine=beam --output=answers --beam_options='--direct_num_workers=8'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="the folder of a trained run")
    parser.add_argument("examples", nargs="?", metavar="FILE", help="a table, a folder of pictures, a dataset, or one picture")
    parser.add_argument("--image", metavar="FILE|COLUMN", help="the picture of one example; with a table, its column")
    parser.add_argument(
        "--text",
        action="append",
        default=[],
        metavar="FIELD=TEXT|COLUMN",
        help="a text of one example; with a table, its column; may be repeated",
    )
    parser.add_argument(
        "--output", metavar="FILE", help=".jsonl, .csv or .parquet (default: NAME.predictions.jsonl beside the input)"
    )
    parser.add_argument("--top", type=_number, default=5, metavar="N|all", help="labels in an answer (default: 5)")
    parser.add_argument(
        "--embed",
        nargs="?",
        const="fused",
        metavar="INPUT",
        help="also the embedding of all inputs together (fused), or that of one of them",
    )
    parser.add_argument("--split", help="of a dataset the split to predict (default: all)")
    parser.add_argument(
        "--engine", choices=("local", "beam"), default="local", help="beam: in parts, by Apache Beam, on many machines"
    )
    parser.add_argument(
        "--estimate", type=float, metavar="N", help="beam: answer a few examples, and say how long N would take"
    )
    parser.add_argument(
        "--beam_options", type=shlex.split, default=[], metavar="OPTIONS", help="beam: its own options, see docs/beam.md"
    )
    table = parser.add_argument_group("tables")
    table.add_argument(
        "--id", metavar="COLUMN", help="ids that stand beside the answers (default: as trained, id, or name and line)"
    )
    table.add_argument(
        "--keep", default="", metavar="COLUMN,…|all", help="columns that are passed on; all: those that are no inputs"
    )
    table.add_argument("--image_root", metavar="FOLDER", help="of image paths (default: the folder of the table)")
    table.add_argument(
        "--allow_outside",
        action="store_true",
        help="also read images outside of that folder, where absolute paths, '../' or links lead",
    )
    table.add_argument("--image_template", metavar="PATH", help="image paths made of columns: 'images/{id}.jpg'")
    table.add_argument("--first_image", action="store_true", help="of cells that name several images take the first")
    table.add_argument("--encoding", help="of text (default: UTF-8, or UTF-16 if the bytes say so)")
    table.add_argument("--delimiter", type=delimiter_option, metavar="C", help="of CSV: ';', '|', tab (default: what fits)")
    table.add_argument("--no_quotes", action="store_true", help='of CSV: " is a character as any other')


def run(options: argparse.Namespace) -> int:
    inputs = {"image": options.image} if options.image else {}
    for text in options.text:
        field, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--text takes FIELD=TEXT, for example --text='title=Blue mug'. Received: {text!r}")
        inputs[input_name(field) if field == IMAGE else field] = value  # --image is the picture
    examples, example = options.examples, inputs
    if examples and Path(examples).suffix.lower() in IMAGE_SUFFIXES and inputs and IMAGE not in inputs:
        examples, example = None, {IMAGE: examples, **inputs}
    if options.engine != "beam" and (options.beam_options or options.estimate):
        raise ValueError(f"{'--estimate' if options.estimate else '--beam_options'} is for --engine=beam")
    import_tensorflow()
    from mm_keras.runs.example_rows import InputOptions
    from mm_keras.runs.predict import predict
    from mm_keras.runs.predict_many import Wanted

    input_options = InputOptions(
        columns=inputs if examples else {},
        id=options.id,
        image_root=options.image_root,
        allow_outside=options.allow_outside,
        image_template=options.image_template,
        first_image=options.first_image,
        encoding=options.encoding,
        delimiter=options.delimiter,
        quotes=not options.no_quotes,
        keep="all" if options.keep == "all" else comma_list(options.keep),
        split=options.split,
    )
    if options.engine == "beam":
        _predict_with_beam(options, input_options)
        return 0
    wanted = Wanted(options.top, options.embed)
    predict(options.run_folder, None if examples else example, examples, input_options, options.output, wanted)
    return 0


def _number(text: str) -> int | None:
    """Reads a number of labels; None stands for all."""
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number of at least 1, or all. Received: {text!r}")
    return int(text)


def _predict_with_beam(options: argparse.Namespace, input_options: InputOptions) -> None:
    from mm_keras.runs.predict_beam import estimate, predict_with_beam

    if not options.examples:
        raise ValueError("--engine=beam is for a FILE of examples: a table, a folder of pictures, or a packed dataset")
    if options.estimate:
        print(estimate(options.run_folder, options.examples, options.estimate, input_options))
        return
    if not options.output:
        raise ValueError("--engine=beam writes a folder of Parquet files: name it with --output=FOLDER")
    predict_with_beam(options.run_folder, options.examples, options.output, options.beam_options, input_options)
