"""`tfrecords-tools pack`: the options that packing has for any source, and the command itself."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tfrecords_tools.sources.command import find_commands, split_paths


def add_pack(commands) -> None:
    """Adds the command to the sub-parsers `commands`."""
    pack = commands.add_parser("pack", help="make a dataset folder from a raw source")
    sources = pack.add_subparsers(required=True, metavar="SOURCE")
    for command in find_commands():
        source = sources.add_parser(command.name, help=command.help, epilog=command.epilog)
        command.add_arguments(source)
        _add_options(source)
        source.set_defaults(run=_pack, make_source=command.make_source)


def split_beam_options(arguments: list[str]) -> tuple[list[str], list[str]]:
    """["a", "--", "b"] -> (["a"], ["b"]). The arguments behind "--" are those of Apache Beam."""
    if "--" not in arguments:
        return arguments, []
    mark = arguments.index("--")
    return arguments[:mark], arguments[mark + 1 :]


def _add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("packing")
    group.add_argument("--output", required=True, metavar="FOLDER", help="the dataset folder to make")
    group.add_argument("--overwrite", action="store_true", help="replace a dataset that is already there")
    group.add_argument(
        "--fractions", default="train=0.8,val=0.1,test=0.1", help="splits to draw (default: train=0.8,val=0.1,test=0.1)"
    )
    group.add_argument(
        "--stratify",
        action="store_const",
        const=True,
        help="draw splits by label, so that small classes stand in all of them (default for tables and image folders)",
    )
    group.add_argument(
        "--no_stratify", dest="stratify", action="store_const", const=False, help="draw splits by hash of the id alone"
    )
    group.add_argument("--seed", type=int, default=0, help="seed of the splits and of the order of records (default: 0)")
    group.add_argument(
        "--labels",
        metavar="FILE",
        help="a given labels.txt; examples with other labels are left out. Of tables also columns: --labels=red,round",
    )
    group.add_argument("--short_side", type=int, default=256, help="pixels; larger images are shrunk to it (default: 256)")
    group.add_argument("--passthrough", action="store_true", help="keep image sizes, and the bytes of plain JPEGs")
    group.add_argument("--quality", type=int, default=90, help="JPEG quality of re-encoded images (default: 90)")
    group.add_argument("--max_pixels", type=int, help="largest bitmap ever decoded (default: 50,000,000)")
    group.add_argument(
        "--allow_outside",
        action="store_true",
        help="also read images outside of the source's folder of images, where absolute paths, '../' or links lead",
    )
    group.add_argument(
        "--bad_images",
        choices=("keep", "reject"),
        default="keep",
        help="a record whose image is missing or unreadable, but that has a text: keep it without its image (default; "
        "models handle missing images, and its text and label are good) or leave it out. Reported either way",
    )
    group.add_argument(
        "--unlabelled",
        choices=("keep", "leave_out"),
        default="keep",
        help="examples without a label: keep them (default; where examples may carry several labels, it says that none "
        "applies) or leave them out",
    )
    group.add_argument(
        "--check_images",
        choices=("time", "content", "none"),
        default="time",
        help="what tells later whether image files changed: size and time (default), a checksum, or nothing",
    )
    group.add_argument("--max_bad_fraction", type=float, default=0.2, help="stop when more of the input is bad (default: 0.2)")
    group.add_argument("--examples_per_shard", type=int, default=2000, help="default: 2000")
    group.add_argument("--workers", type=int, help="processes (default: one a core)")
    scale = parser.add_argument_group("large sources")
    scale.add_argument(
        "--estimate",
        type=_count,
        nargs="?",
        const=0,
        metavar="N",
        help="pack nothing, but a sample; say what N examples would take (default: all that the source has, counted)",
    )
    scale.add_argument(
        "--engine",
        choices=("local", "beam"),
        default="local",
        help="beam: spread the shards over machines by Apache Beam, whose own options follow behind '--', as in "
        "-- --runner=FlinkRunner --flink_master=host:8081 (default: local). More: docs/beam.md",
    )
    scale.add_argument(
        "--exchange", metavar="URL", help="beam: where tasks and shards pass, if workers do not share --output's disk"
    )
    scale.add_argument(
        "--path_map",
        action="append",
        default=[],
        metavar="FOLDER=URL",
        help="beam: workers read images below FOLDER from here; may be repeated",
    )


def _pack(options: argparse.Namespace) -> int:
    from tfrecords_tools.dataset.labels import LabelVocabulary
    from tfrecords_tools.dataset.schema import MAX_PIXELS
    from tfrecords_tools.dataset.splits import parse_fractions
    from tfrecords_tools.packing.images import ImageOptions
    from tfrecords_tools.packing.pack import PackOptions, pack
    from tfrecords_tools.packing.summary import summary_lines

    pack_options = PackOptions(
        images=ImageOptions(
            short_side=None if options.passthrough else options.short_side,
            quality=options.quality,
            max_pixels=MAX_PIXELS if options.max_pixels is None else options.max_pixels,
        ),
        fractions=parse_fractions(options.fractions),
        stratify=options.stratify,
        seed=options.seed,
        examples_per_shard=options.examples_per_shard,
        keep_without_image=options.bad_images == "keep",
        allow_outside=options.allow_outside,
        max_bad_fraction=options.max_bad_fraction,
        workers=options.workers,
        unlabelled=options.unlabelled,
        check_images="none" if options.path_map else options.check_images,  # images are not where the source names them
    )
    engine = _engine(options)
    if options.labels and hasattr(options, "label_columns") and not Path(options.labels).is_file():
        options.labels, options.label_columns = None, options.labels
    labels = LabelVocabulary.load(options.labels) if options.labels else None
    source = options.make_source(options)
    for note in source.notes:
        print(note)
    if options.estimate is not None:
        from tfrecords_tools.packing.estimate import estimate

        print(estimate(source, pack_options, labels, options.estimate or None))
        return 0
    started = time.monotonic()
    info = pack(source, options.output, pack_options, labels, options.overwrite, **engine)
    seconds = time.monotonic() - started
    total = sum(info.num_examples(split) for split in info.splits)
    parts = ", ".join(f"{split} {info.num_examples(split):,}" for split in info.splits)
    print(f"{options.output}: {total:,} examples ({parts}), {len(info.labels)} labels, in {seconds:.1f} s")
    for line in summary_lines(info, options.output):
        print(f"  {line}")
    return 0


def _engine(options: argparse.Namespace) -> dict:
    """The argument `engine` of `pack` as a keyword, or nothing for the local engine."""
    if options.engine == "beam":
        from tfrecords_tools.packing.beam import make_engine

        path_map = {folder: str(url) for folder, url in split_paths(options.path_map).items()}
        return {"engine": make_engine(options.beam_options, options.exchange, path_map)}
    for value, name in ((options.beam_options, "--"), (options.exchange, "--exchange"), (options.path_map, "--path_map")):
        if value:
            raise ValueError(f"{name} is for Apache Beam; add --engine=beam")
    return {}


def _count(text: str) -> int:
    """Reads a number of examples: "14000000", "14e6" or "14_000_000"."""
    try:
        count = float(text)
    except ValueError:
        count = 0.0
    if count < 1 or count != int(count):
        raise argparse.ArgumentTypeError(f"must be a positive number. Received: {text!r}")
    return int(count)
