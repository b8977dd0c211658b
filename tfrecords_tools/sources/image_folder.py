"""A folder of images whose sub-folders are their classes.

    root/cat/1.jpg                 label "cat"            root/train/cat/1.jpg      split "train", label "cat"
    root/cat/1.txt                 with `captions`: the captions of 1.jpg, one on each line
    root/fruit/apple/2.png         label "fruit/apple"; with `label` "first" it is "fruit", with "last" "apple"
    root/3.jpg                     no label

- Files with the suffix of an image format are images, except hidden files. Folders are read in sorted order, and links are
  followed; images to which they lead outside of the root are read with packing's `allow_outside` alone. The id of a record is
  the path of its image below the root.
- The first level of folders are splits if all of them have names of splits (train, training, val, valid, validation, dev, test,
  testing) and no image lies beside them; the argument `splits` overrides that. If no folders are splits, splits are drawn by
  label.
- `class_texts` (a CSV file label,description, or class_descriptions.jsonl) become the field `class_description`, which is
  derived from the label.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from tfrecords_tools.sources.command import SourceCommand
from tfrecords_tools.sources.example import Rejection, Source, SourceExample
from tfrecords_tools.sources.files import IMAGE_SUFFIXES, SPLIT_NAMES, SourceError, iter_images, iter_lines, read_class_texts

LABELS = ("path", "first", "last")


def make_source(
    root: Path,
    label: str = "path",
    splits: bool | None = None,
    captions: bool = False,
    class_texts: Path | None = None,
) -> Source:
    """Declares an image folder as a source.

    Args:
        root: the folder.
        label: "path" makes the label of all folders between the root (or split) and the image; "first" and "last" of one.
        splits: whether the first level of folders are splits; None decides by their names.
        captions: whether the lines of `<name>.txt` beside `<name>.jpg` are read as the field `caption`.
        class_texts: a file with texts of the classes; None if there is none.

    Raises:
        SourceError: if there is no such folder or file, or `label` is unknown.

    Example:
        >>> make_source(Path("groceries"), label="last", class_texts=Path("classes.csv"))
    """
    root = Path(root)
    if label not in LABELS:
        raise SourceError(f"label must be one of {', '.join(LABELS)}. Received: {label!r}")
    if not root.is_dir():
        raise SourceError(f"{root} is no folder")
    if class_texts and not Path(class_texts).is_file():
        raise SourceError(f"{class_texts} does not exist")
    splits = _has_splits(root) if splits is None else splits
    return Source(
        name="image_folder",
        examples=lambda: iter_examples(root, label, splits, captions, class_texts),
        text_fields=({"caption": False} if captions else {}) | ({"class_description": True} if class_texts else {}),
        multi_label=False,
        files=[Path(class_texts)] if class_texts else [],
        options={"label": label, "splits": splits, "captions": captions},
        image_roots=(root,),
        stratify=not splits,
    )


def iter_examples(
    root: Path, label: str, splits: bool, captions: bool, class_texts: Path | None
) -> Iterator[SourceExample | Rejection]:
    """Yields an example for each image, and rejections of captions and class texts that could not be read."""
    root, class_descriptions = Path(root), {}
    if class_texts:
        class_descriptions, problems = read_class_texts(class_texts, ("label", "description"), {})
        yield from (Rejection("", where, reason, "row not used") for where, reason in problems)
    for path in iter_images(root):
        place = path.relative_to(root)
        folders = list(place.parts[:-1])
        split = folders.pop(0) if splits and folders else None
        name = {"path": "/".join(folders), "first": "".join(folders[:1]), "last": "".join(folders[-1:])}[label]
        texts: dict[str, list[str]] = {}
        if name in class_descriptions:
            texts["class_description"] = [class_descriptions[name]]
        sidecar = path.with_suffix(".txt")
        if captions and sidecar.is_file():
            try:
                texts["caption"] = [line for _, line in iter_lines(sidecar)]
            except SourceError as error:
                yield Rejection(place.as_posix(), place.as_posix(), str(error), "kept without its captions")
        yield SourceExample(
            id=place.as_posix(),
            where=place.as_posix(),
            image=path,
            texts=texts,
            labels=[name] if name else [],
            split=SPLIT_NAMES.get(split.lower(), split) if split else None,
        )


def _has_splits(root: Path) -> bool:
    entries = [path for path in root.iterdir() if not path.name.startswith(".")]
    folders = [path.name.lower() for path in entries if path.is_dir()]
    has_images = any(path.suffix.lower() in IMAGE_SUFFIXES for path in entries if path.is_file())
    return bool(folders) and set(folders) <= set(SPLIT_NAMES) and not has_images


def _add_arguments(parser: argparse.ArgumentParser) -> None:
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


def _source_of(options: argparse.Namespace) -> Source:
    return make_source(options.root, options.label, options.splits, options.captions, options.class_texts)


COMMAND = SourceCommand(
    name="image_folder",
    help="images in folders by class",
    epilog="""examples:
  tfrecords-tools pack image_folder flowers --output=data/flowers
  tfrecords-tools pack image_folder groceries --label=last --class_texts=classes.csv --output=data/groceries

--label: the image fruit/apple/1.jpg has the label "fruit/apple" (path), "fruit" (first) or "apple" (last).
""",
    add_arguments=_add_arguments,
    make_source=_source_of,
)
