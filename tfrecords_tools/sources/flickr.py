"""Flickr8k and Flickr30k: images with five captions each, in all formats that are in use, among them Karpathy's JSON.

    Flickr8k.token.txt, results_20130124.token    1000092795.jpg#0<TAB>Two young guys with shaggy hair .
    captions.txt (Kaggle)                         image,caption
                                                  1000092795.jpg,"Two young guys, with shaggy hair ."
    results.csv (Kaggle)                          image_name| comment_number| comment
                                                  1000092795.jpg| 0| Two young guys with shaggy hair .
    dataset_flickr8k.json, dataset_coco.json      {"images": [{"filename": "1.jpg", "split": "train",
      (Karpathy; COCO adds "filepath")              "sentences": [{"raw": "A dog ."}, …]}, …]}

- The format of a file is known from its first line. The captions of an image are texts of the field `caption`. There are no
  labels.
- Karpathy's JSON has splits (COCO's `restval` stays a split of that name). For the other formats they are given by lists of
  names such as Flickr_8k.trainImages.txt; an image that is in none of the lists is left out and reported.
- Captions whose image does not exist (`2258277193_586949ec62.jpg.1` in Flickr8k) are packed without it and reported.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from tfrecords_tools.sources.command import SourceCommand, split_paths
from tfrecords_tools.sources.example import Rejection, Source, SourceExample
from tfrecords_tools.sources.files import SourceError, iter_csv, iter_lines
from tfrecords_tools.sources.json_stream import iter_json

_Row = tuple[str, str, str]  # place in the file, image name, caption


def make_source(captions: Path, image_root: Path, split_lists: dict[str, Path] | None = None) -> Source:
    """Declares a captions file as a source.

    Args:
        captions: a file in one of the formats above.
        image_root: the folder of the images.
        split_lists: maps splits to files with an image name on each line. Without them splits are drawn.

    Raises:
        SourceError: if a file is missing, a name stands in two lists, or lists are given for Karpathy's JSON.

    Example:
        >>> make_source(Path("Flickr8k.token.txt"), Path("Flicker8k_Dataset"), {"test": Path("Flickr_8k.testImages.txt")})
    """
    captions, split_lists = Path(captions), split_lists or {}
    if captions.suffix == ".json" and split_lists:
        raise SourceError(f"{captions.name} has its own splits; leave the split lists out")
    if not captions.is_file():
        raise SourceError(f"{captions} does not exist")
    _read_splits(split_lists)
    return Source(
        name="flickr",
        examples=lambda: iter_examples(captions, image_root, split_lists),
        text_fields={"caption": False},
        multi_label=False,
        files=[captions, *split_lists.values()],
        options={"splits": sorted(split_lists)},
        image_roots=(Path(image_root),),
    )


def iter_examples(captions: Path, image_root: Path, split_lists: dict[str, Path]) -> Iterator[SourceExample | Rejection]:
    """Yields an example for each image, and rejections of rows that could not be read."""
    captions, image_root = Path(captions), Path(image_root)
    if captions.suffix == ".json":
        yield from _karpathy(captions, image_root)
        return
    splits = _read_splits(split_lists)
    texts: dict[str, list[str]] = {}
    places: dict[str, str] = {}
    for row in _rows(captions):
        if isinstance(row, Rejection):
            yield row
            continue
        where, name, caption = row
        texts.setdefault(name, []).append(caption)
        places.setdefault(name, where)
    for name, image_captions in texts.items():
        if splits and name not in splits:
            yield Rejection(name, places[name], "in none of the split lists")
            continue
        yield SourceExample(name, places[name], image_root / name, {"caption": image_captions}, split=splits.get(name))
    for name, split in splits.items():
        if name not in texts:
            yield Rejection(name, Path(split_lists[split]).name, f"has no captions in {captions.name}")


def _read_splits(split_lists: dict[str, Path]) -> dict[str, str]:
    splits: dict[str, str] = {}
    for split, path in split_lists.items():
        for number, name in iter_lines(path):
            if splits.setdefault(name, split) != split:
                raise SourceError(f"{path}:{number}: {name!r} is in the list of {splits[name]!r} too")
    return splits


def _rows(path: Path) -> Iterator[_Row | Rejection]:
    _, first = next(iter_lines(path), (0, ""))
    if first.replace(" ", "") == "image,caption":
        for where, row in iter_csv(path, ("image", "caption")):
            bad = isinstance(row, str)
            yield Rejection("", where, row, rows=row.rows) if bad else (where, row["image"].strip(), row["caption"].strip())
        return
    piped = first.replace(" ", "").startswith("image_name|")
    for number, line in iter_lines(path):
        if not (piped and line == first):
            yield (_split_piped if piped else _split_token)(line, f"{path.name}:{number}")


def _split_piped(line: str, where: str) -> _Row | Rejection:
    cells = [cell.strip() for cell in line.split("|", 2)]
    return (
        (where, cells[0], cells[2]) if len(cells) == 3 else Rejection("", where, f"expected 3 fields between |: {line!r:.80}")
    )


def _split_token(line: str, where: str) -> _Row | Rejection:
    key, tab, caption = line.partition("\t")
    name, mark, _ = key.rpartition("#")
    if not (tab and mark and name):
        return Rejection("", where, f"expected name#number, a tab and a caption: {line!r:.80}")
    return where, name, caption.strip()


def _karpathy(path: Path, image_root: Path) -> Iterator[SourceExample | Rejection]:
    count = 0
    for key, item in iter_json(path):
        if key != "images":
            continue
        count += 1
        where = f"{path.name}: image {count}"
        try:
            name = str(Path(item.get("filepath", "")) / item["filename"])
            captions = [sentence["raw"].strip() for sentence in item["sentences"]]
            yield SourceExample(name, where, image_root / name, {"caption": captions}, split=item["split"])
        except (KeyError, TypeError, AttributeError) as error:
            yield Rejection("", where, f"not as in Karpathy's files: {type(error).__name__}: {error}: {item!r:.80}")
    if not count:
        raise SourceError(f"{path} is no Karpathy file: it has no images")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("captions", type=Path, metavar="FILE", help="a token file, captions.txt, results.csv or Karpathy JSON")
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER", help="the folder of the images")
    parser.add_argument(
        "--split_list", action="append", default=[], metavar="SPLIT=PATH", help="a file with an image name a line; once a split"
    )


def _source_of(options: argparse.Namespace) -> Source:
    return make_source(options.captions, options.images, split_paths(options.split_list))


COMMAND = SourceCommand(
    name="flickr",
    help="Flickr8k, Flickr30k (also Kaggle's files) and Karpathy's splits: five captions an image",
    epilog="""examples:
  tfrecords-tools pack flickr Flickr8k.token.txt --images=Flicker8k_Dataset \\
      --split_list=train=Flickr_8k.trainImages.txt --split_list=val=Flickr_8k.devImages.txt \\
      --split_list=test=Flickr_8k.testImages.txt --output=data/flickr8k
  tfrecords-tools pack flickr dataset_flickr30k.json --images=flickr30k-images --output=data/flickr30k
""",
    add_arguments=_add_arguments,
    make_source=_source_of,
)
