"""The first step of a training: checks the request, and settles data and features before there is a model."""

from __future__ import annotations

import atexit
import dataclasses
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf
from absl import logging

from mm_keras.data.pipeline import count_labelled, count_steps
from mm_keras.data.sampling import SampledRecords
from mm_keras.distribution.multi_worker import this_worker
from mm_keras.distribution.preemption import end_if_asked
from mm_keras.distribution.strategy import make_strategy
from mm_keras.distribution.workers import Worker
from mm_keras.features import FeatureSpec
from mm_keras.runs.run_folder import RunFolder
from mm_keras.training.request import Request
from tfrecords_tools.dataset.folder import Split


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What a training knows before there is a model.

    Attributes:
        request: what was asked for.
        strategy: where it trains; models are built in its scope.
        worker: this process among those that train together.
        run: the run folder of this worker.
        resumes: whether there is a run in the folder to go on with.
        features: what the model takes in and answers.
        train: the training split.
        val: the validation split, if there is one.
        sampled: how often each record is shown, if that is not once an epoch.
        steps: the number of batches in an epoch.
    """

    request: Request
    strategy: tf.distribute.Strategy
    worker: Worker
    run: RunFolder
    resumes: bool
    features: FeatureSpec
    train: Split
    val: Split | None
    sampled: SampledRecords | None
    steps: int


def prepare(request: Request) -> Prepared:
    """Checks a request and opens what it names; no weight is made and no record is decoded, but for a vocabulary.

    Raises:
        FileExistsError: if there is a run in the folder that is neither to be resumed nor overwritten.
        FileNotFoundError: if there is no dataset.
        DamagedFileError: if a file of the run to resume is not what was written.
        ValueError: if options contradict each other, or the dataset lacks what is asked of it.
    """
    strategy, worker = make_strategy(request.strategy), this_worker()
    request.check(strategy.num_replicas_in_sync)
    run = RunFolder(worker_folder(request.workdir, worker, request.resume))
    resumes = request.resume and run.can_resume()
    if resumes:
        run.check()
    if not request.resume and not request.dry_run:
        run.check_free(request.overwrite)
    train, val, later = request.open_splits()
    end_if_asked()
    keras.utils.set_random_seed(request.seed)
    features = request.make_features(train.dataset, train_split=train.name)
    if request.modalities is not None:
        features = features.only(request.modalities)
    request.check_baselines(features)
    sampled = None
    if request.sampling:
        sampled = SampledRecords(train, request.sampling, [text.field for text in features.texts])
    # A head that is solved takes no steps, and may have fewer examples than a batch. `train` counts again if there are steps.
    batch_size = min(request.batch_size, train.num_labelled) if request.solver != "gradient" else request.batch_size
    steps = count_steps(train, features, max(1, batch_size), sampled)
    for split in ([val] if val else []) + later:
        count_labelled(split, features)
    tell_of_absent_labels([train, *([val] if val else []), *later])
    return Prepared(request, strategy, worker, run, resumes, features, train, val, sampled, steps)


def tell_of_absent_labels(splits: Sequence[Split]) -> None:
    """Prints which labels have no example in a split: they are not learned, or not measured."""
    distinct: dict[tuple[Path, str], Split] = {}
    for split in splits:
        distinct.setdefault((split.dataset.folder, split.name), split)
    for split in distinct.values():
        absent = [name for name, count in zip(split.dataset.info.labels.names, split.label_counts, strict=True) if not count]
        if absent:
            consequence = "learned" if split is splits[0] else "measured"
            logging.info(
                f"{len(absent):,} of {len(split.dataset.info.labels):,} labels have no example in split {split.name!r} and are "
                f"not {consequence}: {', '.join(map(repr, absent[:5]))}{', …' if len(absent) > 5 else ''}"
            )


def worker_folder(workdir: str | Path, worker: Worker, resume: bool) -> Path:
    """The run folder that a worker writes to: the real one for the chief, a temporary one for all others.

    A resumed training begins with what the chief has saved, so the others get links to its checkpoints. The real folder
    therefore has to be on storage that all workers see.

    Args:
        workdir: the real run folder.
        worker: this worker.
        resume: whether the training goes on with a run.
    """
    if worker.is_chief:
        return Path(workdir)
    temporary = RunFolder(tempfile.mkdtemp(prefix=f"mm-keras-worker-{worker.index}-"))
    atexit.register(shutil.rmtree, temporary.path, ignore_errors=True)
    chief = RunFolder(workdir)
    if resume and chief.checkpoints.is_dir():
        temporary.checkpoints.mkdir()
        for path in chief.checkpoints.iterdir():  # the chief deletes none before the next checkpoint, which all workers reach
            (temporary.checkpoints / path.name).symlink_to(path.absolute())
    for path in (chief.run_file, chief.setup):
        if resume and path.is_file():
            shutil.copy(path, temporary.path)
    return temporary.path
