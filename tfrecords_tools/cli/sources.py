"""The sub-commands of `tfrecords-tools pack`: the options of each source, and the `Source` that they stand for.

This module holds the sources for data of any kind; `datasets` holds those for published data sets.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

from tfrecords_tools.sources.example import Source


@dataclasses.dataclass(frozen=True)
class SourceCommand:
    """One source on the command line."""

    name: str
    help: str
    epilog: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    make_source: Callable[[argparse.Namespace], Source]


def split_paths(pairs: list[str]) -> dict[str, Path]:
    """["train=a.json", "b.json"] -> {"train": Path("a.json"), "": Path("b.json")}; "" stands for any split."""
    paths: dict[str, Path] = {}
    for pair in pairs:
        split, mark, path = pair.partition("=")
        split, path = (split, path) if mark else ("", pair)
        if split in paths:
            raise ValueError(f"given twice for {split or 'any split'!r}: {paths[split]} and {path}")
        paths[split] = Path(path)
    return paths


def comma_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


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


def _add_image_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, metavar="FOLDER", help="holds <label>/*.jpg or <split>/<label>/*.jpg")
    parser.add_argument(
        "--label", default="path", help="which of the folders above an image: path (default; all of them), first, last"
    )
    parser.add_argument(
        "--splits",
        action="store_const",
        const=True,
        help="the first level of folders are splits (default: if they are called train, val, test or the like)",
    )
    parser.add_argument(
        "--no_splits", dest="splits", action="store_const", const=False, help="the first level of folders are no splits"
    )
    parser.add_argument("--captions", action="store_true", help="the lines of <name>.txt beside <name>.jpg are its captions")
    parser.add_argument(
        "--class_texts", type=Path, metavar="FILE", help="texts of the classes: label,description or class_descriptions.jsonl"
    )


def _image_folder_source(options: argparse.Namespace) -> Source:
    from tfrecords_tools.sources import image_folder

    return image_folder.make_source(options.root, options.label, options.splits, options.captions, options.class_texts)


def _add_sample(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num_examples", type=int, default=3000, help="default: 3000")
    parser.add_argument("--sample_seed", type=int, default=0, help="of what is drawn (default: 0)")
    parser.add_argument("--multi_label", action="store_true", help="two tags an example instead of one class")


def _sample_source(options: argparse.Namespace) -> Source:
    from tfrecords_tools.sources import sample

    return sample.make_source(options.num_examples, options.sample_seed, options.multi_label)


def _add_tfrecords(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", type=Path, metavar="DATASET", help="dataset folders that were packed before")
    parser.add_argument("--splits", default="", metavar="SPLIT,…", help="only these splits")
    parser.add_argument("--keep_labels", default="", metavar="LABEL,…", help="only records with one of these labels")
    parser.add_argument(
        "--require", default="", metavar="FIELD,…", help="only records with all of these: image, label, text fields"
    )
    parser.add_argument("--ids", type=Path, metavar="FILE", help="only records whose ids stand in FILE, one a line")
    parser.add_argument("--without_ids", type=Path, metavar="FILE", help="no records whose ids stand in FILE")
    parser.add_argument("--prefix_ids", action="store_true", help="put the name of the dataset before ids")
    parser.add_argument("--resplit", action="store_true", help="draw splits anew, see --fractions (default: keep them)")
    parser.add_argument("--resize", action="store_true", help="make images anew, see --short_side (default: keep their bytes)")
    join = parser.add_argument_group("columns of a table, by id")
    join.add_argument("--join", type=Path, metavar="FILE", help=".csv, .tsv, .jsonl or .parquet")
    join.add_argument("--join_id", metavar="COLUMN", help="whose cells are ids of records")
    join.add_argument("--text", default="", metavar="COLUMN,…", help="text fields to add or replace")
    join.add_argument("--label", metavar="COLUMN", help="labels to replace those of records")
    join.add_argument("--label_separator", metavar="S", help="several labels a cell, separated by S (makes it multi-label)")
    join.add_argument("--multi_label", action="store_true", help="label cells may hold lists (JSON Lines, Parquet)")
    join.add_argument("--weight", metavar="COLUMN", help="weights to replace those of records")
    join.add_argument("--split", metavar="COLUMN", help="splits to replace those of records")
    join.add_argument("--derived_from_label", default="", metavar="COLUMN,…", help="joined texts computed from the label")


def _tfrecords_source(options: argparse.Namespace) -> Source:
    from tfrecords_tools.sources import table, tfrecords

    return tfrecords.make_source(
        tfrecords.Options(
            folders=tuple(options.folders),
            splits=comma_list(options.splits) or None,
            labels=comma_list(options.keep_labels) or None,
            require=comma_list(options.require),
            ids=options.ids,
            without_ids=options.without_ids,
            prefix_ids=options.prefix_ids,
            resplit=options.resplit,
            resize=options.resize,
            join=options.join,
            columns=table.Columns(
                id=options.join_id,
                text=comma_list(options.text),
                label=options.label,
                weight=options.weight,
                split=options.split,
            ),
            label_separator=options.label_separator,
            multi_label=options.multi_label,
            derived_from_label=comma_list(options.derived_from_label),
        )
    )


def _add_tfds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="the folder of a prepared dataset (…/1.0.0), or a name")
    parser.add_argument("--image", metavar="FEATURE", help="the image")
    parser.add_argument("--text", default="", metavar="[FIELD=]FEATURE,…", help="text features, and what to call their fields")
    parser.add_argument("--label", metavar="FEATURE", help="the label; inside a Sequence: several labels")
    parser.add_argument("--id", metavar="FEATURE", help="unique ids (default: TFDS' own)")
    parser.add_argument("--splits", default="", metavar="SPLIT,…", help="default: all")
    parser.add_argument("--data_dir", metavar="FOLDER", help="where named datasets lie")


def _tfds_source(options: argparse.Namespace) -> Source:
    from tfrecords_tools.sources import tfds

    pairs = [text.partition("=") for text in comma_list(options.text)]
    return tfds.make_source(
        tfds.Options(
            options.dataset,
            image=options.image,
            text={field: path if mark else field for field, mark, path in pairs},
            label=options.label,
            id=options.id,
            splits=comma_list(options.splits) or None,
            data_dir=options.data_dir,
        )
    )


GENERAL_COMMANDS = [
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
        "image_folder",
        "images in folders by class",
        """examples:
  tfrecords-tools pack image_folder flowers --output=data/flowers
  tfrecords-tools pack image_folder groceries --label=last --class_texts=classes.csv --output=data/groceries

--label: the image fruit/apple/1.jpg has the label "fruit/apple" (path), "fruit" (first) or "apple" (last).
""",
        _add_image_folder,
        _image_folder_source,
    ),
    SourceCommand(
        "sample",
        "the embedded sample: a drawn catalogue",
        "example:\n  tfrecords-tools pack sample --output=data/sample\n",
        _add_sample,
        _sample_source,
    ),
    SourceCommand(
        "tfrecords",
        "datasets that were packed before: re-shard, filter, merge, split anew, join columns by id",
        """examples:
  tfrecords-tools pack tfrecords data/products --examples_per_shard=500 --output=data/products_small_shards
  tfrecords-tools pack tfrecords data/shop_a data/shop_b --prefix_ids --require=image,title --output=data/shops
  tfrecords-tools pack tfrecords data/products --join=relevance.csv --join_id=id --weight=relevance --output=data/weighted

The bytes of images are kept exactly, unless --resize is given.
""",
        _add_tfrecords,
        _tfrecords_source,
    ),
    SourceCommand(
        "tfds",
        "TensorFlow Datasets, by a mapping of features",
        """examples:
  tfrecords-tools pack tfds ~/tensorflow_datasets/oxford_iiit_pet/3.2.0 --image=image --label=label --output=data/pets
  tfrecords-tools pack tfds coco_captions --image=image --text=caption=captions/text --label=objects/label \\
      --output=data/coco

Needs tensorflow_datasets: pip install 'mm_keras[tfds]'
""",
        _add_tfds,
        _tfds_source,
    ),
]
