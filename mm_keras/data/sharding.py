"""Which records of a split a worker reads."""

from __future__ import annotations

from collections.abc import Sequence

from mm_keras.distribution.workers import ALONE, Worker
from tfrecords_tools.dataset.info import ShardInfo


def files_of(
    worker: Worker, shards: Sequence[ShardInfo], num_used: int, least: int = 0, most: int | None = None
) -> list[ShardInfo] | None:
    """The files that this worker reads alone; None where they do not come to equal parts: then it shares all of them.

    The largest files are dealt out first, each to whom has the fewest records.

    Args:
        worker: this one.
        shards: of the split.
        num_used: records of the split that are used; where that is not all, nobody knows in which files the others are.
        least, most: records that a worker has to have; most=None: any number.
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
