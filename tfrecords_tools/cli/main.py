"""`tfrecords-tools`: collect, pack, inspect, verify and count datasets. Needs no TensorFlow."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path

from tfrecords_tools.cli.collect import add_collect
from tfrecords_tools.cli.pack import add_pack, split_beam_options
from tfrecords_tools.cli.parser import INTERRUPTED, Parser
from tfrecords_tools.dataset.printable import LINE_BREAK, printable
from tfrecords_tools.progress import showing


def main(arguments: list[str] | None = None) -> int:
    """Runs one command.

    Returns:
        the exit status. 0: all is well. 1: problems were found, or no record. 2: the command could not be carried out.
        130: the command was interrupted by Ctrl-C.
    """
    parser = make_parser()
    own_options, beam_options = split_beam_options(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(own_options, argparse.Namespace(beam_options=beam_options))
    try:
        with showing():
            return options.run(options)
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"{parser.prog}: {printable(str(error), kept=LINE_BREAK)}", file=sys.stderr)
        return 2


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; `parse_args` sets `run` to the command's function."""
    parser = Parser("tfrecords-tools", description="Pack images, texts and labels into TFRecord datasets, and look into them.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_pack(commands)
    inspect = commands.add_parser("inspect", help="print records, write their images out")
    inspect.add_argument("folder")
    inspect.add_argument("--split", help="default: the first; with --id, all")
    inspect.add_argument("--num", type=_positive, default=5, help="how many records (default: 5)")
    inspect.add_argument("--id", help="only the record with this id")
    inspect.add_argument("--images", metavar="FOLDER", help="write their images here as <n>.jpg")
    inspect.set_defaults(run=_inspect)
    verify = commands.add_parser("verify", help="re-read every byte and compare it with dataset.json and checksums.sha256")
    verify.add_argument("folder")
    verify.add_argument(
        "--accept",
        action="store_true",
        help="first write checksums.sha256 anew: after a change on purpose, such as a licence in croissant.json, or for a "
        "dataset of an older version",
    )
    verify.add_argument("--leaks", action="store_true", help="also list near-duplicate images that stand in different splits")
    verify.add_argument("--max_distance", type=int, default=4, help="of two near-duplicates' hashes, in bits (default: 4)")
    verify.set_defaults(run=_verify)
    stats = commands.add_parser("stats", help="labels, what is missing, texts and leaks in them, image sizes")
    stats.add_argument("folder")
    stats.add_argument("--json", action="store_true", help="as JSON, with the histograms")
    stats.add_argument("--html", type=Path, metavar="FILE", help="also write a page of its own with plots and sample records")
    stats.set_defaults(run=_stats)
    add_collect(commands)
    return parser


def _inspect(options: argparse.Namespace) -> int:
    from tfrecords_tools.dataset.info import DatasetInfo
    from tfrecords_tools.dataset.schema import decode_example
    from tfrecords_tools.dataset.shards import iter_records

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
        print(f"{printable(record.id)}  [{split}]")
        print(f"  image        {_describe_image(record)}")
        for field, texts in record.texts.items():
            print(f"  {printable(field):<12} {printable(' | '.join(texts)) or '(missing)'}")
        labels = ", ".join(info.labels.names[index] for index in record.label_ids)
        print(f"  labels       {printable(labels) or '(none)'}")
        if record.weight != 1:
            print(f"  weight       {record.weight:g}")
        if images and record.image:
            (images / f"{number:05d}.jpg").write_bytes(record.image)
    if number < 0:
        condition = f" with the id {options.id!r}" if options.id else ""
        print(f"no record{condition} in {', '.join(splits)}", file=sys.stderr)
        return 1
    return 0


def _describe_image(record) -> str:
    return f"{record.width}x{record.height}, {len(record.image):,} bytes" if record.image else "(missing)"


def _verify(options: argparse.Namespace) -> int:
    from tfrecords_tools.dataset.folder import write_checksums
    from tfrecords_tools.dataset.info import DATASET_FILE
    from tfrecords_tools.inspect.verify import verify

    folder = Path(options.folder)
    if options.accept and (folder / DATASET_FILE).is_file():
        write_checksums(folder)
    problems = verify(folder)
    for problem in problems:
        print(printable(problem))
    print(f"{folder}: {f'{len(problems)} problem(s)' if problems else 'everything is as dataset.json says'}")
    if options.leaks:
        _print_leaks(options)
    return 1 if problems else 0


def _print_leaks(options: argparse.Namespace) -> None:
    from tfrecords_tools.inspect.leakage import find_leaks

    leaks = find_leaks(options.folder, options.max_distance)
    for leak in leaks:
        labels = "same labels" if leak.same_labels else "other labels"
        pair = f"{leak.id} [{leak.split}] and {leak.other_id} [{leak.other_split}]"
        print(f"near-duplicates: {printable(pair)}, {leak.distance} bits, {labels}")
    print(f"{options.folder}: {len(leaks):,} pair(s) of near-duplicate images in different splits")


def _stats(options: argparse.Namespace) -> int:
    from tfrecords_tools.inspect.stats import compute_stats, format_stats

    if options.html:
        options.html.parent.mkdir(parents=True, exist_ok=True)
        if options.html.is_dir():  # checked before the whole dataset is read
            raise ValueError(f"--html names the file to write; {options.html} is a folder")
    stats = compute_stats(options.folder)
    if options.html:
        from tfrecords_tools.inspect.stats_page import write_page

        write_page(options.folder, stats, options.html)
    print(json.dumps(stats, indent=2) if options.json else format_stats(stats))
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive number. Received: {text!r}")
    return int(text)
