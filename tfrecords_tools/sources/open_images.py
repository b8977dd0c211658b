"""Open Images V4–V7, a multi-label dataset, with image-level labels and texts of the classes (as in ImageD).

    oidv7-class-descriptions-boxable.csv      LabelName,DisplayName         (V4–V6: without this header)
                                              /m/011k07,Tortoise
    oidv7-val-annotations-human-imagelabels.csv (.gz)
        ImageID,Source,LabelName,Confidence   (Source may be absent)
        0001eeaf4aed83f9,verification,/m/0cmf2,1
    definitions.csv                           LabelName,Definition
                                              /m/011k07,"Tortoises are reptile species of …"
                                              (or the class_descriptions.jsonl of tfrecords_tools.collect)
    images/0001eeaf4aed83f9.jpg               or images/validation/0001eeaf4aed83f9.jpg

- An image has the classes whose confidence is at least `min_confidence`. A confidence of 0 means that a person did not see
  the class. If a person and a machine judged, the judgement of the person counts, and otherwise the highest confidence.
- A class list limits the labels to its classes, and numbers them in its order. Labels of other classes are ignored.
- Definitions are the field `class_description`, with a text for each class of the image. They are derived from the label.
- With `tags`, labels are not classes but the words that distinguish definitions, see tfrecords_tools/sources/tags.py.
- Images with a few-shot class are put into the split `few_shot`, so that training never sees that class.
- An image that has no label left is rejected. Rows are sorted on the disk, so those of an image may be anywhere in the file,
  and memory stays small. They take some 60 bytes each in the temporary folder (TMPDIR).
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tfrecords_tools.sources.command import SourceCommand, comma_list
from tfrecords_tools.sources.disk_index import DiskIndex
from tfrecords_tools.sources.example import Rejection, Source, SourceExample
from tfrecords_tools.sources.files import SourceError, iter_csv, read_class_texts, read_pairs, unique_names
from tfrecords_tools.sources.tags import MAX_DOCUMENT_FREQUENCY, class_tags

FEW_SHOT = "few_shot"
TEXT_FIELD = "class_description"
_FOLDERS = {"val": "validation"}  # folders that are not named like their split
_COLUMNS = ("ImageID", "LabelName", "Confidence")
_Problems = list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Options:
    """What to read of Open Images.

    Attributes:
        annotations: (split, file of image-level labels) pairs. Several files of a split are merged. For the split "" splits
            are drawn.
        classes: the file of the class list; None reads all classes, and their ids (/m/011k07) are the labels.
        definitions: the file with texts of the classes; None if there is none.
        image_root: the folder of the images; None packs no images.
        present_images: whether images that are annotated but not in `image_root` are left out without a report.
        min_confidence: the least confidence of a label, above 0 and at most 1.
        few_shot: names or ids of classes whose images are put into the split `few_shot`.
        few_shot_below: classes that fewer images have are few-shot classes, too.
        tags: whether labels are tags made of the definitions instead of classes.
        max_document_frequency: the largest fraction of the definitions that a tag may occur in, 0–1.
        any_alphabet: whether tags may have letters other than a–z.
    """

    annotations: list[tuple[str, Path]]
    classes: Path | None = None
    definitions: Path | None = None
    image_root: Path | None = None
    present_images: bool = False
    min_confidence: float = 0.5
    few_shot: tuple[str, ...] = ()
    few_shot_below: int = 0
    tags: bool = False
    max_document_frequency: float = MAX_DOCUMENT_FREQUENCY
    any_alphabet: bool = False


def make_source(options: Options) -> Source:
    """Declares Open Images files as a source; the small files are read and checked here.

    Raises:
        SourceError: if a file is missing, options contradict each other, or a few-shot class is unknown.

    Example:
        >>> make_source(Options([("val", Path("imagelabels.csv"))], classes=Path("classes.csv"), image_root=Path("images")))
    """
    if not options.annotations:
        raise SourceError("name files of image-level labels (--annotations)")
    if not 0 < options.min_confidence <= 1:
        raise SourceError(f"min_confidence must be above 0 and at most 1. Received: {options.min_confidence}")
    if options.tags and not options.definitions:
        raise SourceError("tags come from definitions of the classes; name their file (--definitions)")
    if options.present_images and not options.image_root:
        raise SourceError("present_images needs the folder of the images (--images)")
    files = [path for path in (*(path for _, path in options.annotations), options.classes, options.definitions) if path]
    missing = [path for path in files if not Path(path).is_file()]
    if missing:
        raise SourceError(f"{missing[0]} does not exist")
    classes = _Classes(options)
    chosen = {key: value for key, value in dataclasses.asdict(options).items() if key not in _OWN_FILES}
    return Source(
        name="open_images",
        examples=lambda: iter_examples(options),
        text_fields={TEXT_FIELD: True} if options.definitions else {},
        multi_label=True,
        files=files,
        options=chosen,
        labels=classes.vocabulary,
        image_roots=(Path(options.image_root),) if options.image_root else (),
    )


_OWN_FILES = ("annotations", "classes", "definitions", "image_root")


def iter_examples(options: Options) -> Iterator[SourceExample | Rejection]:
    """Yields an example for each annotated image, sorted by id, and rejections of rows that could not be read."""
    classes = _Classes(options)
    yield from (Rejection("", where, reason, "row not used") for where, reason in classes.problems)
    folders = {split: _image_folder(options.image_root, split) for split, _ in options.annotations}
    with DiskIndex() as index:
        for number, (_, path) in enumerate(options.annotations):
            yield from _read(path, number, classes, index)
        held_out = classes.held_out | _rare(index, options)
        for image_id, rows in index.groups():
            numbers = sorted({row[0] for row in rows})
            split, where = options.annotations[numbers[0]][0], f"{options.annotations[numbers[0]][1].name}: {image_id}"
            splits = {options.annotations[number][0] for number in numbers}
            image = folders[split] / f"{image_id}.jpg" if options.image_root else None
            if options.present_images and not image.is_file():
                continue
            labels = _positive(rows, options.min_confidence)
            names = classes.labels(labels)
            if len(splits) > 1:
                yield Rejection(image_id, where, f"annotated in several splits: {', '.join(sorted(splits))}")
            elif not names:
                too_low = f"no label of confidence {options.min_confidence:g} or more"
                yield Rejection(image_id, where, "its classes have no tags" if labels else too_low)
            else:
                texts = {TEXT_FIELD: [classes.texts[label] for label in labels if label in classes.texts]}
                split = FEW_SHOT if held_out.intersection(labels) else split or None
                yield SourceExample(image_id, where, image, texts, names, split)


class _Classes:
    """The names, texts and tags of the classes.

    Attributes:
        texts: maps ids of classes to their definitions.
        vocabulary: the labels of the dataset; None stands for those of its examples.
        held_out: the ids of the few-shot classes that are named in the options.
        problems: ("name:line", reason) of the rows of the files that could not be read.
    """

    def __init__(self, options: Options):
        self._names, self.texts, self.problems = {}, {}, []
        if options.classes:
            names, self.problems = read_pairs(options.classes, ("LabelName", "DisplayName"))
            self._names = unique_names(names)
        if options.definitions:
            self.texts, problems = read_class_texts(options.definitions, ("LabelName", "Definition"), self._names)
            self.problems = self.problems + problems
        self._tags = class_tags(self.texts, options.max_document_frequency, options.any_alphabet) if options.tags else None
        if self._tags is None:
            self.vocabulary = list(self._names.values()) or None
        else:
            self.vocabulary = sorted({tag for tags in self._tags.values() for tag in tags})
        ids = {name: label for label, name in self._names.items()}
        self.held_out = {ids.get(name, name) for name in options.few_shot}
        unknown = sorted(self.held_out - set(self._names)) if self._names else []
        if unknown:
            raise SourceError(f"few-shot class {unknown[0]!r} is not in {options.classes}")

    def __contains__(self, label: str) -> bool:
        return not self._names or label in self._names

    def labels(self, labels: list[str]) -> list[str]:
        """The labels of an image that has the classes with these ids: their names, or their tags."""
        if self._tags is None:
            return [self._names.get(label, label) for label in labels]
        return sorted({tag for label in labels for tag in self._tags.get(label, ())})


def _read(path: Path, number: int, classes: _Classes, index: DiskIndex) -> Iterator[Rejection]:
    """Adds [number of the file, class, whether a person judged, confidence] of each row to the index, by image."""
    for where, row in iter_csv(path, _COLUMNS):
        if isinstance(row, str):
            yield Rejection("", where, row, rows=row.rows)
            continue
        image_id, label, confidence = (row[column].strip() for column in _COLUMNS)
        try:
            value = float(confidence)
            if not (image_id and label and 0 <= value <= 1):
                raise ValueError
        except ValueError:
            yield Rejection(image_id, where, f"expected an image, a class and a confidence of 0–1. Received: {row}")
            continue
        if label in classes:
            index.add(image_id, [number, label, row.get("Source", "").strip() != "machine", value])


def _positive(rows: list[list], min_confidence: float) -> list[str]:
    """The ids of the classes that an image has with enough confidence according to its rows, sorted."""
    verdicts: dict[str, tuple[bool, float]] = {}
    for _, label, by_person, confidence in rows:
        verdicts[label] = max(verdicts.get(label, (False, 0.0)), (by_person, confidence))
    return sorted(label for label, (_, confidence) in verdicts.items() if confidence >= min_confidence)


def _rare(index: DiskIndex, options: Options) -> set[str]:
    """The ids of the classes that fewer than `few_shot_below` images have."""
    if not options.few_shot_below:
        return set()
    counts: Counter = Counter()
    for _, rows in index.groups():
        counts.update(_positive(rows, options.min_confidence))
    return {label for label, count in counts.items() if count < options.few_shot_below}


def _image_folder(image_root: Path | None, split: str) -> Path:
    folders = [(image_root or Path()) / name for name in (split, _FOLDERS.get(split, split)) if name]
    return next((folder for folder in folders if folder.is_dir()), image_root or Path())


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--annotations",
        action="append",
        required=True,
        metavar="[SPLIT=]FILE",
        help="image-level labels, .csv or .csv.gz; any number of files a split; without SPLIT, splits are drawn",
    )
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="class-descriptions CSV: the classes to read, and their names"
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="holds <id>.jpg or <split>/<id>.jpg")
    parser.add_argument(
        "--present_images", action="store_true", help="leave annotated images that are not in the folder out, unreported"
    )
    parser.add_argument(
        "--definitions",
        type=Path,
        metavar="FILE",
        help="class texts: a CSV LabelName,Definition, or class_descriptions.jsonl",
    )
    parser.add_argument("--min_confidence", type=float, default=0.5, metavar="C", help="of a label (default: 0.5)")
    parser.add_argument("--few_shot", default="", metavar="CLASS,…", help="images of these classes go to the split few_shot")
    parser.add_argument("--few_shot_below", type=int, default=0, metavar="N", help="as do those of classes with fewer images")
    parser.add_argument("--tags", action="store_true", help="label with words of the definitions instead of classes")
    parser.add_argument(
        "--max_document_frequency", type=float, default=0.002, metavar="P", help="fraction of definitions with a tag (0.002)"
    )
    parser.add_argument("--any_alphabet", action="store_true", help="tags may have letters other than a–z")


def _source_of(options: argparse.Namespace) -> Source:
    pairs = [pair.partition("=") for pair in options.annotations]
    return make_source(
        Options(
            annotations=[(split, Path(path)) if mark else ("", Path(split)) for split, mark, path in pairs],
            classes=options.classes,
            definitions=options.definitions,
            image_root=options.images,
            present_images=options.present_images,
            min_confidence=options.min_confidence,
            few_shot=comma_list(options.few_shot),
            few_shot_below=options.few_shot_below,
            tags=options.tags,
            max_document_frequency=options.max_document_frequency,
            any_alphabet=options.any_alphabet,
        )
    )


COMMAND = SourceCommand(
    name="open_images",
    help="Open Images labels with class texts: multi-label, by classes or by tags (ImageD)",
    epilog="""examples:
  tfrecords-tools pack open_images --annotations=val=oidv7-val-annotations-human-imagelabels.csv \\
      --classes=oidv7-class-descriptions-boxable.csv --definitions=definitions.csv --images=images --output=data/imaged
  tfrecords-tools pack open_images --annotations=train.csv --definitions=definitions.csv --tags --few_shot_below=100 \\
      --images=images --present_images --output=data/imaged_tags

Definitions are derived from the label: as input to a model for that label they would tell the answer.
""",
    add_arguments=_add_arguments,
    make_source=_source_of,
)
