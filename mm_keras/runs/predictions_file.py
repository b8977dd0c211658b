"""Files of predictions: JSON Lines, CSV or Parquet, written in parts, so that a prediction that was cut off can go on."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import pickle
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tfrecords_tools.dataset.atomic_file import atomic_file, write_bytes, write_text

if TYPE_CHECKING:
    import pyarrow

SUFFIXES = (".jsonl", ".csv", ".parquet")
ANSWERS = ("id", "label", "probability", "labels", "probabilities", "predicted", "embedding", "error")


class Counts(NamedTuple):
    """How many rows were answered.

    Attributes:
        rows: lines of the output.
        good, bad: how many of the input's rows have an answer, and how many an error.
        first_error: the first of these errors.
    """

    rows: int = 0
    good: int = 0
    bad: int = 0
    first_error: str = ""

    def plus(self, other: Counts) -> Counts:
        numbers = (one + more for one, more in zip(self[:3], other[:3], strict=True))
        return Counts(*numbers, self.first_error or other.first_error)


def check_output(output: Path) -> None:
    """Raises ValueError if the name of the output does not tell one of the forms."""
    if output.suffix.lower() not in SUFFIXES:
        raise ValueError(f"predictions are written as {', '.join(SUFFIXES)}. Received: --output={output}")


@dataclasses.dataclass(frozen=True)
class Layout:
    """The columns of CSV and Parquet; JSON Lines hold the answers as they are.

    Attributes:
        labels: the run's labels.
        multi_label: whether an answer names several.
        top: how many labels an answer has; None: each label has a column with its probability.
        embeds: whether an answer has an embedding.
        kept: names of the columns that are passed on -> their types in Parquet; None for other files.
    """

    labels: Sequence[str]
    multi_label: bool
    top: int | None
    embeds: bool
    kept: Mapping[str, pyarrow.DataType | None]

    def schema(self) -> pyarrow.Schema:
        import pyarrow as pa

        lists = {"labels": pa.list_(pa.string()), "probabilities": pa.list_(pa.float32())}
        columns = {"id": pa.string()} | {name: kind or pa.string() for name, kind in self.kept.items()}
        columns |= {"label": pa.string(), "probability": pa.float32()}
        columns |= {probability_of(label): pa.float32() for label in self.labels} if self.top is None else {}
        columns |= lists if self.top and self.top > 1 else {}
        columns |= {"predicted": pa.list_(pa.string())} if self.multi_label else {}
        columns |= {"embedding": pa.list_(pa.float32())} if self.embeds else {}
        return pa.schema(columns | {"error": pa.string()})

    def row(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The cells of an answer by column; those that it lacks are left out."""
        cells = dict(answer) | {"id": str(answer["id"])}
        cells |= {name: _text(answer.get(name)) for name, kind in self.kept.items() if kind is None}
        if "labels" in answer:
            cells |= {"label": answer["labels"][0], "probability": answer["probabilities"][0]}
            if self.top is None:
                cells |= zip(map(probability_of, answer["labels"]), answer["probabilities"], strict=True)
        return cells


def probability_of(label: str) -> str:
    """The name of the column with a label's probability."""
    return f"probability: {label}"


class Parts:
    """The parts of a file of predictions, in a folder beside it, until they are joined.

    Args:
        output: the file to make.
        asked: all that the answers depend on; parts that were made for something else are deleted.
    """

    def __init__(self, output: Path, asked: object):
        self._output = output
        self._folder = output.with_name(f".{output.name}.parts")
        question = self._folder / "question.txt"
        if not (question.is_file() and question.read_text("utf-8") == repr(asked)):
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)
            write_text(question, repr(asked))
        self.counts = Counts()
        self._number = 0
        while (path := self._part(self._number)).is_file():
            self.counts = self.counts.plus(_load(path)[0])
            self._number += 1

    def add(self, answers: list[dict], counts: Counts) -> None:
        """Writes a part, as a whole or not at all."""
        write_bytes(self._part(self._number), pickle.dumps((counts, answers), pickle.HIGHEST_PROTOCOL))
        self._number += 1
        self.counts = self.counts.plus(counts)

    def join(self, layout: Layout) -> Counts:
        """Makes the file of all parts, which are then deleted."""
        parts = (_load(self._part(number))[1] for number in range(self._number))
        if self._output.suffix.lower() != ".jsonl":
            parts = ([layout.row(answer) for answer in part] for part in parts)
        write_rows(self._output, parts, layout.schema())
        shutil.rmtree(self._folder)
        return self.counts

    def _part(self, number: int) -> Path:
        return self._folder / f"{number:08}.pickle"


def _load(path: Path) -> tuple[Counts, list[dict]]:
    """Unpickling is safe: this program wrote the file."""
    return pickle.loads(path.read_bytes())


def write_rows(output: Path, parts: Iterable[list[dict]], schema: pyarrow.Schema) -> None:
    """Writes rows as the suffix of the output says, as a whole or not at all.

    Args:
        output: the file to write.
        parts: rows, as dicts, in parts.
        schema: the columns; JSON Lines hold all that a row has.
    """
    write = {".jsonl": _write_json_lines, ".csv": _write_csv, ".parquet": _write_parquet}[output.suffix.lower()]
    with atomic_file(output) as path:
        write(path, parts, schema)


def _write_json_lines(path: Path, parts: Iterable[list[dict]], schema: pyarrow.Schema) -> None:
    with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
        for part in parts:
            file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in part)


def _write_csv(path: Path, parts: Iterable[list[dict]], schema: pyarrow.Schema) -> None:
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        rows = csv.DictWriter(file, schema.names, restval="", extrasaction="ignore", lineterminator="\n")
        rows.writeheader()
        for part in parts:
            rows.writerows({name: _cell(value) for name, value in row.items()} for row in part)


def _write_parquet(path: Path, parts: Iterable[list[dict]], schema: pyarrow.Schema) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with contextlib.closing(pq.ParquetWriter(path, schema, compression="zstd")) as file:
        for part in parts:
            file.write_table(pa.Table.from_pylist([_utf8(row) for row in part], schema))


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def _utf8(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for name, value in row.items()
    }


def _text(value: Any) -> str | None:
    """A cell that is passed on, as text."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
