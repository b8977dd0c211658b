"""WebVision 1.0 and 2.0: images that search engines returned for the names of classes, with the text around them.

Version 1.0 has 1,000 classes and 2.4 million images, version 2.0 has 5,000 and 16 million. Both are released as:

    info/synsets.txt                 n01440764 tench, Tinca tinca          line i is class i, from 0
    info/train_filelist_google.txt   google/q0001/abc.jpg 0                path and class; also _flickr, _all
    info/train_meta_list_google.txt  google/q0001.json 1                   line i belongs to line i of the file list;
                                                                           position in the JSON list, from 1
    info/val_filelist.txt            val000001.jpg 57                      the images lie in val_images_256/ (or the like)
    info/queries_google.txt          1 tench                               2.0: one queries.txt
    google/q0001.json                [{"id": "abc", "title": "Tench", "description": "…", "tags": ["fish"]}, …]

The benchmark of 2.0 has another layout. The images of all queries of a class lie together, and metadata is joined by id:

    meta/synsets.txt                 n01440764
    meta/train.txt                   n01440764/abc.jpg 0                   the images lie in train/ (or beside meta/)
    meta/val.txt                     val000001.jpg 57
    google/*.json, flickr/*.json     as above

- The id of a record is the path in the list, since different images have equal file names, and one image may be in several
  classes.
- The JSON files lie beside the images, in metadata/, in google_json/, or below `metadata_root`.
- All texts are optional. `tags` become one text, "fish, lake". `query` holds the words by which an image was found; it is
  derived from the label.
- An image without metadata is packed without texts, and reported with the reason in rejected.jsonl.
- `holdout=0.04` splits the training images as in the paper: of each class 4 % are drawn by hash, half `val`, half `test`.
- Memory does not grow with the number of images. A join by id takes some 300 bytes for each image in the temporary folder
  (TMPDIR).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from tfrecords_tools.dataset.splits import Holdout
from tfrecords_tools.sources import webvision_metadata as metadata
from tfrecords_tools.sources.command import SourceCommand, comma_list
from tfrecords_tools.sources.example import Rejection, Source, SourceExample
from tfrecords_tools.sources.files import SourceError, iter_lines, read_synsets, unique_names
from tfrecords_tools.sources.webvision_metadata import Options

FIELDS = ("title", "description", "tags", "query")
SOURCES = ("all", "google", "flickr")
SPLITS = ("train", "val", "test")
LAYOUTS = {"release": "info", "benchmark": "meta"}
_IMAGE_FOLDERS = ("{}", "{}_images_256", "{}_images_resized", "{}_images")
_WNID = re.compile(r"n\d{8}\Z")


@dataclasses.dataclass(frozen=True)
class FileList:
    """A list of images.

    Attributes:
        split: the split of the images.
        path: the file of the list.
        meta_path: the file that names the metadata of each image, line by line; None if there is none.
        images: the folder to which the paths in the list are relative.
    """

    split: str
    path: Path
    meta_path: Path | None
    images: Path


def make_source(options: Options) -> Source:
    """Declares a WebVision folder as a source. Its lists are found and checked before anything is read.

    Raises:
        SourceError: if a list is missing, two lists that belong together differ in length, or options contradict each other.

    Example:
        >>> make_source(Options(Path("webvision"), sources="google", num_classes=50, fields=("title", "tags")))
    """
    _check_options(options)
    labels = _labels(options)
    lists = _file_lists(options)
    for file_list in lists:
        if file_list.meta_path:
            lengths = [sum(1 for _ in iter_lines(path)) for path in (file_list.path, file_list.meta_path)]
            if lengths[0] != lengths[1]:
                raise SourceError(
                    f"{file_list.path} has {lengths[0]:,} lines, {file_list.meta_path.name} has {lengths[1]:,}: "
                    "they must pair line by line"
                )
    chosen = {key: value for key, value in dataclasses.asdict(options).items() if "root" not in key}
    listed = [path for file_list in lists for path in (file_list.path, file_list.meta_path) if path]
    return Source(
        name="webvision",
        examples=lambda: iter_examples(options),
        text_fields={field: field == "query" for field in options.fields},
        multi_label=False,
        files=[_info(options) / "synsets.txt", *listed],
        options=chosen | {"layout": "benchmark" if options.is_benchmark else "release"},
        labels=labels,
        image_roots=(options.image_root or options.root,),
    )


def iter_examples(options: Options) -> Iterator[SourceExample | Rejection]:
    """Yields an example for each image in the lists. An image without metadata has no texts, and its report precedes it."""
    labels = _labels(options)
    lists = _file_lists(options)
    holdout = None
    if options.holdout:
        train = [file_list for file_list in lists if file_list.split == "train"]
        holdout = Holdout(lambda: _members(train, len(labels)), options.holdout, options.seed)
    check_folder = options.is_benchmark and not options.label_names
    with metadata.open_metadata(options) as find_texts:
        for file_list in lists:
            for where, path, number, meta in _rows(file_list):
                if number is not None and options.num_classes and number >= options.num_classes:
                    continue
                problem = _class_problem(path, number, labels, file_list.split, check_folder)
                if problem:
                    yield Rejection(path, where, problem)
                    continue
                label = labels[number] if number is not None else None
                split = file_list.split
                texts: dict[str, list[str]] = {}
                if split == "train":
                    split = holdout.split(str(number), Path(path).stem) if holdout else split
                    if options.fields:
                        texts, problem, action = find_texts(path, meta)
                        if problem:
                            yield Rejection(path, where, problem, action)
                yield SourceExample(path, where, file_list.images / path, texts, [label] if label else [], split)


def _check_options(options: Options) -> None:
    if options.layout not in (None, *LAYOUTS):
        raise SourceError(f"layout must be one of {', '.join(LAYOUTS)}. Received: {options.layout!r}")
    layouts = [layout for layout, folder in LAYOUTS.items() if (options.root / folder).is_dir()]
    if options.layout is None and len(layouts) != 1:
        folders = "both info/ (the release) and" if layouts else "neither info/ (the release) nor"
        raise SourceError(
            f"{options.root} holds {folders} meta/ (the benchmark's layout)" + "; say which (--layout)" * bool(layouts)
        )
    for name, chosen, known in (("splits", options.read_splits, SPLITS), ("fields", options.fields, FIELDS)):
        unknown = [value for value in chosen if value not in known]
        if unknown:
            raise SourceError(f"{name} must be of {', '.join(known)}. Received: {unknown[0]!r}")
    if options.sources not in SOURCES:
        raise SourceError(f"sources must be one of {', '.join(SOURCES)}. Received: {options.sources!r}")
    if options.holdout and options.read_splits != ("train",):
        raise SourceError(
            f"a holdout makes val and test of the training images; read no other split then. Received: {options.read_splits}"
        )
    if options.num_classes is not None and options.num_classes < 1:
        raise SourceError(f"num_classes must be at least 1. Received: {options.num_classes}")
    if options.is_benchmark and options.sources != "all":
        raise SourceError(f"the benchmark layout lists all sources together. Received: sources={options.sources!r}")
    if options.is_benchmark and "query" in options.fields:
        raise SourceError("the benchmark layout does not say by which query an image was found; leave the field 'query' out")


def _info(options: Options) -> Path:
    return options.root / LAYOUTS["benchmark" if options.is_benchmark else "release"]


def _labels(options: Options) -> list[str]:
    synsets = read_synsets(_info(options) / "synsets.txt")
    names = list(unique_names(synsets).values() if options.label_names else synsets)
    return names[: options.num_classes]


def _file_lists(options: Options) -> list[FileList]:
    info, lists = _info(options), []
    for split in options.read_splits:
        pairs: list[tuple[Path, Path | None]] = [(info / f"{split}_filelist.txt", None)]
        if options.is_benchmark:
            pairs = [(info / f"{split}.txt", None)]
        elif split == "train":
            names = [options.sources]
            if options.sources == "all" and not (info / "train_filelist_all.txt").is_file():
                names = ["google", "flickr"]
            pairs = [(info / f"train_filelist_{name}.txt", info / f"train_meta_list_{name}.txt") for name in names]
        for path, meta_path in pairs:
            _, first = next(iter_lines(path), (0, ""))
            folder = _image_folder(options, split, Path(_split_line(first)[0]))
            lists.append(FileList(split, path, meta_path if meta_path and meta_path.is_file() else None, folder))
    return lists


def _image_folder(options: Options, split: str, first: Path) -> Path:
    """The folder that holds the first image of a list, or else that has the image's sub-folder, or else one of a usual name."""
    if options.image_root:
        return options.image_root
    usual = [options.root / name.format(split) for name in _IMAGE_FOLDERS]
    folders = [folder for folder in (options.root, *usual) if (folder / first).is_file()]
    if first.parent != Path():
        folders += [folder for folder in (options.root, *usual) if (folder / first.parent).is_dir()]
    return next(iter(folders), next((folder for folder in usual if folder.is_dir()), options.root))


def _rows(file_list: FileList) -> Iterator[tuple[str, str, int | None, str]]:
    """Yields (place in the list, path, class or None, line of the metadata list or "") for each line."""
    metas = (line for _, line in iter_lines(file_list.meta_path)) if file_list.meta_path else itertools.repeat("")
    for (number, line), meta in zip(iter_lines(file_list.path), metas, strict=False):
        yield f"{file_list.path.name}:{number}", *_split_line(line), meta


def _split_line(line: str) -> tuple[str, int | None]:
    path, _, number = line.rpartition(" ")
    return (path.strip(), int(number)) if path and number.isdecimal() else (line, None)


def _members(lists: list[FileList], num_labels: int) -> Iterator[tuple[str, str]]:
    """Class and base name of each training image: copies of an image in two classes are drawn alike."""
    for _, path, number, _ in itertools.chain.from_iterable(map(_rows, lists)):
        if number is not None and number < num_labels:
            yield str(number), Path(path).stem


def _class_problem(path: str, number: int | None, labels: list[str], split: str, check_folder: bool) -> str:
    if number is None:
        return "" if split == "test" else f"no class in the line of {path!r}"
    if number >= len(labels):
        return f"class {number} is none of the {len(labels):,} in synsets.txt"
    folder = path.split("/", 1)[0]
    if check_folder and _WNID.match(folder) and folder != labels[number]:
        return f"class {number} is {labels[number]}, but the image lies in {folder}/"
    return ""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, metavar="FOLDER", help="holds info/ (the release) or meta/ (the benchmark's layout)")
    parser.add_argument("--layout", help="release or benchmark, where the folder holds both info/ and meta/")
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


def _source_of(options: argparse.Namespace) -> Source:
    return make_source(
        Options(
            options.root,
            layout=options.layout,
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


COMMAND = SourceCommand(
    name="webvision",
    help="WebVision 1.0 and 2.0: web images with titles, descriptions and tags",
    epilog="""examples:
  tfrecords-tools pack webvision webvision --holdout=0.04 --output=data/webvision
  tfrecords-tools pack webvision webvision --sources=google --num_classes=50 --output=data/mini_webvision

Labels are wnids in the order of synsets.txt. Metadata is looked for beside the images, in metadata/ and in google_json/;
an image without it is packed without texts and reported. More: the docstring of tfrecords_tools/sources/webvision.py.
""",
    add_arguments=_add_arguments,
    make_source=_source_of,
)
