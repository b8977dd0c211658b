"""Deals the files of a split out to the workers that train together."""

from __future__ import annotations

from collections.abc import Sequence

from mm_keras.distribution.workers import ALONE, Worker
from tfrecords_tools.dataset.info import ShardInfo


def files_of(
    worker: Worker, shards: Sequence[ShardInfo], num_used: int, least: int = 0, most: int | None = None
) -> list[ShardInfo] | None:
    """The files that this worker reads alone, or None if all workers have to read all files.

    The largest files are dealt out first, each to the worker that has the fewest records so far.

    Args:
        worker: this worker.
        shards: the shards of the split.
        num_used: number of the split's records that are used. If some are not, nothing says which files they are in, and the
            files cannot be dealt out.
        least, most: the numbers of records that every worker has to have at least and at most; `most=None` sets no limit.
    """
    parts: list[list[ShardInfo]] = [[] for _ in range(worker.count)]
    for shard in sorted(shards, key=lambda shard: -shard.num_examples):
        min(parts, key=_num_examples).append(shard)
    counts = [_num_examples(part) for part in parts]
    if worker == ALONE or sum(counts) != num_used or min(counts) < least or (most is not None and max(counts) > most):
        return None
    return sorted(parts[worker.index], key=lambda shard: shard.file)


def _num_examples(shards: Sequence[ShardInfo]) -> int:
    return sum(shard.num_examples for shard in shards)
