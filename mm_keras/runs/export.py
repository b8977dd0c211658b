"""Exports a run as a versioned SavedModel, and compares its answers with those of the trained model."""

from __future__ import annotations

import base64
import contextlib
import errno
import gc
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from mm_keras.configurable import NonNegativeFloat, PositiveInt, configurable
from mm_keras.data.pipeline import make_evaluation_batches
from mm_keras.data.text import PRETRAINED_KINDS
from mm_keras.distribution.preemption import end_if_asked
from mm_keras.features import IMAGE, FeatureSpec, TokenText, safe_name
from mm_keras.objectives.metrics import probabilities_of
from mm_keras.runs.run_folder import VERIFY_COMMAND, RunFolder
from mm_keras.runs.serving import ServingModule
from mm_keras.runs.thresholds import load_thresholds
from mm_keras.tf_text_model.plain_path import is_pattern, plain_path
from tfrecords_tools.dataset import checksums
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.dataset.folder_lock import folder_lock
from tfrecords_tools.dataset.publish import UNFINISHED
from tfrecords_tools.dataset.schema import decode_example
from tfrecords_tools.dataset.shards import iter_records

_CHECK = Path(__file__).with_name("saved_model_check.py")


class ParityError(RuntimeError):
    """The exported model answers differently from the trained one; nothing was exported."""


@configurable
def export(
    workdir: str | Path,
    dataset: str | None = None,
    split: str = "test",
    num_checked: PositiveInt = 32,
    tolerance: NonNegativeFloat = 1e-4,
) -> Path:
    """Exports a run as export/<version>/, where the version is the next integer, as TensorFlow Serving expects it.

    A fresh process that has TensorFlow alone then loads the SavedModel and answers the first records of a split, given as bytes
    and strings as a client would send them. Its probabilities must equal those of the trained model on evaluation batches.

    Args:
        workdir: the run folder.
        dataset: dataset folder with the records to compare on; default: the one that the run was trained on.
        split: the split with these records.
        num_checked: number of records to compare on.
        tolerance: the largest difference of a probability that is accepted.

    Returns:
        the SavedModel's folder. Its inputs are called by the `safe_name` of the modalities; assets.extra/features.json in it
        lists the "key" of each text "field".

    Raises:
        ParityError: if a probability differs by more; the export is then not kept.
        DamagedFileError: if a file of the run is not what was written.
        OSError: if the disk is full or fails; nothing half is left.
    """
    try:
        return _export(RunFolder(workdir), dataset, split, num_checked, tolerance)
    finally:
        gc.collect()  # models and traced functions refer to each other in circles (13 MB), which Python seldom looks for


def _export(run: RunFolder, dataset: str | None, split: str, num_checked: int, tolerance: float) -> Path:
    checked = run.dataset(dataset).split(split)
    features = FeatureSpec.load(run.path)
    with contextlib.closing(_FreshProcess(features)) as fresh:  # it loads TensorFlow while this one loads the model and traces
        model, _ = run.load_model()
        with _staging_folder(run.export) as staging:
            thresholds = load_thresholds(run, features)
            module = ServingModule(model, features, thresholds and thresholds.values)
            plain = plain_path(staging)
            end_if_asked()
            _save(module, plain, model)
            end_if_asked()
            raw = _first_records(checked, features, num_checked)
            num_checked = len(raw[safe_name(features.modalities[0])])
            fresh.ask(plain, raw)
            batches = make_evaluation_batches(checked, features, num_checked)
            inputs, _, _ = next(iter(batches.dataset))
            expected = probabilities_of(model(inputs, training=False).numpy(), features.multi_label)[:num_checked]
            difference = float(np.abs(fresh.answer() - expected).max())
            if not difference <= tolerance:
                raise ParityError(
                    f"the exported model's probabilities differ from the trained model's by up to {difference:.2e} "
                    f"(allowed: {tolerance:.0e}) on {num_checked} records of {checked.dataset.folder}, split {split!r}"
                )
            end_if_asked()
            extra = staging / "assets.extra"
            extra.mkdir()
            features.save(extra, with_models=False)
            files = [path.relative_to(staging).as_posix() for path in sorted(staging.rglob("*")) if path.is_file()]
            checksums.begin(staging, VERIFY_COMMAND, files)
            staging.chmod(0o755)
            versions = [int(path.name) for path in run.export.iterdir() if path.name.isdecimal()]
            exported = run.export / str(max(versions, default=0) + 1)
            staging.replace(exported)
    logging.info(
        f"exported {exported}: equal to the trained model on {num_checked} records (largest difference {difference:.1e})"
    )
    for text in features.texts:
        if text.key != text.field:
            logging.info(f"its input {text.key!r} is the text field {text.field!r}")
    if is_pattern(exported.absolute()):
        logging.info("TensorFlow loads no model from a path with one of []*?\\: copy it elsewhere, or make a link to it")
    return exported


@contextlib.contextmanager
def _staging_folder(folder: Path) -> Iterator[Path]:
    """Gives a new folder below `folder`, which is deleted unless it was renamed; so are those that killed exports left."""
    folder.mkdir(exist_ok=True)
    for left in folder.glob(f"{UNFINISHED}*/"):
        with folder_lock(left, wait=False) as locked:  # that of an export that runs is locked already
            if locked:
                shutil.rmtree(left, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))  # no integer: servers ignore it
    try:
        with folder_lock(staging):
            yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _save(module: ServingModule, folder: Path, model: keras.Model) -> None:
    """Writes a SavedModel; errors of the disk, which TensorFlow has as its own, become those of the system."""
    needed = sum(math.prod(weight.shape) * tf.as_dtype(weight.dtype).size for weight in model.weights)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"an export takes at least {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free: make room",
            str(folder.parent),
        )
    try:
        tf.saved_model.save(module, str(folder), signatures=module.signature())
    except tf.errors.OpError as error:
        full = isinstance(error, tf.errors.ResourceExhaustedError) or shutil.disk_usage(folder).free < 2**20
        reason = (
            "the disk is full: make room, and export again" if full else f"the export could not be written: {error.message}"
        )
        raise OSError(errno.ENOSPC if full else errno.EIO, reason, str(folder.parent)) from error


def _first_records(split: Split, features: FeatureSpec, num_records: int) -> dict[str, list[bytes]]:
    """What a client would send for the first labelled records, by the names of the inputs, in the order of evaluation."""
    raw: dict[str, list[bytes]] = {safe_name(modality): [] for modality in features.modalities}
    num_found = 0
    for file in split.files:
        for record in map(decode_example, iter_records(file)):
            if num_found == num_records:
                return raw
            if not record.label_ids and not features.multi_label:
                continue
            num_found += 1
            if features.image:
                raw[IMAGE].append(record.image)
            for text in features.texts:
                raw[text.key].append((record.texts.get(text.field) or ("",))[0].encode())
    return raw


class _FreshProcess:
    """An isolated interpreter that imports TensorFlow alone, and tensorflow_text if the model needs its operations."""

    def __init__(self, features: FeatureSpec):
        self._folder = tempfile.mkdtemp()
        self._probabilities = Path(self._folder) / "probabilities.npy"
        command = [sys.executable, "-I", str(_CHECK), str(self._probabilities)]
        if any(not isinstance(text, TokenText) or text.tokenizer.kind in PRETRAINED_KINDS for text in features.texts):
            command.append("tensorflow_text")
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self._process = subprocess.Popen(command, text=True, cwd=self._folder, **pipes)

    def ask(self, saved_model: Path, raw: dict[str, list[bytes]]) -> None:
        """Sends records to a SavedModel, without waiting for the answer."""
        request = {
            "saved_model": str(saved_model.absolute()),
            "inputs": {name: [base64.b64encode(value).decode() for value in values] for name, values in raw.items()},
        }
        for send in (lambda: self._process.stdin.write(json.dumps(request)), self._process.stdin.close):
            with contextlib.suppress(BrokenPipeError):  # it ended, and `answer` says why
                send()
        self._process.stdin = None  # or `communicate` would flush it

    def answer(self) -> np.ndarray:
        """Waits for the answer: probabilities float32 [number of records, num_labels]."""
        errors = None
        while errors is None:
            end_if_asked()
            with contextlib.suppress(subprocess.TimeoutExpired):
                _, errors = self._process.communicate(timeout=0.5)
        if self._process.returncode:
            raise ParityError(f"the exported model does not run in a fresh process:\n{errors[-2000:]}")
        return np.load(self._probabilities)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)
