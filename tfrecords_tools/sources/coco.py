"""COCO: images with several captions and the classes of the objects in them, from captions and instances files.

    annotations/captions_train2017.json
        {"images": [{"id": 9, "file_name": "000000000009.jpg", …}],
         "annotations": [{"image_id": 9, "id": 48, "caption": "A plate of food."}, …]}
    annotations/instances_train2017.json
        {"images": […], "annotations": [{"image_id": 9, "category_id": 51, "bbox": […], …}],
         "categories": [{"id": 51, "name": "bowl", "supercategory": "kitchen"}]}

- The captions of an image are texts of the field `caption`, without repetition. White space and line breaks become single
  spaces.
- The labels of an image are the names of the categories of its objects, without repetition. An image without objects has none.
  Without instances files nothing is labelled, since captions files have no categories.
- Files are given by split. The id of an image is its file name, so an image that is in two splits is reported.
- Files are read item by item and joined on the disk. So memory stays small, although instances_train2017.json has 450 MB.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfrecords_tools.sources.command import SourceCommand, split_paths
from tfrecords_tools.sources.disk_index import DiskIndex
from tfrecords_tools.sources.example import Rejection, Source, SourceExample
from tfrecords_tools.sources.files import SourceError
from tfrecords_tools.sources.json_stream import iter_json

_KEYS = {"images": ("id", "file_name"), "captions": ("image_id", "caption"), "objects": ("image_id", "category_id")}


def make_source(captions: dict[str, Path], instances: dict[str, Path], images: dict[str, Path]) -> Source:
    """Declares COCO files as a source.

    Args:
        captions: maps splits to captions files. For the split "" splits are drawn.
        instances: maps splits to instances files.
        images: maps splits to image folders. The folder of "" serves all splits that have none.

    Raises:
        SourceError: if there is neither a captions nor an instances file, or a split has no image folder.

    Example:
        >>> make_source({"val": Path("captions_val2017.json")}, {"val": Path("instances_val2017.json")}, {"": Path("images")})
    """
    if not captions and not instances:
        raise SourceError("name captions files (--captions), instances files (--instances), or both")
    for split in {**captions, **instances}:
        if split not in images and "" not in images:
            raise SourceError(f"name the folder of the images of {split!r}; there are folders of {sorted(images)}")
    files = [*captions.values(), *instances.values()]
    missing = [path for path in files if not Path(path).is_file()]
    if missing:
        raise SourceError(f"{missing[0]} does not exist")
    return Source(
        name="coco",
        examples=lambda: iter_examples(captions, instances, images),
        text_fields={"caption": False} if captions else {},
        multi_label=bool(instances),
        files=files,
        options={"splits": sorted({**captions, **instances})},
        image_roots=tuple(map(Path, images.values())),
    )


def iter_examples(
    captions: dict[str, Path], instances: dict[str, Path], images: dict[str, Path]
) -> Iterator[SourceExample | Rejection]:
    """Yields an example for each image of each split, and rejections of what refers to unknown images or categories."""
    for split in {**captions, **instances}:
        files = [Path(by_split[split]) for by_split in (captions, instances) if split in by_split]
        folder = Path(images.get(split) or images[""])
        with DiskIndex() as index:
            categories: dict[str, str] = {}
            for path in files:
                yield from _read(path, index, categories)
            where = " + ".join(path.name for path in files)
            for image_id, values in index.groups():
                yield from _join(image_id, values, categories, where, folder, split)


def _read(path: Path, index: DiskIndex, categories: dict[str, str]) -> Iterator[Rejection]:
    """Adds the rows of a file to the index, by image id, and its categories to `categories`."""
    is_coco = False
    for position, (key, item) in enumerate(iter_json(path)):
        where = f"{path.name}: item {position}"
        if key == "categories" and isinstance(item, dict) and {"id", "name"} <= set(item):
            categories[str(item["id"])] = " ".join(str(item["name"]).split())
        if key not in ("images", "annotations"):
            continue
        is_coco = True
        kinds = ["images"] if key == "images" else ["captions", "objects"]
        matching = [kind for kind in kinds if isinstance(item, dict) and set(_KEYS[kind]) <= set(item)]
        for kind in matching:
            image_key, value_key = _KEYS[kind]
            index.add(str(item[image_key]), [kind, str(item[value_key])])
        if not matching:
            yield Rejection("", where, f"neither {' nor '.join(' with '.join(_KEYS[kind]) for kind in kinds)}: {item!r:.80}")
    if not is_coco:
        raise SourceError(f"{path} is no COCO file: it has neither images nor annotations")


def _join(
    image_id: str, values: list[list[Any]], categories: dict[str, str], where: str, folder: Path, split: str
) -> Iterator[SourceExample | Rejection]:
    rows = {kind: list(dict.fromkeys(value for of_kind, value in values if of_kind == kind)) for kind in _KEYS}
    where = f"{where}: image {image_id}"
    if not rows["images"]:
        yield Rejection(image_id, where, f"annotations of image {image_id}, which is not among the images")
        return
    name = rows["images"][0]
    unknown = [category for category in rows["objects"] if category not in categories]
    if unknown:
        yield Rejection(name, where, f"unknown category {unknown[0]}", "kept without that label")
    yield SourceExample(
        id=name,
        where=where,
        image=folder / name,
        texts={"caption": [" ".join(caption.split()) for caption in rows["captions"]]},
        labels=[categories[category] for category in rows["objects"] if category in categories],
        split=split or None,
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    by_split = {"action": "append", "default": [], "metavar": "[SPLIT=]PATH"}
    parser.add_argument("--captions", help="a captions file; once a split", **by_split)
    parser.add_argument("--instances", help="an instances file, for labels; once a split", **by_split)
    parser.add_argument("--images", help="the folder of the images, of a split or of all", **(by_split | {"required": True}))


def _source_of(options: argparse.Namespace) -> Source:
    return make_source(split_paths(options.captions), split_paths(options.instances), split_paths(options.images))


COMMAND = SourceCommand(
    name="coco",
    help="COCO captions and instances: several captions an image, classes of its objects",
    epilog="""example:
  tfrecords-tools pack coco \\
      --captions=train=annotations/captions_train2017.json --captions=val=annotations/captions_val2017.json \\
      --instances=train=annotations/instances_train2017.json --instances=val=annotations/instances_val2017.json \\
      --images=train=train2017 --images=val=val2017 --output=data/coco
""",
    add_arguments=_add_arguments,
    make_source=_source_of,
)
