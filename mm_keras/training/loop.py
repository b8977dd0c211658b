"""The training loop: Keras' own `fit`, begun at any step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from mm_keras.data.pipeline import Batches
from mm_keras.distribution.multi_worker import distribute, tell_of_lost_workers
from mm_keras.distribution.preemption import noticing_sigterm
from mm_keras.keras_internals import build_from_shapes
from mm_keras.training.checkpoint import Checkpoint, load, restore
from mm_keras.training.checkpoint_callbacks import PutBack, SaveCheckpoints
from mm_keras.training.nan_report import NotFiniteError, explain


def run_epochs(
    model: keras.Model,
    make_batches: Callable[..., Batches],
    validation: Batches | None,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback],
    remembering: Mapping[str, keras.callbacks.Callback],
    folder: Path,
    minutes: float,
    checkpoint: Checkpoint | None = None,
    watched: Callable[[tf.data.Dataset], tf.data.Dataset] = lambda batches: batches,
) -> None:
    """Trains until the last epoch, or until a callback stops the training, and saves checkpoints on the way.

    Args:
        model: a compiled model.
        make_batches: `(start=0) -> batches` of the training from that step on.
        validation: batches on which the model is measured after each epoch.
        epochs: number of epochs in all.
        callbacks: the callbacks, in the order in which they are called.
        remembering: those callbacks that have a state, by name. They have `state() -> JSON object` and `set_state(state)`.
        folder: the folder of the checkpoints.
        minutes: minutes between checkpoints within an epoch.
        checkpoint: the checkpoint to go on from.
        watched: `(batches) -> batches`, which may measure how long the training waits for them.

    Raises:
        NotFiniteError: if the loss or a weight becomes NaN or infinite; the message says where that came from.
        Preempted: if the process was asked to end.
    """
    start = checkpoint.step if checkpoint else 0
    batches = make_batches(start=start)
    if checkpoint:
        _build(model, batches)
        restore(model, checkpoint.arrays)
        for name, callback in remembering.items():
            callback.set_state(checkpoint.callbacks[name])
        if any(getattr(callback, "exhausted", False) for callback in remembering.values()):
            return
    with noticing_sigterm(in_steps=True), tell_of_lost_workers():
        saver = SaveCheckpoints(folder, batches.steps, minutes, remembering, checkpoint)
        try:
            _fit(model, make_batches, batches, validation, epochs, callbacks, saver, checkpoint, watched)
        except NotFiniteError as error:
            raise explain(model, make_batches, error, saver.step, saver.good, lambda path: load(path).arrays) from error


def _fit(model, make_batches, batches, validation, epochs, callbacks, saver, checkpoint, watched) -> None:
    epoch, steps_made = divmod(saver.step, batches.steps)
    common = {"validation_data": distribute(validation.dataset) if validation else None, "shuffle": False, "verbose": 0}
    if steps_made:  # all epochs of a `fit` have one length: the rest of this one gets a `fit` of its own
        put_back = PutBack(checkpoint.arrays)
        rest_of_epoch = {"steps_per_epoch": batches.steps - steps_made, "initial_epoch": epoch, "epochs": epoch + 1}
        model.fit(distribute(watched(batches.dataset)), callbacks=[put_back, *callbacks, saver], **rest_of_epoch, **common)
        epoch += 1
        if epoch == epochs or model.stop_training:
            return
        restore(model, put_back.at_end)
        batches = make_batches(start=epoch * batches.steps)
    if epoch < epochs:
        whole_epochs = {"steps_per_epoch": batches.steps, "initial_epoch": epoch, "epochs": epochs}
        model.fit(distribute(watched(batches.dataset)), callbacks=[*callbacks, saver], **whole_epochs, **common)
    else:
        model.optimizer.finalize_variable_values(model.trainable_variables)


def _build(model: keras.Model, batches: Batches) -> None:
    """Makes the variables of optimizer and metrics, so that they can be restored; `fit` makes them with its first batch."""
    with model.distribute_strategy.scope():
        model.optimizer.build(model.trainable_variables)
        build_from_shapes(model, batches.dataset.element_spec)
