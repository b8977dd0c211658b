"""Encodes spooled examples as records, in this process or in worker processes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from pathlib import Path
from typing import BinaryIO

from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.dataset.schema import Record, decode_example, encode_example
from tfrecords_tools.dataset.shards import read_record
from tfrecords_tools.packing.images import BadImageError, ImageOptions, PreparedImage, prepare_image, use_one_thread
from tfrecords_tools.packing.spool import Place, read_spooled
from tfrecords_tools.sources.example import RecordImage, Rejection, SourceExample
from tfrecords_tools.sources.image_files import ImageFileError, read_image_file

_CHUNK = 32
_INLINE_BELOW = 256  # starting worker processes takes longer than packing so few
_KEPT = "kept without its image"


class WorkerDiedError(RuntimeError):
    """A packing worker was killed."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How examples become records.

    Attributes:
        labels: the vocabulary; an example with another label is rejected.
        multi_label: whether a record may carry several labels.
        text_fields: the fields of each record. Other texts of an example are dropped.
        images: the size and quality of the stored images.
        keep_without_image: as in `PackOptions`.
        image_roots: the folders in which images may lie; empty: anywhere.
    """

    labels: LabelVocabulary
    multi_label: bool
    text_fields: tuple[str, ...]
    images: ImageOptions
    keep_without_image: bool
    image_roots: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of an example: a record, a rejection, or both where the record is kept without its image.

    Attributes:
        serialized: the encoded record; None if the example is left out.
        record: the record without the bytes of its image; None if the example is left out.
        counts: what the record adds to the statistics of its split.
        rejection: what is wrong with the example; None if nothing is.
    """

    serialized: bytes | None
    record: Record | None
    counts: Counter
    rejection: Rejection | None = None


def num_workers(asked: int | None, num_examples: int) -> int:
    """How many processes encode so many examples, `asked` or one for each core; 1 stands for this process alone."""
    return 1 if num_examples < _INLINE_BELOW else asked or os.cpu_count() or 1


class Encoder:
    """Encodes spooled examples in order. Worker processes run a bounded number of chunks ahead.

    Args:
        spool: the file of the spooled examples.
        settings: how examples become records.
        workers: the number of worker processes; None starts one for each core. Few examples are encoded in this process.
        num_examples: how many examples there are in all.

    Example:
        >>> with Encoder(spool.path, settings, workers=None, num_examples=5000) as encoder:
        ...     for position, result in encoder.encode(places):
        ...         ...
    """

    def __init__(self, spool: Path, settings: Settings, workers: int | None, num_examples: int):
        self._worker = spool, settings
        self._workers = num_workers(workers, num_examples)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Encoder:
        if self._workers == 1:
            _start(*self._worker)
        else:
            context = multiprocessing.get_context("spawn")  # forking is unsafe where the caller runs threads (TensorFlow)
            self._pool = ProcessPoolExecutor(self._workers, context, _start_worker, self._worker)
        return self

    def __exit__(self, *_) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        else:
            _spool.close()

    def encode(self, places: Iterable[Place]) -> Iterator[tuple[int, Result]]:
        """Yields a (position in the source, result) pair for each place, in the order of the places.

        Raises:
            WorkerDiedError: if a worker process was killed.
        """
        pending: deque = deque()
        places = iter(places)
        try:
            while chunk := list(itertools.islice(places, _CHUNK)):
                if self._pool is None:
                    yield from _encode_chunk(chunk)
                    continue
                with _sigint_blocked():  # a submission starts worker processes, which inherit the blocked signal
                    pending.append(self._pool.submit(_encode_chunk, chunk))
                if len(pending) >= 4 * self._workers:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        except BrokenProcessPool as error:
            raise WorkerDiedError(
                "a packing worker died (out of memory?); try fewer workers, or a smaller max_pixels. A script that calls "
                'pack() must do so behind `if __name__ == "__main__":`, since each worker imports it'
            ) from error


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Processes that start inside of the block never receive Ctrl-C; this process ends them and prints one message.

    In this process Ctrl-C takes effect at the end of the block.
    """
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


_spool: BinaryIO
_settings: Settings


def _start_worker(spool: Path, settings: Settings) -> None:
    """Runs once in each worker process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _start(spool, settings)


def _end_with_parent() -> None:
    """Ends this worker when its parent was killed; otherwise it would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _start(spool: Path, settings: Settings) -> None:
    global _spool, _settings
    _spool, _settings = open(spool, "rb"), settings
    use_one_thread()


def _encode_chunk(places: list[Place]) -> list[tuple[int, Result]]:
    return [(place.position, encode(read_spooled(_spool, place.offset), _settings)) for place in places]


Read = Callable[[Path, Sequence[Path]], bytes]
"""Returns the bytes of an image file, which must lie in one of the folders, as `read_image_file` does."""


def encode(example: SourceExample, settings: Settings, read: Read = read_image_file) -> Result:
    """Makes the record of an example, or says why it cannot be packed."""
    try:
        if len(example.labels) > 1 and not settings.multi_label:
            raise ValueError(f"several labels in a single-label dataset: {example.labels}")
        label_ids = settings.labels.ids(example.labels)
        texts = {field: _present(example.texts.get(field, ())) for field in settings.text_fields}
        image, problem = _load_image(example.image, settings, read)
        has_text = any(texts.values())
        if problem and not (settings.keep_without_image and has_text):
            raise ValueError(problem)
        if image is None and not has_text:
            raise ValueError("neither image nor text")
    except ValueError as error:
        return Result(None, None, Counter(), Rejection(example.id, example.where, str(error)))
    height, width = (image.height, image.width) if image else (0, 0)
    record = Record(example.id, b"", height, width, texts, label_ids, example.weight)
    counts = Counter(examples=1, images_reencoded=int(bool(image and image.reencoded)))
    counts.update(f"without_text/{field}" for field, values in texts.items() if not values)
    counts.update(f"label/{settings.labels.names[index]}" for index in label_ids)
    counts["without_image"] += image is None
    counts["without_label"] += not label_ids
    rejection = Rejection(example.id, example.where, problem, _KEPT) if problem else None
    serialized = encode_example(dataclasses.replace(record, image=image.data) if image else record)
    return Result(serialized, record, counts, rejection)


def _present(texts) -> tuple[str, ...]:
    stripped = (text.strip() for text in texts)
    return tuple(text for text in stripped if text)


def _load_image(image: Path | bytes | RecordImage | None, settings: Settings, read: Read) -> tuple[PreparedImage | None, str]:
    """The prepared image, or None with what is wrong with it ("" where the source names no image)."""
    if image is None:
        return None, ""
    if isinstance(image, RecordImage):
        record = decode_example(read_record(image.shard, image.offset))
        if not image.resize:
            return PreparedImage(record.image, record.height, record.width, reencoded=False), ""
        image = record.image
    try:
        data = image if isinstance(image, bytes) else read(image, settings.image_roots)
        return prepare_image(data, settings.images), ""
    except FileNotFoundError:
        return None, f"missing image: {image} does not exist"
    except OSError as error:
        return None, f"unreadable image: {image}: {error.strerror}"
    except ImageFileError as error:
        return None, f"forbidden image: {error}"
    except BadImageError as error:
        file_name = "" if isinstance(image, bytes) else f"{image.name}: "
        return None, f"bad image: {file_name}{error}"
