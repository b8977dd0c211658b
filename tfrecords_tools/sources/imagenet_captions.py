"""ImageNet with the texts that its images had on Flickr (ImageNet-Captions).

    train/n01440764/n01440764_10026.JPEG      or flat: n01440764_10026.JPEG, n01440764_tench.JPEG
    val/ILSVRC2012_val_00000001.JPEG          in folders by wnid; or flat as released, with a ground truth (imagenet_val.py)
    imagenet_captions.json                    [{"filename": "n01440764_10026.JPEG", "wnid": "n01440764", "title": "My tench",
                                                "tags": ["fish", "lake"], "description": ""}, …]
    synset_words.txt, LOC_synset_mapping.txt  n01440764 tench, Tinca tinca
    texts of the classes                      wnid,description in a CSV, or class_descriptions.jsonl

- The id of a record is <wnid>/<file name>. Two thirds of ImageNet's images have no entry in imagenet_captions.json. They are
  packed without texts, or left out with `captioned_only`. If the images of a class are there, but not that of an entry, the
  entry is packed without its image and reported. Entries of other classes are ignored, so a subset of ImageNet can be packed
  with the whole file.
- Labels are wnids, since some names repeat (crane, maillot). They are numbered in the order of the synset file, which for the
  1,000 sorted wnids is the usual numbering. With `label_names` labels are names, such as "crane (n02012849)" if one repeats.
- `tags` become one text, "fish, lake". Texts of classes are the field `class_description`, which is derived from the label.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import re
from collections.abc import Generator, Iterator
from pathlib import Path

from tfrecords_tools.sources.command import SourceCommand, comma_list, split_paths
from tfrecords_tools.sources.disk_index import DiskIndex
from tfrecords_tools.sources.example import Rejection, Source, SourceExample
from tfrecords_tools.sources.files import (
    SourceError,
    iter_images,
    joined_text,
    read_class_texts,
    read_synsets,
    unique_names,
)
from tfrecords_tools.sources.imagenet_val import PREFIX, meta_of, read_val_labels
from tfrecords_tools.sources.json_stream import iter_json

FIELDS = ("title", "description", "tags")
CLASS_FIELD = "class_description"
_WNID = re.compile(r"n\d{8}(?=_|\Z)")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to read of ImageNet.

    Attributes:
        images: maps splits to folders, which hold a folder for each class, or the images of all classes. For the split ""
            splits are drawn. The captions belong to the first folder.
        val_labels: the file with the classes of validation images in a flat folder, see `read_val_labels`.
        captions: the path of imagenet_captions.json; None packs images without captions.
        fields: the text fields to read, some of `FIELDS`.
        synsets: the file with the names and the order of the classes; None sorts the wnids.
        label_names: whether labels are the names of the classes instead of their wnids.
        class_texts: a file with texts of the classes by wnid or name; None if there is none.
        captioned_only: whether images without an entry are left out.
    """

    images: dict[str, Path]
    val_labels: Path | None = None
    captions: Path | None = None
    fields: tuple[str, ...] = FIELDS
    synsets: Path | None = None
    label_names: bool = False
    class_texts: Path | None = None
    captioned_only: bool = False


def make_source(options: Options) -> Source:
    """Declares ImageNet and ImageNet-Captions as a source.

    Raises:
        SourceError: if a file or folder is missing, or options contradict each other.

    Example:
        >>> make_source(Options({"train": Path("train")}, captions=Path("imagenet_captions.json"), fields=("title", "tags")))
    """
    unknown = [field for field in options.fields if field not in FIELDS]
    if unknown:
        raise SourceError(f"fields must be of {', '.join(FIELDS)}. Received: {unknown[0]!r}")
    if options.label_names and not options.synsets:
        raise SourceError("names of the classes come from a synset file (--synsets)")
    if options.captioned_only and not options.captions:
        raise SourceError("which images have captions, imagenet_captions.json says (--captions)")
    absent = [folder for folder in options.images.values() if not folder.is_dir()]
    if absent or not options.images:
        raise SourceError(f"{absent[0]} is no folder" if absent else "name the folder of the images (--images)")
    files = [path for path in (options.val_labels, options.captions, options.synsets, options.class_texts) if path]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise SourceError(f"{missing[0]} does not exist")
    if options.val_labels:
        files += filter(None, [meta_of(options.val_labels)])
    else:
        _check_needs_no_val_labels(options.images)
    chosen = dataclasses.asdict(options)
    fields = dict.fromkeys(options.fields if options.captions else (), False)
    return Source(
        name="imagenet_captions",
        examples=lambda: iter_examples(options),
        text_fields=fields | ({CLASS_FIELD: True} if options.class_texts else {}),
        multi_label=False,
        files=files,
        options={key: chosen[key] for key in ("fields", "label_names", "captioned_only")} | {"splits": list(options.images)},
        labels=list(_label_names(options).values()) or None,
        image_roots=tuple(options.images.values()),
    )


def _check_needs_no_val_labels(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        first = next(iter_images(folder), None)
        if first and first.name.startswith(PREFIX) and not _wnid(first.parent.name):
            raise SourceError(
                f"the classes of {folder} stand neither in its images' names ({first.name}) nor in folders by wnid; give the "
                "devkit's ILSVRC2012_validation_ground_truth.txt (with meta.mat beside it) or Kaggle's LOC_val_solution.csv "
                "as --val_labels"
            )


def iter_examples(options: Options) -> Iterator[SourceExample | Rejection]:
    """Yields an example for each image, class by class, and rejections of entries and images that belong to no class."""
    names = _label_names(options)
    texts: dict[str, str] = {}
    if options.class_texts:
        synsets = read_synsets(options.synsets) if options.synsets else {}
        texts, problems = read_class_texts(options.class_texts, ("wnid", "description"), synsets)
        yield from (Rejection("", where, reason, "row not used") for where, reason in problems)
    val_labels: dict[str, str] = {}
    if options.val_labels:
        val_labels, problems = read_val_labels(options.val_labels)
        yield from (Rejection("", where, reason, "row not used") for where, reason in problems)
    with DiskIndex() as index:
        if options.captions:
            yield from _read_captions(options, index)
        for number, (split, folder) in enumerate(options.images.items()):
            for wnid, paths in _by_class(folder, val_labels):
                if not wnid:
                    yield from (Rejection(path.name, str(path), _why_no_class(path, options)) for path in paths)
                elif names and wnid not in names:
                    reason = f"{wnid} is not in {options.synsets.name}"
                    yield from (Rejection(f"{wnid}/{path.name}", str(path), reason) for path in paths)
                else:
                    captions = yield from _captions_of(wnid, index, options)
                    shared = {CLASS_FIELD: [texts[wnid]]} if wnid in texts else {}
                    images = {path.name: path for path in paths}
                    for name in sorted(images if number else images | captions):
                        if options.captioned_only and name not in captions:
                            continue
                        image_texts = {field: [text] for field, text in captions.get(name, {}).items()}
                        image = images.get(name, paths[0].parent / name)
                        place = f"{wnid}/{name}"
                        yield SourceExample(place, place, image, image_texts | shared, [names.get(wnid, wnid)], split or None)


def _captions_of(wnid: str, index: DiskIndex, options: Options) -> Generator[Rejection, None, dict[str, dict[str, str]]]:
    """Returns the texts of the images of a class by file name; yields rejections of further entries of an image."""
    captions: dict[str, dict[str, str]] = {}
    for name, texts in index.get(wnid):
        if name in captions:
            yield Rejection(f"{wnid}/{name}", options.captions.name, "has several entries; the first is used", "entry not used")
        captions.setdefault(name, texts)
    return captions


def _label_names(options: Options) -> dict[str, str]:
    """The labels by wnid, in the order of the synset file; empty if there is none."""
    synsets = read_synsets(options.synsets) if options.synsets else {}
    return unique_names(synsets) if options.label_names else {wnid: wnid for wnid in synsets}


def _read_captions(options: Options, index: DiskIndex) -> Iterator[Rejection]:
    """Adds the file names and texts of all entries to the index, by wnid."""
    for position, (_, entry) in enumerate(iter_json(options.captions)):
        entry = entry if isinstance(entry, dict) else {}
        name, wnid = entry.get("filename"), entry.get("wnid")
        if not (isinstance(name, str) and isinstance(wnid, str)):
            yield Rejection("", f"{options.captions.name}: item {position}", "an entry needs a filename and a wnid")
            continue
        index.add(wnid, [Path(name).name, {field: joined_text(entry.get(field)) for field in options.fields}])


def _by_class(folder: Path, val_labels: dict[str, str]) -> Iterator[tuple[str, list[Path]]]:
    """Yields each wnid with the paths of its images, sorted. Images of no class have the wnid "".

    Memory holds the paths of one class, and those of a flat folder of validation images, whose classes are mixed.
    """
    mixed: dict[str, list[Path]] = {}
    for wnid, paths in itertools.groupby(iter_images(folder), lambda path: _wnid(path.parent.name) or _wnid(path.name)):
        if wnid:
            yield wnid, list(paths)
            continue
        for path in paths:
            mixed.setdefault(val_labels.get(path.stem, ""), []).append(path)
    yield from sorted(mixed.items())


def _why_no_class(path: Path, options: Options) -> str:
    reason = "neither its name nor that of its folder begins with a wnid"
    if not path.name.startswith(PREFIX):
        return reason
    where = f"it is not in {options.val_labels.name}" if options.val_labels else "--val_labels, which would tell, is not given"
    return f"{reason}, and {where}"


def _wnid(name: str) -> str:
    match = _WNID.match(name)
    return match[0] if match else ""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        action="append",
        required=True,
        metavar="[SPLIT=]FOLDER",
        help="holds folders by wnid, images named after one, or validation images; once a split, that of the captions first",
    )
    parser.add_argument(
        "--val_labels",
        type=Path,
        metavar="FILE",
        help="classes of validation images that lie in a flat folder: the devkit's ILSVRC2012_validation_ground_truth.txt "
        "(needs meta.mat beside it or in ../data/) or Kaggle's LOC_val_solution.csv",
    )
    parser.add_argument("--captions", type=Path, metavar="FILE", help="imagenet_captions.json")
    parser.add_argument(
        "--fields", default="title,description,tags", help="text fields (default: title,description,tags)", metavar="FIELD,…"
    )
    parser.add_argument("--synsets", type=Path, metavar="FILE", help="synset_words.txt or LOC_synset_mapping.txt")
    parser.add_argument("--label_names", action="store_true", help="class names as labels instead of wnids")
    parser.add_argument(
        "--class_texts", type=Path, metavar="FILE", help="texts of the classes: wnid,description or class_descriptions.jsonl"
    )
    parser.add_argument("--captioned_only", action="store_true", help="leave out images that have no entry in --captions")


def _source_of(options: argparse.Namespace) -> Source:
    return make_source(
        Options(
            images=split_paths(options.images),
            val_labels=options.val_labels,
            captions=options.captions,
            fields=comma_list(options.fields),
            synsets=options.synsets,
            label_names=options.label_names,
            class_texts=options.class_texts,
            captioned_only=options.captioned_only,
        )
    )


COMMAND = SourceCommand(
    name="imagenet_captions",
    help="ImageNet, with the titles, descriptions and tags of ImageNet-Captions",
    epilog="""examples:
  tfrecords-tools pack imagenet_captions --images=train=CLS-LOC/train --images=val=CLS-LOC/val \\
      --val_labels=LOC_val_solution.csv --synsets=LOC_synset_mapping.txt \\
      --captions=imagenet_captions.json --output=data/imagenet
  tfrecords-tools pack imagenet_captions --images=train --captions=imagenet_captions.json --captioned_only \\
      --fields=title,tags --output=data/imagenet_captions

Labels are wnids: names repeat. Validation images lie in folders by wnid, or in one flat folder with --val_labels.
""",
    add_arguments=_add_arguments,
    make_source=_source_of,
)
