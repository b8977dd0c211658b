"""Spooled example -> image bytes -> record, in worker processes."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import threading
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from pathlib import Path

from tfrecords_tools.example import RecordImage, Rejection, SourceExample
from tfrecords_tools.images import BadImageError, ImageOptions, PreparedImage, prepare_image, use_one_thread
from tfrecords_tools.labels import LabelVocabulary
from tfrecords_tools.schema import Record, decode_example, encode_example
from tfrecords_tools.shards import read_record
from tfrecords_tools.spool import read_spooled

_CHUNK = 32
_INLINE_BELOW = 256  # starting worker processes takes longer than packing so few
_KEPT = "kept without its image"


class WorkerDiedError(RuntimeError):
    """A packing worker was killed."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every worker is told once."""

    spool: Path
    labels: LabelVocabulary
    multi_label: bool
    text_fields: tuple[str, ...]
    images: ImageOptions
    keep_without_image: bool


@dataclasses.dataclass(frozen=True)
class Result:
    """A record and what it counts for; or why there is none. A record kept without its image has both."""

    record: bytes | None
    counts: Counter
    rejection: Rejection | None = None


class Encoder:
    """Encodes positions in order, here or in worker processes that run a bounded number of chunks ahead."""

    def __init__(self, settings: Settings, workers: int | None, num_examples: int):
        self._settings = settings
        self._workers = 1 if num_examples < _INLINE_BELOW else workers or os.cpu_count() or 1
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Encoder:
        if self._workers == 1:
            _start(self._settings)
        else:
            context = multiprocessing.get_context("spawn")  # forking is unsafe where the caller runs threads (TensorFlow)
            self._pool = ProcessPoolExecutor(self._workers, context, _start_worker, (self._settings,))
        return self

    def __exit__(self, *_) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def encode(self, order: list[int], offsets: array) -> Iterator[tuple[int, Result]]:
        pending: deque = deque()
        chunks = (order[i : i + _CHUNK] for i in range(0, len(order), _CHUNK))
        try:
            for chunk in chunks:
                places = [offsets[position] for position in chunk]
                if self._pool is None:
                    yield from zip(chunk, _encode_chunk(places), strict=True)
                    continue
                pending.append((chunk, self._pool.submit(_encode_chunk, places)))
                if len(pending) >= 4 * self._workers:
                    done, future = pending.popleft()
                    yield from zip(done, future.result(), strict=True)
            for done, future in pending:
                yield from zip(done, future.result(), strict=True)
        except BrokenProcessPool as error:
            raise WorkerDiedError(
                "a packing worker died (out of memory?); try fewer workers, or a smaller max_pixels"
            ) from error


_settings: Settings


def _start_worker(settings: Settings) -> None:
    """Runs once in each worker process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _start(settings)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever: its end of the queue never closes."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _start(settings: Settings) -> None:
    global _settings
    _settings = settings
    use_one_thread()


def _encode_chunk(offsets: list[int]) -> list[Result]:
    """Encodes the examples at these places of the spool file."""
    return [_encode(read_spooled(_settings.spool, offset), _settings) for offset in offsets]


def _encode(example: SourceExample, settings: Settings) -> Result:
    try:
        if len(example.labels) > 1 and not settings.multi_label:
            raise ValueError(f"several labels in a single-label dataset: {example.labels}")
        label_ids = settings.labels.ids(example.labels)
        texts = {field: _present(example.texts.get(field, ())) for field in settings.text_fields}
        image, problem = _load_image(example.image, settings.images)
        has_text = any(texts.values())
        if problem and not (settings.keep_without_image and has_text):
            raise ValueError(problem)
        if image is None and not has_text:
            raise ValueError("neither image nor text")
    except ValueError as error:
        return Result(None, Counter(), Rejection(example.id, example.where, str(error)))
    record = Record(example.id, texts=texts, label_ids=label_ids, weight=example.weight)
    if image:
        record = dataclasses.replace(record, image=image.data, height=image.height, width=image.width)
    counts = Counter(examples=1, images_reencoded=int(bool(image and image.reencoded)))
    counts.update(f"without_text/{field}" for field, values in texts.items() if not values)
    counts.update(f"label/{settings.labels.names[index]}" for index in label_ids)
    counts["without_image"] += image is None
    counts["without_label"] += not label_ids
    rejection = Rejection(example.id, example.where, problem, _KEPT) if problem else None
    return Result(encode_example(record), counts, rejection)


def _present(texts) -> tuple[str, ...]:
    stripped = (text.strip() for text in texts)
    return tuple(text for text in stripped if text)


def _load_image(image: Path | bytes | RecordImage | None, options: ImageOptions) -> tuple[PreparedImage | None, str]:
    """The prepared image, or None and the problem ("" where the source names no image)."""
    if image is None:
        return None, ""
    if isinstance(image, RecordImage):
        record = decode_example(read_record(image.shard, image.offset))
        if not image.resize:
            return PreparedImage(record.image, record.height, record.width, reencoded=False), ""
        image = record.image
    try:
        return prepare_image(image if isinstance(image, bytes) else image.read_bytes(), options), ""
    except FileNotFoundError:
        return None, f"missing image: {image} does not exist"
    except OSError as error:
        return None, f"unreadable image: {image}: {error.strerror}"
    except BadImageError as error:
        named = "" if isinstance(image, bytes) else f"{image.name}: "
        return None, f"bad image: {named}{error}"
