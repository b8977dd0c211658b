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
    core_ops_only: bool = False,
    version_of: str | Path | None = None,
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
        core_ops_only: whether the SavedModel does without the operations of TensorFlow Text, which not every server has. Of the
            pretrained tokenizers, those of BERT's kind (WordPiece) can; others are refused. See `CoreWordPiece`.
        version_of: another run with the same inputs, in whose export/ this one becomes the next version: for what serves that
            run, this one takes its place. It may know other classes. None: this run's own export/.

    Returns:
        the SavedModel's folder. Its inputs are called by the `safe_name` of the modalities; assets.extra/features.json in it
        lists the "key" of each text "field". `ServingModule` says what its signatures are.

    Raises:
        ParityError: if a probability differs by more; the export is then not kept.
        ValueError: if the model cannot do without TensorFlow Text, and has to; or if the other run has other inputs.
        DamagedFileError: if a file of the run is not what was written.
        OSError: if the disk is full or fails; no part of an export is left.

    Example:
        >>> export("runs/products")
        PosixPath('runs/products/export/1')
    """
    try:
        run = RunFolder(workdir)
        served = RunFolder(version_of) if version_of is not None else run
        return make_export(run, served, dataset, split, num_checked, tolerance, core_ops_only)
    finally:
        gc.collect()  # models and traced functions refer to each other in circles (13 MB), which Python seldom collects


def make_export(
    run: RunFolder,
    served: RunFolder,
    dataset: str | None,
    split: str,
    num_checked: int,
    tolerance: float,
    core_ops_only: bool,
) -> Path:
    check_split = run.dataset(dataset).split(split)
    features = FeatureSpec.load(run.path)
    _check_same_inputs(features, run, served)
    fresh_process = FreshProcess(features, core_ops_only)  # it loads TensorFlow while this one loads the model
    with contextlib.closing(fresh_process) as fresh:
        model, _ = run.load_model()
        with staging_folder(served.export) as staging:
            thresholds = load_thresholds(run, features)
            module = ServingModule(model, features, thresholds and thresholds.values, core_ops_only=core_ops_only)
            signatures = module.signatures()
            end_if_asked()
            _save(module, signatures, plain_path(staging), model)
            end_if_asked()
            raw = first_records(check_split, features, num_checked)
            check = ParityCheck(features, raw)
            batches = make_evaluation_batches(check_split, features, num_checked)
            inputs = {name: value[: check.num_records] for name, value in next(iter(batches.dataset))[0].items()}
            fresh.ask(plain_path(staging), check.questions(inputs, signatures))
            operations, difference = _compare(check, model, inputs, signatures, fresh, tolerance, check_split)
            end_if_asked()
            if core_ops_only and operations:
                raise ValueError(
                    f"{run.path}: the model has operations that TensorFlow itself lacks: {', '.join(operations)}. "
                    "Received: core_ops_only=True"
                )
            extra = staging / EXTRA
            extra.mkdir()
            first = {name: inputs[name][:1] for name in inputs}
            write_assets(extra, model_name(served.path), features, raw, signatures, first, operations)
            if run.card.is_file():  # of a report that was made before
                checksums.check(run.card)
                shutil.copy(run.card, extra)
            exported = publish_version(staging)
            write_serving_files(served.export, model_name(served.path))
    logging.info(
        f"exported {exported}: equal to the trained model on {check.num_records} records, by {len(signatures)} signatures "
        f"(largest difference {difference:.1e})"
    )
    for text in features.texts:
        if text.key != text.field:
            logging.info(f"its input {text.key!r} is the text field {text.field!r}")
    if operations:
        logging.info(
            f"a server needs TensorFlow Text, as TensorFlow Serving has it, for {', '.join(operations)}; "
            "--core_ops_only does without, where the tokenizer is of BERT's kind"
        )
    if is_pattern(exported.absolute()):
        logging.info("TensorFlow loads no model from a path with one of []*?\\: copy it elsewhere, or make a link to it")
    return exported


def _check_same_inputs(features: FeatureSpec, run: RunFolder, served: RunFolder) -> None:
    """Raises ValueError if clients of `served` would send other inputs than `run` takes."""
    sent, taken = (list(spec.modalities) for spec in (FeatureSpec.load(served.path), features))
    if set(sent) != set(taken):
        raise ValueError(
            f"{run.path} takes {taken}, and clients of {served.path} send {sent}: it cannot be a version of it. Export it by "
            "itself, and serve it under a name of its own"
        )


def _compare(
    check: ParityCheck,
    model: keras.Model,
    inputs: Mapping[str, tf.Tensor],
    signatures: Mapping,
    fresh: FreshProcess,
    tolerance: float,
    check_split: Split,
) -> tuple[list[str], float]:
    """(operations that TensorFlow itself does not have, the largest difference); raises ParityError above the tolerance."""
    where = f"{check.num_records} records of {check_split.dataset.folder}, split {check_split.name!r}"
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
    """Writes the checksums of a staged export, and renames it to the next version; returns the folder of that version."""
    files = [path.relative_to(staging).as_posix() for path in sorted(staging.rglob("*")) if path.is_file()]
    checksums.begin(staging, VERIFY_COMMAND, files)
    staging.chmod(0o755)
    versions = [int(path.name) for path in staging.parent.iterdir() if path.name.isdecimal()]
    exported = staging.with_name(str(max(versions, default=0) + 1))
    staging.replace(exported)
    return exported


@contextlib.contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """Gives a new folder below `folder`. It is deleted unless it was renamed, and so are those that killed exports left."""
    folder.mkdir(exist_ok=True)
    for leftover in folder.glob(f"{UNFINISHED}*/"):
        with folder_lock(leftover, wait=False) as locked:  # a running export has locked its own
            if locked:
                shutil.rmtree(leftover, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))  # its name is no integer: servers ignore it
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
