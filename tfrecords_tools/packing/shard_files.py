"""The files of one shard: its records, their index, and, until the dataset is complete, their counts and rejections."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.index import ShardIndex, index_file
from tfrecords_tools.dataset.info import ShardInfo
from tfrecords_tools.dataset.shards import ShardWriter, sha256_of
from tfrecords_tools.packing.encode import Result, Settings
from tfrecords_tools.sources.example import Rejection


@dataclasses.dataclass(frozen=True)
class FinishedShard:
    """A shard that is on the disk.

    Attributes:
        split: the split that it belongs to.
        info: its entry in dataset.json.
        index_sha256: the sha256 of its index, in hex.
        counts: what its records add to the statistics of the split.
        rejections: (position in the source, rejection) pairs of its examples.
    """

    split: str
    info: ShardInfo
    index_sha256: str
    counts: Counter
    rejections: list[tuple[int, Rejection]]


def files_of(name: str) -> tuple[str, str, str]:
    """The files of a shard. The last of them is written last: where it is there, the others are complete."""
    return name, index_file(name), f"{name}.json"


def write_shard(
    folder: Path, split: str, name: str, results: Iterable[tuple[int, Result]], settings: Settings
) -> FinishedShard:
    """Writes the files of a shard; older files of that name are replaced.

    Args:
        folder: the staging folder.
        split: the split that the shard belongs to.
        name: the file name of the shard.
        results: (position in the source, result) pairs, in the order of the records.
        settings: how the examples became records.
    """
    writer, counts, rejections = ShardWriter(folder / name), Counter(), []
    index = ShardIndex(split, name, settings.text_fields, settings.labels)
    try:
        for position, result in results:
            if result.serialized is not None:
                index.add(result.record, writer.num_bytes)
                writer.write(result.serialized)
                counts.update(result.counts)
            if result.rejection:
                rejections.append((position, result.rejection))
        index.save(folder)
        writer.close()
    except BaseException:
        writer.abandon()
        raise
    info = ShardInfo(name, writer.num_examples, writer.num_bytes, writer.sha256)
    pairs = [(position, dataclasses.asdict(rejection)) for position, rejection in rejections]
    index_sha256 = sha256_of(folder / index_file(name))
    content = json.dumps([split, dataclasses.asdict(info), index_sha256, counts, pairs])
    write_text(folder / f"{name}.json", json.dumps({"sha256": _sha256(content), "content": content}))
    return FinishedShard(split, info, index_sha256, counts, rejections)


def finished_shard(folder: Path, name: str) -> FinishedShard | None:
    """The shard of that name, if an earlier pack finished it and all of its files are what was written; otherwise None."""
    shard, index, facts = (folder / file for file in files_of(name))
    if not (facts.is_file() and shard.is_file() and index.is_file()):
        return None
    try:
        sealed = json.loads(facts.read_bytes())
        is_whole = sealed["sha256"] == _sha256(sealed["content"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if not is_whole:
        return None
    split, info_fields, index_sha256, counts, pairs = json.loads(sealed["content"])
    info = ShardInfo(**info_fields)
    if shard.stat().st_size != info.num_bytes or sha256_of(shard) != info.sha256 or sha256_of(index) != index_sha256:
        return None
    rejections = [(position, Rejection(**rejection)) for position, rejection in pairs]
    return FinishedShard(split, info, index_sha256, Counter(counts), rejections)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
