"""The sub-commands of `tfrecords-tools pack`, one a source: their options, and how options make a `Source`."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

from tfrecords_tools.example import Source


@dataclasses.dataclass(frozen=True)
class SourceCommand:
    """One source on the command line."""

    name: str
    help: str
    epilog: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    make_source: Callable[[argparse.Namespace], Source]


def _add_table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tables", nargs="+", metavar="FILE", help=".csv, .tsv, .jsonl or .parquet")
    parser.add_argument("--image", metavar="COLUMN", help="image paths, relative to --image_root")
    parser.add_argument("--text", metavar="COLUMN,…", default="", help="text columns; their names become the text fields")
    parser.add_argument("--label", metavar="COLUMN", help="label names (none: an unlabelled dataset)")
    parser.add_argument("--label_separator", metavar="S", help="several labels a cell, separated by S (makes it multi-label)")
    parser.add_argument("--multi_label", action="store_true", help="label cells may hold lists (JSON Lines, Parquet)")
    parser.add_argument("--id", metavar="COLUMN", help="unique ids (default: file name and row)")
    parser.add_argument("--split", metavar="COLUMN", help="split names (default: drawn, see --fractions)")
    parser.add_argument("--weight", metavar="COLUMN", help="example weights (default: 1)")
    parser.add_argument("--image_root", metavar="FOLDER", help="default: the folder of the table")
    parser.add_argument("--encoding", help="of text tables (default: UTF-8, or UTF-16 with a byte order mark)")
    parser.add_argument(
        "--derived_from_label", metavar="COLUMN,…", default="", help="text columns computed from the label (class texts)"
    )


def _table_source(options: argparse.Namespace) -> Source:
    from tfrecords_tools.sources import table

    columns = table.Columns(
        image=options.image,
        text=comma_list(options.text),
        label=options.label,
        id=options.id,
        split=options.split,
        weight=options.weight,
    )
    return table.make_source(
        options.tables,
        columns,
        label_separator=options.label_separator,
        multi_label=options.multi_label,
        image_root=options.image_root,
        encoding=options.encoding,
        derived_from_label=comma_list(options.derived_from_label),
    )


def _add_sample(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num_examples", type=int, default=3000, help="default: 3000")
    parser.add_argument("--sample_seed", type=int, default=0, help="of what is drawn (default: 0)")
    parser.add_argument("--multi_label", action="store_true", help="two tags an example instead of one class")


def _sample_source(options: argparse.Namespace) -> Source:
    from tfrecords_tools.sources import sample

    return sample.make_source(options.num_examples, options.sample_seed, options.multi_label)


def _add_webvision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, metavar="FOLDER", help="holds info/ (the release) or meta/ (the benchmark's layout)")
    parser.add_argument("--splits", metavar="SPLIT,…", help="train, val, test (default: train,val; with --holdout: train)")
    parser.add_argument("--sources", default="all", help="google, flickr or all (default: all)")
    parser.add_argument(
        "--fields",
        default="title,description,tags",
        help="text fields: title, description, tags, query; empty = images alone (default: title,description,tags)",
    )
    parser.add_argument("--num_classes", type=int, metavar="N", help="only the first N classes")
    parser.add_argument("--label_names", action="store_true", help="class names as labels instead of wnids")
    parser.add_argument(
        "--holdout",
        type=float,
        default=0.0,
        metavar="FRACTION",
        help="split this fraction of each class's training images off, half val, half test (the paper: 0.04)",
    )
    parser.add_argument("--image_root", type=Path, metavar="FOLDER", help="default: found below FOLDER")
    parser.add_argument("--metadata_root", type=Path, metavar="FOLDER", help="of google/*.json and flickr/*.json")


def _webvision_source(options: argparse.Namespace) -> Source:
    from tfrecords_tools.sources import webvision

    return webvision.make_source(
        webvision.Options(
            options.root,
            splits=comma_list(options.splits) if options.splits else None,
            sources=options.sources,
            fields=comma_list(options.fields),
            num_classes=options.num_classes,
            label_names=options.label_names,
            holdout=options.holdout,
            seed=options.seed,
            image_root=options.image_root,
            metadata_root=options.metadata_root,
        )
    )


def comma_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


SOURCE_COMMANDS = [
    SourceCommand(
        "table",
        "CSV, TSV, JSON Lines or Parquet, a row an example",
        """examples:
  tfrecords-tools pack table products.csv --image=image --text=title,description --label=category \\
      --id=id --fractions=train=0.8,test=0.2 --output=data/products
  tfrecords-tools pack table train.csv --image=ImageID --text=Caption --label=Labels --label_separator=' ' \\
      --image_root=images --output=data/captions
""",
        _add_table,
        _table_source,
    ),
    SourceCommand(
        "sample",
        "the embedded sample: a drawn catalogue",
        "example:\n  tfrecords-tools pack sample --output=data/sample\n",
        _add_sample,
        _sample_source,
    ),
    SourceCommand(
        "webvision",
        "WebVision 1.0 and 2.0: web images with titles, descriptions and tags",
        """examples:
  tfrecords-tools pack webvision webvision --holdout=0.04 --output=data/webvision
  tfrecords-tools pack webvision webvision --sources=google --num_classes=50 --output=data/mini_webvision

Labels are wnids in the order of synsets.txt. Metadata is looked for beside the images, in metadata/ and in google_json/;
an image without it is packed without texts and reported. More: the docstring of tfrecords_tools/sources/webvision.py.
""",
        _add_webvision,
        _webvision_source,
    ),
]
