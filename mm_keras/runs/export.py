"""Exports a run as a versioned SavedModel, and compares its answers with those of the trained model."""

from __future__ import annotations

import contextlib
import errno
import gc
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import keras
import tensorflow as tf
from absl import logging

from mm_keras.configurable import NonNegativeFloat, PositiveInt, configurable
from mm_keras.data.pipeline import make_evaluation_batches
from mm_keras.distribution.preemption import end_if_asked
from mm_keras.features import FeatureSpec
from mm_keras.runs.export_assets import EXTRA, first_records, write_assets
from mm_keras.runs.fresh_process import FreshProcess, FreshProcessError
from mm_keras.runs.parity import ParityCheck, ParityError
from mm_keras.runs.run_folder import VERIFY_COMMAND, RunFolder
from mm_keras.runs.serving import ServingModule
from mm_keras.runs.serving_files import model_name, write_serving_files
from mm_keras.runs.thresholds import load_thresholds
from mm_keras.tf_text_model.plain_path import is_pattern, plain_path
from tfrecords_tools.dataset import checksums
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.dataset.folder_lock import folder_lock
from tfrecords_tools.dataset.publish import UNFINISHED


@configurable
def export(
    workdir: str | Path,
    dataset: str | None = None,
    split: str = "test",
    num_checked: PositiveInt = 32,
    tolerance: NonNegativeFloat = 1e-5,
) -> Path:
    """Exports a run as export/<version>/, where the version is the next integer, as TensorFlow Serving expects it.

    A fresh process that has TensorFlow alone then loads the SavedModel and answers the first records of a split, given as bytes
    and strings as a client would send them, by each of its signatures. Its scores must equal those of the trained model on
    evaluation batches, where inputs are missing, too. Beside the versions lie the files that servers are started with, which
    stay as they are once they are there.

    Args:
        workdir: the run folder.
        dataset: dataset folder with the records to compare on; default: the one that the run was trained on.
        split: the split with these records.
        num_checked: number of records to compare on.
        tolerance: the largest difference of a probability that is accepted.

    Returns:
        the SavedModel's folder. Its inputs are called by the `safe_name` of the modalities; assets.extra/features.json in it
        lists the "key" of each text "field". `ServingModule` says what its signatures are.

    Raises:
        ParityError: if a probability differs by more; the export is then not kept.
        DamagedFileError: if a file of the run is not what was written.
        OSError: if the disk is full or fails; nothing half is left.
    """
    try:
        return make_export(RunFolder(workdir), dataset, split, num_checked, tolerance)
    finally:
        gc.collect()  # models and traced functions refer to each other in circles (13 MB), which Python seldom looks for


def make_export(run: RunFolder, dataset: str | None, split: str, num_checked: int, tolerance: float) -> Path:
    checked = run.dataset(dataset).split(split)
    features = FeatureSpec.load(run.path)
    with contextlib.closing(FreshProcess(features)) as fresh:  # it loads TensorFlow while this one loads the model and traces
        model, _ = run.load_model()
        with staging_folder(run.export) as staging:
            thresholds = load_thresholds(run, features)
            module = ServingModule(model, features, thresholds and thresholds.values)
            signatures = module.signatures()
            end_if_asked()
            _save(module, signatures, plain_path(staging), model)
            end_if_asked()
            raw = first_records(checked, features, num_checked)
            check = ParityCheck(features, raw)
            batches = make_evaluation_batches(checked, features, num_checked)
            inputs = {name: value[: check.num_records] for name, value in next(iter(batches.dataset))[0].items()}
            fresh.ask(plain_path(staging), check.questions(inputs, signatures))
            operations, difference = _compare(check, model, inputs, signatures, fresh, tolerance, checked)
            end_if_asked()
            extra = staging / EXTRA
            extra.mkdir()
            first = {name: inputs[name][:1] for name in inputs}
            write_assets(extra, model_name(run.path), features, raw, signatures, first, operations)
            if run.card.is_file():  # of a report that was made before
                checksums.check(run.card)
                shutil.copy(run.card, extra)
            exported = publish_version(staging)
            write_serving_files(run.export, model_name(run.path))
    logging.info(
        f"exported {exported}: equal to the trained model on {check.num_records} records, by {len(signatures)} signatures "
        f"(largest difference {difference:.1e})"
    )
    for text in features.texts:
        if text.key != text.field:
            logging.info(f"its input {text.key!r} is the text field {text.field!r}")
    if operations:
        logging.info(f"a server needs TensorFlow Text, as TensorFlow Serving has it, for {', '.join(operations)}")
    if is_pattern(exported.absolute()):
        logging.info("TensorFlow loads no model from a path with one of []*?\\: copy it elsewhere, or make a link to it")
    return exported


def _compare(
    check: ParityCheck,
    model: keras.Model,
    inputs: Mapping[str, tf.Tensor],
    signatures: Mapping,
    fresh: FreshProcess,
    tolerance: float,
    checked: Split,
) -> tuple[list[str], float]:
    """(operations that TensorFlow itself does not have, the largest difference); raises ParityError above the tolerance."""
    where = f"{check.num_records} records of {checked.dataset.folder}, split {checked.name!r}"
    try:
        answers, operations = fresh.answer()
    except FreshProcessError as error:
        raise ParityError(f"the exported model does not run in a fresh process:\n{error}") from error
    difference, problem = check.difference(model, inputs, signatures, answers)
    if not difference <= tolerance:
        raise ParityError(
            f"the exported model's probabilities differ from the trained model's by up to {difference:.2e} "
            f"(allowed: {tolerance:.0e}) on {where}"
        )
    if problem:
        raise ParityError(f"{problem}, on {where}")
    return operations, difference


def publish_version(staging: Path) -> Path:
    """Enters the files of a staged export into checksums, and gives it the next version as its name, which is returned."""
    files = [path.relative_to(staging).as_posix() for path in sorted(staging.rglob("*")) if path.is_file()]
    checksums.begin(staging, VERIFY_COMMAND, files)
    staging.chmod(0o755)
    versions = [int(path.name) for path in staging.parent.iterdir() if path.name.isdecimal()]
    exported = staging.with_name(str(max(versions, default=0) + 1))
    staging.replace(exported)
    return exported


@contextlib.contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
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


def _save(module: ServingModule, signatures: Mapping, folder: Path, model: keras.Model) -> None:
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
        tf.saved_model.save(module, str(folder), signatures=signatures)
    except tf.errors.OpError as error:
        full = isinstance(error, tf.errors.ResourceExhaustedError) or shutil.disk_usage(folder).free < 2**20
        reason = (
            "the disk is full: make room, and export again" if full else f"the export could not be written: {error.message}"
        )
        raise OSError(errno.ENOSPC if full else errno.EIO, reason, str(folder.parent)) from error
