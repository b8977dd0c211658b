"""The third step of a training: its batches, its callbacks, and the loop."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import google_crc32c
import keras
from absl import logging

from mm_keras.data.damage import naming_damage
from mm_keras.data.feature_cache import FeatureCache
from mm_keras.data.pipeline import Batches, make_evaluation_batches, make_training_batches
from mm_keras.distribution.multi_worker import check_same
from mm_keras.distribution.strategy import build_for_replicas
from mm_keras.training.build import Built
from mm_keras.training.checkpoint import Checkpoint
from mm_keras.training.checkpoint_callbacks import KeepBest
from mm_keras.training.input_wait import InputWait
from mm_keras.training.loop import run_epochs
from mm_keras.training.optimizer_callbacks import make_optimizer_callbacks
from mm_keras.training.prepare import Prepared
from mm_keras.training.progress import Progress


def fit(prepared: Prepared, built: Built, setup: Mapping[str, object], checkpoint: Checkpoint | None) -> Progress:
    """Trains until the last epoch, or until the patience is at its end; the best epoch is saved as `best_epoch_file`.

    Args:
        prepared, built: the training, as `prepare` and `build` return it.
        setup: the description of the training by `describe_training`, which must be the same on all workers.
        checkpoint: the checkpoint to go on from.

    Returns:
        the callback that knows where the time went.

    Raises:
        NotFiniteError: if the loss or a weight becomes NaN or infinite.
        Preempted: if the process was asked to end, once the training is saved.
        CorruptShardError: if a record cannot be read, or some are missing.
    """
    request, run = prepared.request, prepared.run
    make_batches, validation = _batches(prepared, built)
    check_same(training=google_crc32c.value(json.dumps(setup).encode()), step=checkpoint.step if checkpoint else 0)
    build_for_replicas(built.trained, make_batches().dataset)
    # Cached features come faster than a clock could be read; on several replicas, the clock would not see the waiting.
    wait = InputWait() if not built.cached and prepared.strategy.num_replicas_in_sync == 1 else None
    progress = Progress(run.metrics, request.epochs, prepared.steps, request.batch_size, wait and (lambda: wait.seconds))
    monitor = f"val_{built.metrics[0].name}" if validation else "loss"
    best = KeepBest(best_epoch_file(prepared, built), monitor, request.patience) if validation else None
    tensorboard = _TensorBoard(run.tensorboard, write_graph=False)
    mode = "max" if validation else "min"
    limit = [_TimeLimit(request.began + 60 * request.minutes)] if request.minutes is not None else []
    training_splits = prepared.sampled.splits if prepared.sampled else [prepared.train]
    with naming_damage(*training_splits, prepared.val):
        run_epochs(
            built.trained,
            make_batches,
            validation,
            request.epochs,
            [progress, tensorboard, *make_optimizer_callbacks(built.optimizer, monitor, mode, best), *limit],
            {"progress": progress} | ({"best": best} if best else {}),
            run.checkpoints,
            request.checkpoint_minutes,
            checkpoint,
            wait.watched if wait else lambda batches: batches,
        )
    return progress


def best_epoch_file(prepared: Prepared, built: Built) -> Path:
    """Where the best epoch is saved: the whole model, or the weights of the part that is trained."""
    best = prepared.run.best
    return best if built.trained is built.model else best.with_name("best_trained_part.weights.h5")


def make_uncached_batches(prepared: Prepared) -> Callable[..., Batches]:
    """`(start=0) -> batches` of the training, decoded from the records."""
    request = prepared.request
    return functools.partial(
        make_training_batches,
        prepared.train,
        prepared.features,
        request.batch_size,
        request.epochs,
        seed=request.seed,
        augment=request.augment,
        worker=prepared.worker,
        sampled=prepared.sampled,
    )


def _batches(prepared: Prepared, built: Built) -> tuple[Callable[..., Batches], Batches | None]:
    """(`(start=0) -> batches` of the training, batches of the validation); caches are filled before it returns."""
    request, features, val, worker = prepared.request, prepared.features, prepared.val, prepared.worker
    if not built.cached:
        validation = make_evaluation_batches(val, features, request.batch_size, worker=worker) if val else None
        return make_uncached_batches(prepared), validation

    inputs = list(built.trained.input)
    make_batches = functools.partial(
        FeatureCache(prepared.train, features, built.encoders, inputs).training_batches,
        request.batch_size,
        request.epochs,
        request.seed,
        worker=worker,
        sampled=prepared.sampled,
    )
    if not val:
        return make_batches, None
    return make_batches, FeatureCache(val, features, built.encoders, inputs).evaluation_batches(request.batch_size, worker)


class _TimeLimit(keras.callbacks.Callback):
    """Ends the training after the batch in which its time is up; the epoch is measured as any other."""

    def __init__(self, end: float):
        super().__init__()
        self._end = end

    def on_train_batch_end(self, batch, logs=None):
        if time.monotonic() >= self._end and not self.model.stop_training:
            logging.info("the time is up (train.minutes): stopping")
            self.model.stop_training = True


class _TensorBoard(keras.callbacks.TensorBoard):
    """Leaves the validation loss out: Keras averages it over batches, and the last batch is filled up with empty examples."""

    def on_test_end(self, logs=None):
        super().on_test_end({name: value for name, value in (logs or {}).items() if name != "loss"})

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, {name: value for name, value in (logs or {}).items() if name != "val_loss"})
