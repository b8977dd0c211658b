"""Predictions of many examples, in parts, with Apache Beam: an exported model answers a table, a folder or a packed dataset.

    OUTPUT/
        predictions.json              the input, its options and the model: a run with others does not go on with these parts
        tasks/                        the rows of each part, until all parts are there
        part-00003-of-00040.parquet   id, labels, probabilities, predicted (multi-label), error: a row for each of the input

The program that starts the pipeline cuts the input into tasks of so many rows, in order; of a packed dataset each shard is one.
A task becomes one part, under a temporary name first. So a task that a runner runs twice makes the same part, parts that were
finished when a run was killed are kept, and each row of the input is answered exactly once.

Workers need mm_keras[beam], and reach input, export and output by the same paths as this program.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import pickle
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from mm_keras.features import IMAGE, FeatureSpec, safe_name
from mm_keras.runs.example_rows import InputOptions, Row
from mm_keras.runs.export_assets import EXTRA, OPERATIONS_FILE
from mm_keras.runs.predict import as_packed, read_picture
from mm_keras.runs.predict_input import open_examples
from mm_keras.runs.run_folder import RUN_FILE, RunFolder
from mm_keras.runs.serving import DEFAULT
from mm_keras.tf_text_model.plain_path import plain_path
from tfrecords_tools.dataset.atomic_file import atomic_file, write_text
from tfrecords_tools.dataset.folder import Dataset
from tfrecords_tools.dataset.info import DATASET_FILE
from tfrecords_tools.dataset.schema import decode_example
from tfrecords_tools.dataset.shards import iter_records, sha256_of
from tfrecords_tools.packing.images import ImageOptions

MANIFEST = "predictions.json"
_TASKS = "tasks"
_BATCH_SIZE = 32
_SAMPLE = 256  # rows that an estimate answers


@dataclasses.dataclass(frozen=True)
class Model:
    """An exported model, as a worker finds it.

    Attributes:
        folder: the SavedModel.
        images: how the pictures that it was trained on were packed; None, if its run is not there: they are sent as they are.
    """

    folder: str
    images: ImageOptions | None

    @classmethod
    def find(cls, run_or_export: str | Path) -> Model:
        """The newest export of a run, the newest version in a folder, or the version given.

        Raises:
            FileNotFoundError: if there is no export.
        """
        folder = Path(run_or_export)
        base = folder / "export" if (folder / RUN_FILE).is_file() else folder
        if not (base / "saved_model.pb").is_file():
            versions = [path for path in base.glob("*/saved_model.pb") if path.parent.name.isdecimal()]
            if not versions:
                raise FileNotFoundError(f"{run_or_export} holds no exported model: mm-keras export {run_or_export}")
            base = max(versions, key=lambda path: int(path.parent.name)).parent
        run = next((path for path in base.resolve().parents if (path / RUN_FILE).is_file()), None)
        images = ImageOptions(**RunFolder(run).facts().get("images") or {"short_side": None}) if run else None
        return cls(str(base.resolve()), images)

    def features(self) -> FeatureSpec:
        """What the model takes in."""
        return FeatureSpec.load(Path(self.folder) / EXTRA)


@dataclasses.dataclass(frozen=True)
class Task:
    """The rows of one part: a file with them, or a shard of records.

    Attributes:
        part: the path of the part that is made of them.
        file: the file.
        is_shard: whether it holds records.
    """

    part: str
    file: str
    is_shard: bool


def predict_with_beam(
    run_or_export: str | Path,
    examples: str | Path,
    output: str | Path,
    arguments: Sequence[str] = (),
    options: InputOptions = InputOptions(),
    rows_per_part: int = 2000,
) -> Path:
    """Answers all examples, and writes Parquet files in the order of the input; goes on where a run before was stopped.

    Args:
        run_or_export: the model: a run folder with an export, a folder of versions, or one version.
        examples: a table or a folder of pictures, as `predict` takes them, or a packed dataset, of which all splits are read.
        output: the folder to write.
        arguments: Beam's options, such as ["--runner=FlinkRunner", "--flink_master=host:8081"].
        options: how a table is bound and read.
        rows_per_part: rows of a part; of a dataset each shard is one.

    Returns:
        `output`.

    Raises:
        FileExistsError: if `output` holds parts of another input or model.
        ValueError: for an option that Beam does not know, or an input without rows.
        OSError: if the pipeline fails; the parts that it finished are kept.
    """
    from apache_beam import Create, Map, Pipeline
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.transforms.util import Reshuffle

    beam_options = PipelineOptions(list(arguments))
    unknown = set(beam_options.get_all_options(retain_unknown_options=True)) - set(beam_options.get_all_options())
    if unknown:
        raise ValueError(f"Apache Beam knows no option --{min(unknown)}: see docs/beam.md")
    model, output = Model.find(run_or_export), Path(output)
    output.mkdir(parents=True, exist_ok=True)
    question = {"model": model.folder, "model_sha256": sha256_of(Path(model.folder) / "saved_model.pb")}
    question |= {"examples": str(Path(examples).resolve()), "rows_per_part": rows_per_part}
    question |= {"options": repr(dataclasses.asdict(options)), "input_sha256": _digest(Path(examples))}
    _check_same(output / MANIFEST, question)
    tasks = list(_make_tasks(model, Path(examples), output, options, rows_per_part))
    waiting = [task for task in tasks if not Path(task.part).is_file()]
    if len(waiting) < len(tasks):
        logging.info(f"{len(tasks) - len(waiting):,} of {len(tasks):,} parts are there already")
    if waiting:
        try:
            with Pipeline(options=beam_options) as pipeline:
                pipeline | Create(waiting) | Reshuffle() | Map(make_part, model=model)
        except Exception as error:  # runners wrap what happened on a worker in errors of many kinds
            raise OSError(
                f"the Beam pipeline failed: {error}. Run the same command again to go on; finished parts are kept"
            ) from error
    good, bad = _count(tasks)
    shutil.rmtree(output / _TASKS, ignore_errors=True)
    logging.info(f"{output}: {good:,} predictions, {bad:,} bad rows, in {len(tasks):,} parts")
    if not good:
        raise ValueError(f"nothing was predicted: all {bad:,} rows are bad; {output} says why")
    return output


def _check_same(path: Path, question: dict[str, Any]) -> None:
    """Raises FileExistsError if the output folder is of another input or model; otherwise notes these in the file `path`."""
    if path.is_file():
        previous = json.loads(path.read_text("utf-8"))
        changed = sorted(name for name in question if previous.get(name) != question[name])
        if changed:
            raise FileExistsError(
                f"{path.parent} holds predictions of another {changed[0]} ({previous.get(changed[0])!r}, not "
                f"{question[changed[0]]!r}): give another --output, or delete it"
            )
    write_text(path, json.dumps(question, indent=2, ensure_ascii=False) + "\n")


def _digest(examples: Path) -> str:
    """Tells whether the input is the same as before: a file by its content, a folder by names, sizes and times."""
    if examples.is_file():
        return sha256_of(examples)
    digest = hashlib.sha256()
    for path in sorted(examples.rglob("*")):
        if path.is_file() and ".features" not in path.parts:
            status = path.stat()
            digest.update(repr((path.relative_to(examples).as_posix(), status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()


def _make_tasks(model: Model, examples: Path, output: Path, options: InputOptions, rows: int) -> Iterator[Task]:
    if (examples / DATASET_FILE).is_file():
        dataset = Dataset.open(examples)
        files = [file for split in dataset.info.splits for file in dataset.split(split).files]
        for number, file in enumerate(files):
            yield Task(str(output / f"part-{number:05d}-of-{len(files):05d}.parquet"), str(file), True)
        return
    source = open_examples(examples, model.features().modalities, options)
    for note in source.notes:
        logging.info(note)
    folder = output / _TASKS
    folder.mkdir(exist_ok=True)
    files = []
    while batch := list(itertools.islice(source.rows, rows)):
        files.append(folder / f"{len(files):05d}.pickle")
        with atomic_file(files[-1]) as path:
            path.write_bytes(pickle.dumps((batch, [str(root) for root in source.image_roots])))
    if not files:
        raise ValueError(f"nothing was predicted: {examples} is empty")
    for number, file in enumerate(files):
        yield Task(str(output / f"part-{number:05d}-of-{len(files):05d}.parquet"), str(file), False)


def make_part(task: Task, model: Model) -> str:
    """Answers the rows of a task, and writes its part; returns the part's path. It runs on a worker."""
    import pyarrow
    import pyarrow.parquet

    answer = load_model(model)
    rows = _records(task.file, answer.features) if task.is_shard else _rows(task.file, model)
    answers = list(answer(rows))
    kinds = {"id": pyarrow.string(), "labels": pyarrow.list_(pyarrow.string())}
    kinds |= {"probabilities": pyarrow.list_(pyarrow.float32()), "error": pyarrow.string()}
    kinds |= {"predicted": pyarrow.list_(pyarrow.string())} if answer.features.multi_label else {}
    table = pyarrow.Table.from_pylist(answers, schema=pyarrow.schema(list(kinds.items())))
    with atomic_file(task.part) as path:
        pyarrow.parquet.write_table(table, path)
    return task.part


def _records(file: str, features: FeatureSpec) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(id, inputs by the names of the modalities, error) of each record of a shard."""
    for record in map(decode_example, iter_records(file)):
        texts = {text.name: (record.texts.get(text.field) or ("",))[0] for text in features.texts}
        yield record.id, {**texts, **({IMAGE: record.image} if features.image else {})}, ""


def _rows(file: str, model: Model) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(id, inputs by the names of the modalities, error) of each row; the picture is read."""
    rows, roots = pickle.loads(Path(file).read_bytes())  # this project wrote it a moment ago, beside the output
    for row in rows:
        yield _read_row(row, model, tuple(map(Path, roots)))


def _read_row(row: Row, model: Model, roots: tuple[Path, ...]) -> tuple[str, dict[str, Any], str]:
    inputs = dict(row.inputs)
    try:
        image = inputs.get(IMAGE)
        if image and not row.error:
            options = model.images or ImageOptions(short_side=None)
            inputs[IMAGE] = (
                as_packed(image, options, "the image") if isinstance(image, bytes) else read_picture(image, options, roots)
            )
    except (ValueError, OSError) as error:
        return str(row.id), {}, str(error)
    return str(row.id), inputs, row.error


class _Answer:
    """The loaded model as a function of rows."""

    def __init__(self, model: Model):
        self.features = model.features()
        operations = Path(model.folder) / EXTRA / OPERATIONS_FILE
        if json.loads(operations.read_text("utf-8"))["other_operations"]:
            import tensorflow_text  # noqa: F401  registers them
        self._loaded = tf.saved_model.load(str(plain_path(Path(model.folder))))
        self._serve = self._loaded.signatures[DEFAULT]

    def __call__(self, rows: Iterable[tuple[str, dict[str, Any], str]]) -> Iterator[dict[str, Any]]:
        rows = iter(rows)
        while batch := list(itertools.islice(rows, _BATCH_SIZE)):
            good = [(row_id, inputs) for row_id, inputs, error in batch if not error]
            answers = iter(self._ask([inputs for _, inputs in good])) if good else iter(())
            for row_id, _, error in batch:
                yield {"id": row_id, **({"error": error} if error else next(answers))}

    def _ask(self, examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        count = len(examples)
        examples = examples * 2 if count == 1 else examples  # a damaged picture that comes alone fails the call
        columns = {}
        for name in self.features.modalities:
            values = [example.get(name, b"") for example in examples]
            values = [value.encode("utf-8", "replace") if isinstance(value, str) else value for value in values]
            columns[safe_name(name)] = tf.constant(values, tf.string)
        arrays = {name: value.numpy()[:count] for name, value in self._serve(**columns).items()}
        return [self._one(arrays, row) for row in range(count)]

    def _one(self, arrays: dict[str, np.ndarray], row: int) -> dict[str, Any]:
        if arrays["error"][row]:
            return {"error": arrays["error"][row].decode()}
        answer = {"labels": [label.decode() for label in arrays["labels"][row]], "probabilities": arrays["probabilities"][row]}
        if "predicted" in arrays:
            answer["predicted"] = [self.features.labels[index] for index in arrays["predicted"][row].nonzero()[0]]
        return answer


@functools.lru_cache(maxsize=1)
def load_model(model: Model) -> _Answer:
    """The loaded model, which a process loads once."""
    return _Answer(model)


def _count(tasks: Sequence[Task]) -> tuple[int, int]:
    import pyarrow.parquet

    good = bad = 0
    for task in tasks:
        errors = pyarrow.parquet.read_table(task.part, columns=["error"]).column("error")
        good += errors.null_count
        bad += len(errors) - errors.null_count
    return good, bad


def estimate(run_or_export: str | Path, examples: str | Path, total: float, options: InputOptions = InputOptions()) -> str:
    """Answers the first rows on this machine, and says how long so many would take.

    Args:
        run_or_export, examples, options: as for `predict_with_beam`.
        total: the number of examples to estimate for.
    """
    model = Model.find(run_or_export)
    answer = load_model(model)
    path = Path(examples)
    if (path / DATASET_FILE).is_file():
        dataset = Dataset.open(path)
        file = next(file for split in dataset.info.splits for file in dataset.split(split).files)
        rows = list(itertools.islice(_records(str(file), answer.features), _SAMPLE))
    else:
        source = open_examples(path, answer.features.modalities, options)
        rows = [_read_row(row, model, source.image_roots) for row in itertools.islice(source.rows, _SAMPLE)]
    if not rows:
        raise ValueError(f"nothing to measure: {examples} is empty")
    list(answer(rows[:2]))
    start = time.perf_counter()
    list(answer(rows))
    rate = len(rows) / (time.perf_counter() - start)
    hours = total / rate / 3600
    return (
        f"measured: {len(rows):,} examples at {rate:,.0f}/s by one process on this machine\n"
        f"{total:,.0f} examples: {hours:,.1f} hours by one such process, {hours / 16:,.1f} by 16, {hours / 256:,.1f} by 256"
    )
