"""Answers many rows: pictures are read while the model is at work, and each row gets its answer or its error, in order."""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import tensorflow as tf

from mm_keras.runs.example_rows import Examples, Row
from mm_keras.runs.predictions_file import Counts, Layout, Parts
from tfrecords_tools.progress import progress_bar

_BATCH_SIZE = 32
_AHEAD = 3  # batches whose pictures are read while the model answers an earlier one
_READERS = 4
_PART = 512  # rows that are written at once; so many are answered anew where a prediction was cut off


class Predictor(Protocol):
    """What answers rows, as `mm_keras.runs.predict.Predictor` does."""

    def read(self, example: Mapping[str, str | bytes], image_roots: Sequence[Path]) -> dict[str, bytes]: ...

    def __call__(self, batch: Sequence[dict[str, bytes]], top: int | None, embed: str | None) -> list[dict]: ...


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What an answer holds.

    Attributes:
        top: how many labels, the most probable first; None: all.
        embed: the name of an embedding, as `Predictor.embeddings` takes it, that is added; None: no embedding.
    """

    top: int | None = 5
    embed: str | None = None


def iter_answers(
    predictor: Predictor, rows: Iterable[Row], image_roots: Sequence[Path] = (), wanted: Wanted = Wanted()
) -> Iterator[tuple[Row, dict]]:
    """Yields each row with its answer, or {"error": reason}; the memory does not grow with the number of rows.

    Args:
        predictor: the trained run.
        rows: the examples.
        image_roots: the folders in which image files must lie; none: they may lie anywhere.
        wanted: what an answer holds.
    """
    rows, waiting = iter(rows), deque()
    pool = ThreadPoolExecutor(_READERS, "pictures")
    try:
        while batch := list(itertools.islice(rows, _BATCH_SIZE)):
            waiting.append((batch, [pool.submit(_read, predictor, row, image_roots) for row in batch]))
            if len(waiting) > _AHEAD:
                yield from _answers(predictor, *waiting.popleft(), wanted)
        while waiting:
            yield from _answers(predictor, *waiting.popleft(), wanted)
    finally:
        pool.shutdown(cancel_futures=True)


def predict_all(predictor: Predictor, examples: Examples, parts: Parts, layout: Layout, wanted: Wanted) -> Counts:
    """Answers all rows that are not in `parts` yet, and joins the parts; raises ValueError if no row could be predicted."""
    done = parts.counts
    rows = itertools.islice(examples.rows, done.rows, None)
    answers = iter_answers(predictor, rows, examples.image_roots, wanted)
    with progress_bar("predicting", "examples") as bar:
        bar.update(done.rows)
        while part := list(itertools.islice(answers, _PART)):
            parts.add([{"id": row.id, **row.kept, **answer} for row, answer in part], _count(part))
            bar.update(len(part))
    counts = parts.join(layout)
    if not counts.good:
        reason = f"all {counts.bad:,} {examples.unit} are bad, the first: {counts.first_error}"
        raise ValueError(f"nothing was predicted: {reason if counts.bad else 'the input is empty'}")
    return counts


def _count(part: Sequence[tuple[Row, dict]]) -> Counts:
    bad = [(row.number, answer["error"]) for row, answer in part if "error" in answer]
    return Counts(len(part), len(part) - len(bad), sum(number for number, _ in bad), bad[0][1] if bad else "")


def _read(predictor: Predictor, row: Row, image_roots: Sequence[Path]) -> dict[str, bytes] | str:
    """The model's inputs of a row, or the reason why the row cannot be read."""
    if row.error:
        return row.error
    try:
        return predictor.read(row.inputs, image_roots)
    except Exception as error:  # whatever is wrong with one row's picture, the other rows are answered
        return _told(error)


def _answers(predictor: Predictor, rows: Sequence[Row], tasks: Sequence[Future], wanted: Wanted) -> Iterator[tuple[Row, dict]]:
    raws = [task.result() for task in tasks]
    answers = iter(_answer_each(predictor, [raw for raw in raws if not isinstance(raw, str)], wanted))
    for row, raw in zip(rows, raws, strict=True):
        yield row, {"error": raw} if isinstance(raw, str) else next(answers)


def _answer_each(predictor: Predictor, batch: Sequence[dict[str, bytes]], wanted: Wanted) -> list[dict]:
    """The answers of a batch. If the model refuses it, each example is asked alone, so that one bad example spoils no other."""
    try:
        return predictor(batch, wanted.top, wanted.embed) if batch else []
    except tf.errors.OpError as error:
        if len(batch) == 1:
            return [{"error": _told(error)}]
    return [answer for raw in batch for answer in _answer_each(predictor, [raw], wanted)]


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return lines[0] if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {lines[0]}"
