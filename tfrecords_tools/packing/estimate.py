"""Estimates the time and room that packing a large source would take, from a sample that is packed and measured."""

from __future__ import annotations

import dataclasses
import datetime
import heapq
import itertools
import pickle
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.dataset.splits import hash_id
from tfrecords_tools.packing.encode import num_workers
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.progress import progress_bar
from tfrecords_tools.sources.example import Rejection, Source, SourceExample

_SAMPLE, _READ = 1000, 20_000
_OTHERS = (16, 256)  # numbers of workers for which the time is given as well


def estimate(
    source: Source, options: PackOptions, labels: LabelVocabulary | None, total: int | None = None, progress: bool = True
) -> str:
    """Packs 1,000 examples, which are drawn by hash, into a temporary folder, and extrapolates.

    Args:
        source, options, labels, progress: as for `pack`.
        total: the number of examples to estimate for; only the first 20,000 of the source are read then. None reads the
            whole source and counts its examples.

    Returns:
        a few lines of text: what was measured, then time, size and disk space for all examples.

    Raises:
        PackError: if too much of the sample is bad.
        EmptySourceError: if the source yields no usable example.
    """
    sample = _draw_sample(source, options.seed, _READ if total else None, progress)
    examples = sample.examples
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        sample_source = dataclasses.replace(source, examples=lambda: iter(examples), files=[])
        info = pack(sample_source, Path(scratch) / "sample", options, labels, progress=progress)
        packing = time.perf_counter() - started
    packed = sum(info.num_examples(split) for split in info.splits)
    size = sum(shard.num_bytes for shards in info.splits.values() for shard in shards) / max(packed, 1)
    spooled = sum(len(pickle.dumps(example, pickle.HIGHEST_PROTOCOL)) for example in examples) / len(examples)
    share = (sample.num_read - sample.num_rejected) / sample.num_read * packed / len(examples)
    total = total or sample.num_read
    workers = num_workers(options.workers, len(examples))
    seconds = total * packing / len(examples)
    durations = ", ".join(f"{_duration(seconds * workers / count)} by {count}" for count in _OTHERS if count > workers)
    return "\n".join(
        [
            f"measured: {sample.num_read:,} examples read at {sample.num_read / sample.seconds:,.0f}/s; "
            f"{len(examples):,} packed by {workers} worker(s) at {len(examples) / packing:,.0f}/s, start-up included; "
            f"{size / 1e3:.1f} KB a record, {share:.1%} of the input kept",
            f"{total:,} examples would take about",
            f"  {_duration(total * sample.seconds / sample.num_read)} to read the source",
            f"  {_duration(seconds)} to pack with {workers} worker(s), as fast as these{'; ' + durations if durations else ''}",
            f"  {total * share * size / 1e9:,.2f} GB for the dataset, in {-(-total // options.examples_per_shard):,} shards",
            f"  {total * (spooled + 100) / 1e9:,.2f} GB of disk beside it while packing",
        ]
    )


class _Sample(NamedTuple):
    """Examples drawn from a source, the numbers of rows that were read and rejected, and the seconds that reading took."""

    examples: list[SourceExample]
    num_read: int
    num_rejected: int
    seconds: float


def _draw_sample(source: Source, seed: int, limit: int | None, progress: bool) -> _Sample:
    drawn: list[tuple[int, int, SourceExample]] = []  # a heap: the largest hash is the next to go
    num_read = num_rejected = 0
    started = time.perf_counter()
    with progress_bar("reading the source", "examples", shown=progress) as bar:
        for example in itertools.islice(source.examples(), limit):
            bar.update()
            num_read += 1
            if isinstance(example, Rejection):
                num_rejected += 1
                continue
            entry = (-hash_id(example.id, "estimate", seed), num_read, example)
            heapq.heappush(drawn, entry) if len(drawn) < _SAMPLE else heapq.heappushpop(drawn, entry)
    return _Sample([example for _, _, example in drawn], num_read, num_rejected, time.perf_counter() - started)


def _duration(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.1f} s"
    return str(datetime.timedelta(seconds=round(seconds)))
