"""`mm-keras train --table=…` and `--dataset=…`: the config that one's own data and a preset amount to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tfrecords_tools.sources.command import comma_list
from tfrecords_tools.sources.table_file import delimiter_option

if TYPE_CHECKING:
    from tfrecords_tools.dataset.folder import Dataset

_HELD_OUT = 0.1  # the fraction of training rows that becomes "val" if a training by gradient has no such split
_FLAGS = ("multi_label", "empty_means_none", "allow_outside", "first_image")
_DEFAULTS = {
    **dict.fromkeys(("table", "dataset", "image", "label", "label_separator", "id", "split", "group")),
    **dict.fromkeys(("image_root", "image_template", "delimiter")),
    **dict.fromkeys(("text", "labels"), ""),
    **dict.fromkeys(_FLAGS, False),
    "encoding": None,
    "no_quotes": False,
    **dict.fromkeys(("preset", "image_encoder", "text_encoder"), "auto"),
    "seed": 0,
}


def add_table_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that stand in the place of a config."""
    table = parser.add_argument_group("one's own data, in the place of a config")
    table.add_argument("--table", metavar="FILE", help="a table (CSV, TSV, JSON, Parquet) with one example in each row")
    table.add_argument("--image", metavar="COLUMN", help="the column of image paths or encoded images")
    table.add_argument("--text", metavar="COLUMN,…", help="text columns")
    table.add_argument("--label", metavar="COLUMN", help="the column of labels")
    table.add_argument("--label_separator", metavar="S", help="several labels a cell, separated by S")
    table.add_argument("--multi_label", action="store_true", help="cells of the label column hold lists")
    table.add_argument("--labels", metavar="COLUMN,…", help="several labels, a column with 0 and 1 each")
    table.add_argument(
        "--empty_means_none",
        action="store_true",
        help="no label applies where the cells of several labels are empty (default: the row is left out)",
    )
    table.add_argument("--id", metavar="COLUMN", help="unique ids (default: file name and row)")
    table.add_argument(
        "--split", metavar="COLUMN", help="names of splits: train, val, test (default: drawn by label, 80, 10, 10 %%)"
    )
    table.add_argument("--group", metavar="COLUMN", help="rows that stay together where splits are drawn: a product, a patient")
    table.add_argument("--image_root", metavar="FOLDER", help="of image paths (default: the folder of the table)")
    table.add_argument("--image_template", metavar="PATH", help="image paths made of columns: 'images/{id}.jpg'")
    table.add_argument("--allow_outside", action="store_true", help="also read images outside of that folder")
    table.add_argument("--first_image", action="store_true", help="of cells that name several images take the first")
    table.add_argument("--encoding", help="of text (default: UTF-8, or UTF-16 if the bytes say so)")
    table.add_argument("--no_quotes", action="store_true", help='of CSV: " is a character as any other')
    table.add_argument("--delimiter", type=delimiter_option, metavar="C", help="of CSV: ';', '|', tab (default: what fits)")
    table.add_argument("--dataset", metavar="FOLDER", help="where the table is packed (default: data/NAME), or packed data")
    table.add_argument(
        "--preset",
        help="auto (default): pretrained encoders, as far as they can be had, with a head that is solved; frozen: the same, or "
        "an error; scratch: small encoders that are trained; finetune: half of the image tower is trained, too",
    )
    table.add_argument("--image_encoder", metavar="NAME|FILE", help="mobilenet_v2, resnet50_v2, …, or NAME:WEIGHTS_FILE")
    table.add_argument("--text_encoder", metavar="NAME|FOLDER", help="minilm, or a Hugging Face folder")
    table.add_argument("--seed", type=int, help="of splits and training (default: 0)")
    parser.set_defaults(**_DEFAULTS)


def given_table_options(options: argparse.Namespace) -> list[str]:
    """The options of a table that were given, for messages."""
    return [f"--{name}" for name, default in _DEFAULTS.items() if getattr(options, name) != default]


def name_of_data(options: argparse.Namespace) -> str:
    """The name of the run: that of the table or the dataset folder."""
    return Path(options.table).name.split(".")[0] if options.table else Path(options.dataset).name


def make_table_config(options: argparse.Namespace) -> str:
    """Packs the table, or finds it packed, and writes the config of a training on it.

    Raises:
        ValueError: if there is no label or no input, or a dataset lacks the training split.
    """
    from mm_keras.estimator.config import make_config
    from mm_keras.estimator.parts import choose_parts
    from mm_keras.packed import table_dataset
    from tfrecords_tools.dataset.folder import Dataset

    texts = comma_list(options.text)
    has_image = bool(options.image or options.image_template)
    if options.table and not ((options.label or options.labels) and (has_image or texts)):
        raise ValueError(
            "--table needs --label=COLUMN (or --labels=COLUMN,COLUMN,…), and --image=COLUMN, --text=COLUMN,… or both, for "
            "example --table=products.csv --image=photo --text=title,description --label=category"
        )
    if not options.table:
        dataset = Dataset.open(options.dataset)
        dataset.split("train")
        fields = texts or tuple(name for name, derived in dataset.info.text_fields.items() if not derived)
        has_image = has_image or _holds_images(dataset)
        lines = [f"train.dataset = {str(dataset.folder)!r}"]
    parts = choose_parts(
        options.preset, options.image_encoder, options.text_encoder, has_image, bool(texts if options.table else fields)
    )
    for note in parts.notes:
        print(note)
    if options.table:
        arguments = _table_arguments(options, texts)
        if options.split and not parts.all_frozen:
            arguments["hold_out"] = _HELD_OUT
        dataset, fields = Dataset.open(table_dataset(**arguments)), texts
        lines = ["train.dataset = @table_dataset()"]
        lines += [f"table_dataset.{name} = {value!r}" for name, value in arguments.items()]
    splits = dataset.info.splits
    if "train" not in splits:
        raise ValueError(f"{dataset.folder} has no split 'train'; it has {sorted(splits)}: name the column with --split")
    eval_split = next((name for name in ("test", "val") if name in splits), None)
    if eval_split != "test":
        outcome = f"evaluated on {eval_split!r}" if eval_split else "not evaluated"
        print(f"there is no split 'test' (there are {', '.join(sorted(splits))}): the model is {outcome}")
        lines += [f"evaluate.split = {eval_split!r}"] if eval_split else ["train_and_evaluate.evaluate = None"]
        lines += [f"export.split = {eval_split or 'train'!r}"]
    return make_config(dataset, lines, fields, parts, "val" if "val" in splits else None, options.seed)


def _table_arguments(options: argparse.Namespace, texts: tuple[str, ...]) -> dict[str, object]:
    """The arguments of `table_dataset` that are not its defaults."""
    arguments = {
        "file": options.table,
        "label": options.label,
        "labels": comma_list(options.labels),
        "folder": options.dataset or str(Path("data") / name_of_data(options)),
        "image": options.image,
        "text": texts,
        "seed": options.seed,
    } | {name: getattr(options, name) for name in _FLAGS}
    names = ("id", "split", "group", "label_separator", "image_root", "image_template", "delimiter", "encoding")
    optional = {name: getattr(options, name) for name in names if getattr(options, name)}
    optional |= {"quotes": False} if options.no_quotes else {}
    return {name: value for name, value in arguments.items() if value or name == "image"} | optional


def _holds_images(dataset: Dataset) -> bool:
    return dataset.info.statistics["train"]["without_image"] < dataset.info.num_examples("train")
