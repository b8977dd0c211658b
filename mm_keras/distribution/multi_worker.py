"""Training in several processes, on one machine or many: MultiWorkerMirroredStrategy with `fit` of Keras 3.

Keras 3.15's `fit` fails there in two places (keras-team/keras#20585), and both are mended on the model alone:
`distribute.build_for_replicas` builds it from shapes instead of from a batch averaged over the workers, and `prepare` gives the
results of a step one dimension, because Keras takes their mean over dimension 0, which a number does not have.

Whatever is added up over the workers (gradients, metrics, decisions) must be so in the same order on each: what one worker
would do alone by its clock or for a signal is decided by `any_worker`.
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

from mm_keras.distribution.preemption import Preempted
from mm_keras.distribution.workers import ALONE, Worker, worker_of_environment
from mm_keras.keras_internals import check_version

LONGEST_WAIT = 900  # seconds, for the other workers to start
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)


class WorkerLostError(Preempted):
    """Another worker is gone, and with it the training; it can be resumed."""


@functools.cache
def start() -> tf.distribute.Strategy:
    """Joins the cluster of TF_CONFIG; a process can do so once, before it does anything else with TensorFlow.

    Raises:
        ValueError: if TF_CONFIG names no other worker.
        RuntimeError: if Keras is another one than this was made for, or TensorFlow has done something already.
    """
    check_version("keras")  # `prepare` is known to mend what is broken in this one
    worker = worker_of_environment()
    if worker == ALONE:
        raise ValueError(
            "multi_worker needs the addresses of two or more workers in TF_CONFIG; on one machine, `mm-keras train … "
            "--local_workers=2` starts them. Received: TF_CONFIG of one worker, or none"
        )
    minutes = LONGEST_WAIT // 60
    print(f"worker {worker.index} of {worker.count} waits for the others of TF_CONFIG, {minutes} minutes at most", flush=True)
    faulthandler.dump_traceback_later(LONGEST_WAIT, exit=True)  # TensorFlow waits without an end, for no signal or thread
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise RuntimeError(
            f"workers are joined before anything else is done with TensorFlow: {error}; call multi_worker.start() sooner"
        ) from error
    finally:
        faulthandler.cancel_dump_traceback_later()
    if threading.current_thread() is threading.main_thread():  # TensorFlow has taken SIGTERM, and does nothing on it
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    return strategy


def this_worker() -> Worker:
    """This process among those that train together; `ALONE` if it has joined no others."""
    return worker_of_environment() if start.cache_info().currsize else ALONE


def prepare(model: keras.Model) -> None:
    """Makes `fit` and `evaluate` of a compiled model work on several workers.

    `fit` shows callbacks the mean over the workers as a step's results.
    """

    def with_dimension(step):
        return lambda data: {name: tf.expand_dims(value, 0) for name, value in step(data).items()}

    model.train_step = with_dimension(model.train_step)
    model.test_step = with_dimension(model.test_step)


def distribute(dataset: tf.data.Dataset) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """This worker's batches as `fit` takes them: without it, Keras would deal them out once more.

    Args:
        dataset: batches of this worker's part of the global batch.
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
    """For each flag, is it set on any worker? All workers have to ask at the same time."""
    if this_worker() == ALONE:
        return flags
    return tuple(bool(count) for count in _total(np.array(flags, np.int64)))


def check_same(**values: int) -> None:
    """Raises ValueError, on all workers, where one of the values is not the same on all of them."""
    worker = this_worker()
    if worker == ALONE:
        return
    for name, value in values.items():
        shares = np.zeros(worker.count, np.int64)
        shares[worker.index] = value
        found = _total(shares)
        if len(set(found)) > 1:
            listed = ", ".join(f"{each} on worker {index}" for index, each in enumerate(found))
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
    """Inside of its block, TensorFlow's errors about workers that are gone become WorkerLostError.

    A worker that is gone, or hangs, is missed after some ten seconds.
    """
    try:
        yield
    except _LOST as error:
        worker = this_worker()
        if worker == ALONE:
            raise
        says = [line.strip() for line in str(error).splitlines() if "aborted by" in line or line.startswith("/job:")]
        raise WorkerLostError(
            f"worker {worker.index} of {worker.count} stops, because another one is gone: see the end of the others' output. "
            f"Run the same command again on all of them with --resume to go on. TensorFlow says: {' '.join(says) or error}"
        ) from error
