"""Training in several processes, on one machine or many: MultiWorkerMirroredStrategy with `fit` of Keras 3.

`fit` of Keras 3.15 fails there in two places (keras-team/keras#20585). Both are mended in the model: `build_for_replicas` of
`strategy` builds it from shapes instead of from a batch averaged over the workers, and `prepare` gives the results of a step a
dimension, because Keras takes their mean over dimension 0, which a number does not have.

All workers must add up values (gradients, metrics, decisions) in the same order. So a worker must do nothing alone because of
its clock or a signal: `any_worker` makes such a decision for all workers together.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import signal
import threading
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from mm_keras.distribution.preemption import Preempted
from mm_keras.distribution.workers import ALONE, Worker, worker_of_environment
from mm_keras.keras_internals import check_version

LONGEST_WAIT = 900  # seconds to wait for the other workers to start
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)


class WorkerLostError(Preempted):
    """Another worker is gone, so the training has stopped. It can be resumed."""


@functools.cache
def start() -> tf.distribute.Strategy:
    """Joins the cluster of TF_CONFIG. A process can do so once, and before it does anything else with TensorFlow.

    Raises:
        ValueError: if TF_CONFIG names no other worker.
        RuntimeError: if another version of Keras is installed, or if TensorFlow was used before.
    """
    check_version("keras")  # `prepare` is known to mend what is broken in this version
    worker = worker_of_environment()
    if worker == ALONE:
        raise ValueError(
            "multi_worker needs the addresses of two or more workers in TF_CONFIG; on one machine, `mm-keras train … "
            "--local_workers=2` starts them. Received: TF_CONFIG of one worker, or none"
        )
    minutes = LONGEST_WAIT // 60
    logging.info(f"worker {worker.index} of {worker.count} waits for the others of TF_CONFIG, {minutes} minutes at most")
    # TensorFlow would wait for ever, and neither a signal nor a thread can stop it.
    faulthandler.dump_traceback_later(LONGEST_WAIT, exit=True)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise RuntimeError(
            f"workers are joined before anything else is done with TensorFlow: {error}; call multi_worker.start() sooner"
        ) from error
    finally:
        faulthandler.cancel_dump_traceback_later()
    # TensorFlow has replaced the handler of SIGTERM by one that does nothing; this brings Python's back.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    return strategy


def this_worker() -> Worker:
    """The place of this process among those that train together; `ALONE` if it has not joined others."""
    return worker_of_environment() if start.cache_info().currsize else ALONE


def prepare(model: keras.Model) -> None:
    """Makes `fit` and `evaluate` of a compiled model work on several workers.

    Callbacks see the mean over the workers as the results of a step.
    """

    def with_dimension(step):
        return lambda data: {name: tf.expand_dims(value, 0) for name, value in step(data).items()}

    model.train_step = with_dimension(model.train_step)
    model.test_step = with_dimension(model.test_step)


def distribute(dataset: tf.data.Dataset) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Gives `fit` the batches of this worker as they are. Without this, Keras would divide them among the workers again.

    Args:
        dataset: batches [B / workers, …], each the part of a global batch that this worker trains with.
    """
    if this_worker() == ALONE:
        return dataset
    strategy = start()
    replicas = strategy.num_replicas_in_sync // this_worker().count
    if replicas > 1:
        size = tf.nest.flatten(dataset.element_spec)[0].shape[0]
        steps = dataset.cardinality()
        dataset = dataset.rebatch(size // replicas, drop_remainder=True)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps * replicas))
    return strategy.distribute_datasets_from_function(lambda _: dataset)


def any_worker(*flags: bool) -> tuple[bool, ...]:
    """Tells for each flag whether it is set on any worker. All workers have to call this at the same step."""
    if this_worker() == ALONE:
        return flags
    return tuple(bool(count) for count in _total(np.array(flags, np.int64)))


def check_same(**values: int) -> None:
    """Checks that every value is the same on all workers.

    Raises:
        ValueError: on all workers, if one of the values differs.
    """
    worker = this_worker()
    if worker == ALONE:
        return
    for name, value in values.items():
        own_value = np.zeros(worker.count, np.int64)
        own_value[worker.index] = value
        values_of_workers = _total(own_value)
        if len(set(values_of_workers)) > 1:
            listed = ", ".join(f"{number} on worker {index}" for index, number in enumerate(values_of_workers))
            raise ValueError(
                f"the workers do not train the same: {name} is {listed}. Give all of them the same config, data and package "
                "versions, and to resume a run folder that all of them see"
            )


def _total(values: np.ndarray) -> np.ndarray:
    strategy = start()
    replicas = strategy.num_replicas_in_sync // this_worker().count
    return _add_up(tf.constant(values)).numpy() // replicas


@tf.function
def _add_up(values: tf.Tensor) -> tf.Tensor:
    return start().reduce("SUM", start().run(tf.identity, args=(values,)), axis=None)


@contextlib.contextmanager
def tell_of_lost_workers() -> Iterator[None]:
    """Turns the errors of TensorFlow about lost workers, inside the `with` block, into WorkerLostError.

    TensorFlow notices after some ten seconds that a worker is gone or hangs.
    """
    try:
        yield
    except _LOST as error:
        worker = this_worker()
        if worker == ALONE:
            raise
        reasons = [line.strip() for line in str(error).splitlines() if "aborted by" in line or line.startswith("/job:")]
        raise WorkerLostError(
            f"worker {worker.index} of {worker.count} stops, because another one is gone: see the end of the others' output. "
            f"Run the same command again on all of them with --resume to go on. TensorFlow says: {' '.join(reasons) or error}"
        ) from error
