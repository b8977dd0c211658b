"""Reads the texts of WebVision's images from JSON files, and holds the options of the source.

In the released layout there is a JSON file for each query, and files are read in the order of the images. In the layout of the
benchmark all of them are joined with the images by id, on the disk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

from tfrecords_tools.sources.disk_index import DiskIndex
from tfrecords_tools.sources.files import SourceError, iter_lines, joined_text, parse_json

Texts = dict[str, list[str]]
Found = tuple[Texts, str, str]  # the texts, the problem ("" if there is none), and what was done about it
_WITHOUT, _BY_ID = "kept without its texts", "kept with the texts of its id"
_KEPT_OPEN = 4  # parsed JSON files to keep, since images are listed query by query


@dataclasses.dataclass(frozen=True)
class Options:
    """What to read of a WebVision folder.

    Attributes:
        root: the folder that holds info/ or meta/.
        layout: "release" (info/) or "benchmark" (meta/); None takes the one that is there.
        splits: the splits to read, some of "train", "val", "test". None reads train and val, and with a holdout only train.
            Test images have no public labels.
        sources: "google", "flickr" or "all".
        fields: the text fields to read, some of "title", "description", "tags", "query".
        num_classes: how many of the first classes are read; None reads all. Mini-WebVision has Google's images of the first 50.
        label_names: whether labels are the names of the classes instead of their wnids.
        holdout: the fraction of each class's training images to split off, half as `val`, half as `test`; 0 splits off none.
        seed: another seed draws another holdout.
        image_root: the folder of the images; None looks in the usual places below `root`.
        metadata_root: the folder of the JSON files; None looks in the usual places below `root`.
    """

    root: Path
    layout: str | None = None
    splits: tuple[str, ...] | None = None
    sources: str = "all"
    fields: tuple[str, ...] = ("title", "description", "tags")
    num_classes: int | None = None
    label_names: bool = False
    holdout: float = 0.0
    seed: int = 0
    image_root: Path | None = None
    metadata_root: Path | None = None

    @property
    def is_benchmark(self) -> bool:
        """Whether the folder has the layout of the benchmark."""
        return self.layout == "benchmark" or (self.layout is None and (self.root / "meta").is_dir())

    @property
    def read_splits(self) -> tuple[str, ...]:
        """The splits to read."""
        return self.splits or (("train",) if self.holdout else ("train", "val"))


@contextlib.contextmanager
def open_metadata(options: Options) -> Iterator[Callable[[str, str], Found]]:
    """Yields a function that finds the texts of an image by its path and its line of the metadata list ("" if there is none).

    It returns the texts, the problem ("" if there is none), and what was done about it.
    """
    if not options.is_benchmark:
        yield _QueryFiles(options).find
    elif not options.fields:
        yield lambda path, line: ({}, "", "")
    else:
        with DiskIndex() as index:
            problems = _fill(index, options)
            yield lambda path, line: _joined(index, Path(path).stem, problems)


class _QueryFiles:
    """Finds metadata by query: google/q0001.json holds the metadata of google/q0001/*.jpg."""

    def __init__(self, options: Options):
        self._fields = options.fields
        roots = [options.metadata_root] if options.metadata_root else [options.root, options.root / "metadata"]
        self._roots = roots
        self._parse = functools.lru_cache(_KEPT_OPEN)(self._parse_file)
        self._queries = _queries(options) if "query" in options.fields else {}

    def find(self, path: str, line: str) -> Found:
        source, _, query = Path(path).parent.as_posix().rpartition("/")  # google, q0001
        words = self._queries.get(f"{source}/{query}")
        texts = {"query": [words]} if words else {}
        name, _, position = line.rpartition(" ") if line else (f"{source}/{query}.json", "", "")
        if line and not (name and position.isdecimal()):
            return texts, f"malformed line in the metadata list: {line!r}", _WITHOUT
        if Path(name).stem != query or Path(name).parts[0].removesuffix("_json") != source.split("/")[0]:
            return texts, f"the metadata list pairs it with {name}, which belongs to another query", _WITHOUT
        entries, problem = self._parse(name)
        if problem:
            return texts, problem, _WITHOUT
        entry, problem = _pick(entries, int(position) if position else None, Path(path).stem, name)
        return texts | _texts_of(entry or {}, self._fields), problem, _BY_ID if entry else _WITHOUT

    def _parse_file(self, name: str) -> tuple[list, str]:
        source, _, file = name.rpartition("/")
        places = [root / place for root in self._roots for place in (name, f"{source}_json/{file}")]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            return [], f"missing metadata: {name} does not exist"
        return load_entries(path, name)


def _pick(entries: list, position: int | None, image_id: str, name: str) -> tuple[dict | None, str]:
    """The entry at a position (from 1), unless another entry has the id in the image's name; and the problem, or ""."""
    entry = entries[position - 1] if position and position <= len(entries) else None
    if isinstance(entry, dict) and str(entry.get("id")) == image_id:
        return entry, ""
    by_id = next((item for item in entries if isinstance(item, dict) and str(item.get("id")) == image_id), None)
    if by_id:
        return by_id, f"wrong metadata position: entry {position} of {name} is another image's" if position is not None else ""
    if position is None:
        return None, f"missing metadata: {name} has no entry with the id {image_id!r}"
    if position > len(entries) or position == 0:
        return None, f"missing metadata: {name} has {len(entries):,} entries, the metadata list asks for number {position}"
    return (entry, "") if isinstance(entry, dict) else (None, f"broken metadata: entry {position} of {name} is no object")


def load_entries(path: Path, name: str) -> tuple[list, str]:
    """The entries of a JSON file, and the problem with it, or "". `name` is what the problem calls the file."""
    try:
        entries = parse_json(path.read_bytes())
    except (ValueError, OSError) as error:
        return [], f"broken metadata: {name}: {error}"
    if not isinstance(entries, list):
        return [], f"broken metadata: {name} holds no list, but a {type(entries).__name__}"
    return entries, ""


def _texts_of(entry: dict, fields: tuple[str, ...]) -> Texts:
    texts = {field: joined_text(entry.get(field)) for field in fields}
    return {field: [text] for field, text in texts.items() if text}


def _queries(options: Options) -> dict[str, str]:
    """The texts of the queries by image folder, such as "google/q0001"."""
    queries = {}
    for source in ("google", "flickr"):
        files = [options.root / "info" / name for name in (f"queries_{source}.txt", "queries.txt")]
        path = next((file for file in files if file.is_file()), None)
        if path is None:
            raise SourceError(f"{files[0]} does not exist, nor {files[1].name}; leave the field 'query' out")
        for _, line in iter_lines(path):
            number, _, text = line.partition(" ")
            if number.isdecimal():
                queries[f"{source}/q{int(number):04d}"] = text.strip()
    return queries


def _fill(index: DiskIndex, options: Options) -> list[str]:
    """Adds the texts of all images to the index by image id, and returns the problems of files that could not be read."""
    problems, matched = [], False
    root = options.metadata_root or options.root
    for source in ("google", "flickr"):
        folders = [root / source, root / f"{source}_json", root / "metadata" / source]
        for path in sorted(path for folder in folders if folder.is_dir() for path in folder.glob("*.json")):
            matched = True
            entries, problem = load_entries(path, f"{source}/{path.name}")
            problems += [problem] if problem else []
            for entry in entries:
                if isinstance(entry, dict) and entry.get("id") is not None:
                    index.add(str(entry["id"]), _texts_of(entry, options.fields))
    if not matched:
        raise SourceError(
            f"no google/*.json or flickr/*.json below {root}; say where they are (--metadata_root), or pack images alone "
            "(--fields=)"
        )
    return problems


def _joined(index: DiskIndex, image_id: str, problems: list[str]) -> Found:
    """The texts of an image id. If several queries found an image, it has several entries, of which the first is taken."""
    entries = index.get(image_id)
    if entries:
        return entries[0], "", ""
    hint = f"; {len(problems)} file(s) could not be read: {problems[0]}" if problems else ""
    return {}, f"missing metadata: no entry has the id {image_id!r}{hint}", _WITHOUT
