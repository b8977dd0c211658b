"""A folder of images whose sub-folders are their classes.

    root/cat/1.jpg                 label "cat"            root/train/cat/1.jpg      split "train", label "cat"
    root/cat/1.txt                 its captions, a line each (with `captions`)
    root/fruit/apple/2.png         label "fruit/apple", or with `label` "first" or "last" one of the two
    root/3.jpg                     no label

- All formats of images count, by suffix; files of other kinds and hidden ones are no images. Folders are walked in sorted
  order and through links. A record is keyed by the path below the root.
- The first level is taken for splits where all its folders have names of splits (train, training, val, valid, validation,
  dev, test, testing) and no image lies beside them; `splits` says so or denies it.
- `class_texts` (a CSV label,description, or class_descriptions.jsonl) become the field `class_description`, derived from
  the label.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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
        label: "path" = all folders between the root (or split) and the image; "first" or "last" = one of them.
        splits: whether the first level are splits; None = where their names say so.
        captions: read the lines of `<name>.txt` beside `<name>.jpg` as the field `caption`.
        class_texts: texts of the classes.

    Raises:
        SourceError: if there is no such folder or file, or `label` is unknown.
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
    )


def iter_examples(
    root: Path, label: str, splits: bool, captions: bool, class_texts: Path | None
) -> Iterator[SourceExample | Rejection]:
    """Yields an example per image, and captions that could not be read."""
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
    beside = any(path.suffix.lower() in IMAGE_SUFFIXES for path in entries if path.is_file())
    return bool(folders) and set(folders) <= set(SPLIT_NAMES) and not beside
