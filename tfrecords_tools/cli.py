"""`tfrecords-tools`: collect, pack, inspect, verify and count datasets. Needs no TensorFlow."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

from tfrecords_tools.cli_collect import add_collect
from tfrecords_tools.cli_datasets import DATASET_COMMANDS
from tfrecords_tools.cli_sources import GENERAL_COMMANDS


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns its exit status: 0 fine, 1 problems or no record found, 2 it could not be done."""
    parser = _make_parser()
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("tfrecords-tools", description="Images, texts and labels -> TFRecord datasets.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    pack = commands.add_parser("pack", help="make a dataset folder from a raw source")
    sources = pack.add_subparsers(required=True, metavar="SOURCE")
    raw = argparse.RawDescriptionHelpFormatter
    for command in GENERAL_COMMANDS + DATASET_COMMANDS:
        source = sources.add_parser(command.name, help=command.help, epilog=command.epilog, formatter_class=raw)
        command.add_arguments(source)
        _add_pack_options(source)
        source.set_defaults(run=_pack, make_source=command.make_source)

    inspect = commands.add_parser("inspect", help="print records, write their images out")
    inspect.add_argument("folder")
    inspect.add_argument("--split", help="default: the first; with --id, all")
    inspect.add_argument("--num", type=_positive, default=5, help="how many records (default: 5)")
    inspect.add_argument("--id", help="only the record with this id")
    inspect.add_argument("--images", metavar="FOLDER", help="write their images here as <n>.jpg")
    inspect.set_defaults(run=_inspect)
    verify = commands.add_parser("verify", help="re-read everything and compare it with dataset.json")
    verify.add_argument("folder")
    verify.add_argument("--leaks", action="store_true", help="also list near-duplicate images that stand in different splits")
    verify.add_argument("--max_distance", type=int, default=4, help="of two near-duplicates' hashes, in bits (default: 4)")
    verify.set_defaults(run=_verify)
    stats = commands.add_parser("stats", help="counts, missing modalities, text lengths, image sizes")
    stats.add_argument("folder")
    stats.add_argument("--json", action="store_true", help="as JSON")
    stats.set_defaults(run=_stats)
    add_collect(commands)
    return parser


def _add_pack_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("packing")
    group.add_argument("--output", required=True, metavar="FOLDER", help="the dataset folder to make")
    group.add_argument("--overwrite", action="store_true", help="replace a dataset that is already there")
    group.add_argument(
        "--fractions", default="train=0.8,val=0.1,test=0.1", help="splits to draw (default: train=0.8,val=0.1,test=0.1)"
    )
    group.add_argument("--seed", type=int, default=0, help="of splits and record order (default: 0)")
    group.add_argument("--labels", metavar="FILE", help="a given labels.txt; examples with other labels are left out")
    group.add_argument("--short_side", type=int, default=256, help="pixels; larger images are shrunk to it (default: 256)")
    group.add_argument("--passthrough", action="store_true", help="keep image sizes, and the bytes of plain JPEGs")
    group.add_argument("--quality", type=int, default=90, help="JPEG quality of re-encoded images (default: 90)")
    group.add_argument("--max_pixels", type=int, default=50_000_000, help="largest bitmap ever decoded (default: 50,000,000)")
    group.add_argument(
        "--bad_images",
        choices=("keep", "reject"),
        default="keep",
        help="a record whose image is missing or unreadable, but that has a text: keep it without its image (default; "
        "models handle missing images, and its text and label are good) or leave it out. Reported either way",
    )
    group.add_argument("--max_bad_fraction", type=float, default=0.2, help="stop when more of the input is bad (default: 0.2)")
    group.add_argument("--examples_per_shard", type=int, default=2000, help="default: 2000")
    group.add_argument("--workers", type=int, help="processes (default: one a core)")


def _pack(options: argparse.Namespace) -> int:
    from tfrecords_tools.images import ImageOptions
    from tfrecords_tools.labels import LabelVocabulary
    from tfrecords_tools.pack import PackOptions, pack
    from tfrecords_tools.splits import parse_fractions

    pack_options = PackOptions(
        images=ImageOptions(None if options.passthrough else options.short_side, options.quality, options.max_pixels),
        fractions=parse_fractions(options.fractions),
        seed=options.seed,
        examples_per_shard=options.examples_per_shard,
        keep_without_image=options.bad_images == "keep",
        max_bad_fraction=options.max_bad_fraction,
        workers=options.workers,
    )
    labels = LabelVocabulary.load(options.labels) if options.labels else None
    started = time.monotonic()
    info = pack(options.make_source(options), options.output, pack_options, labels, options.overwrite)
    seconds = time.monotonic() - started
    total = sum(info.num_examples(split) for split in info.splits)
    parts = ", ".join(f"{split} {info.num_examples(split):,}" for split in info.splits)
    print(f"{options.output}: {total:,} examples ({parts}), {len(info.labels)} labels, in {seconds:.1f} s")
    for action, count in info.provenance["rejected"].items():
        print(f"  {count:,} {action}: see {Path(options.output) / 'rejected.jsonl'}")
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from tfrecords_tools.dataset_info import DatasetInfo
    from tfrecords_tools.schema import decode_example
    from tfrecords_tools.shards import iter_records

    info = DatasetInfo.load(options.folder)
    splits = [options.split] if options.split else list(info.splits) if options.id else [next(iter(info.splits))]
    images = Path(options.images) if options.images else None
    if images:
        images.mkdir(parents=True, exist_ok=True)
    shards = [(split, Path(options.folder) / shard.file) for split in splits for shard in info.shards(split)]
    records = ((split, decode_example(serialized)) for split, path in shards for serialized in iter_records(path))
    if options.id:
        records = ((split, record) for split, record in records if record.id == options.id)
    number = -1
    for number, (split, record) in enumerate(itertools.islice(records, 1 if options.id else options.num)):
        print(f"{record.id}  [{split}]")
        print(f"  image        {_describe_image(record)}")
        for field, texts in record.texts.items():
            print(f"  {field:<12} {' | '.join(texts) or '(missing)'}")
        print(f"  labels       {', '.join(info.labels.names[index] for index in record.label_ids) or '(none)'}")
        if record.weight != 1:
            print(f"  weight       {record.weight:g}")
        if images and record.image:
            (images / f"{number:05d}.jpg").write_bytes(record.image)
    if number < 0:
        wanted = f" with the id {options.id!r}" if options.id else ""
        print(f"no record{wanted} in {', '.join(splits)}", file=sys.stderr)
        return 1
    return 0


def _describe_image(record) -> str:
    return f"{record.width}x{record.height}, {len(record.image):,} bytes" if record.image else "(missing)"


def _verify(options: argparse.Namespace) -> int:
    from tfrecords_tools.verify import verify

    problems = verify(options.folder)
    for problem in problems:
        print(problem)
    print(f"{options.folder}: {f'{len(problems)} problem(s)' if problems else 'everything is as dataset.json says'}")
    if options.leaks:
        _print_leaks(options)
    return 1 if problems else 0


def _print_leaks(options: argparse.Namespace) -> None:
    from tfrecords_tools.leakage import find_leaks

    leaks = find_leaks(options.folder, options.max_distance)
    for leak in leaks:
        labels = "same labels" if leak.same_labels else "other labels"
        pair = f"{leak.id} [{leak.split}] and {leak.other_id} [{leak.other_split}]"
        print(f"near-duplicates: {pair}, {leak.distance} bits, {labels}")
    print(f"{options.folder}: {len(leaks):,} pair(s) of near-duplicate images in different splits")


def _stats(options: argparse.Namespace) -> int:
    from tfrecords_tools.stats import compute_stats, format_stats

    stats = compute_stats(options.folder)
    print(json.dumps(stats, indent=2) if options.json else format_stats(stats))
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive number. Received: {text!r}")
    return int(text)
