"""NaNs: a training stops at the first one, and says where it came from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from mm_keras.data.pipeline import Batches
from mm_keras.distribution.multi_worker import any_worker
from mm_keras.training.checkpoint import capture, restore

_REPLAY_SECONDS = 120
_SHOWN = 10


class NotFiniteError(FloatingPointError):
    """The loss or a weight became NaN or infinite."""


def check_loss(logs: Mapping[str, float]) -> None:
    """Raises NotFiniteError if the loss in a batch's logs is not finite. It is the epoch's mean so far, which then stays so."""
    loss = float(logs["loss"])
    if not math.isfinite(loss):
        raise NotFiniteError(f"the loss is {loss}")


def check_weights(model: keras.Model) -> None:
    """Raises NotFiniteError if a weight is not finite."""
    for weight in model.weights:
        values = np.asarray(keras.ops.convert_to_numpy(weight))
        if np.issubdtype(values.dtype, np.integer) or values.dtype == bool:
            continue
        wrong = values.size - np.count_nonzero(np.isfinite(values.astype(np.float32, copy=False)))
        if wrong:
            raise NotFiniteError(f"{wrong:,} of {values.size:,} numbers of {weight.path} are not finite")


class GoodState:
    """The last known finite state of a training: in memory at its begin, later in a checkpoint.

    Attributes:
        step: number of steps made before this state.
        path: file of the checkpoint; None if there is none yet.
    """

    def __init__(self, model: keras.Model, step: int):
        self.step = step
        self.path: Path | None = None
        # The optimizer's variables are zeros, mostly, and zeros are left out to save memory.
        self._arrays = {name: array for name, array in capture(model).items() if name.startswith("model/") or array.any()}

    def saved(self, path: Path, step: int) -> None:
        """Notes that a later finite state is in a checkpoint."""
        self.path, self.step, self._arrays = path, step, None

    def put_back(self, model: keras.Model, load: Callable[[Path], Mapping[str, np.ndarray]]) -> None:
        """Assigns the state to a model; `load` reads the arrays of a checkpoint."""
        if self.path:
            restore(model, load(self.path))
            return
        zeros = {name: np.zeros_like(array) for name, array in capture(model).items() if name.startswith("optimizer/")}
        restore(model, zeros | self._arrays)


def explain(
    model: keras.Model,
    make_batches: Callable[..., Batches],
    error: NotFiniteError,
    step: int,
    good: GoodState,
    load: Callable[[Path], Mapping[str, np.ndarray]],
) -> NotFiniteError:
    """Repeats the training from its last finite state to the step that failed, and finds what became NaN first.

    Args:
        model: the compiled model; its variables are changed.
        make_batches: `(start=0) -> batches` of the training.
        error: the error that was raised.
        step: the step at which it was raised, counted from 1.
        good: a finite state before that step.
        load: `(path of a checkpoint) -> arrays`.

    Returns:
        the error to raise, which names the step, the layer or weight, the records, and the last good checkpoint.
    """
    batches = make_batches(start=step - 1)
    epoch, batch = divmod(step - 1, batches.steps)
    lines = [f"step {step:,} (batch {batch + 1} of epoch {epoch + 1}): {error}"]
    try:
        good.put_back(model, load)
        reached = _replay(model, make_batches, good.step, step - 1)
        rows, findings = _look(model, next(iter(batches.dataset)))
        state = "just before it" if reached == step - 1 else f"of step {reached:,}"
        lines.append(f"with the weights {state}: {findings}")
        if rows is not None:
            ids = next(iter(batches.ids)).numpy()[rows]
            shown = ", ".join(id_.decode(errors="replace") for id_ in ids[:_SHOWN])
            lines.append(f"in {len(ids)} of {batches.batch_size} examples: {shown}{', …' if len(ids) > _SHOWN else ''}")
            lines.append("look at them with `tfrecords-tools inspect <dataset> --id=<id>`")
    except (ValueError, RuntimeError, tf.errors.OpError) as failure:
        lines.append(f"where it comes from could not be found out: {failure}")
    lines.append(f"the last good checkpoint is {good.path}" if good.path else "there was no checkpoint yet")
    lines.append("if it is not the data, lower the learning rate or clip gradients, and train anew")
    return NotFiniteError("\n  ".join(lines))


def _replay(model: keras.Model, make_batches: Callable[..., Batches], step: int, until: int) -> int:
    """Repeats the training from one step to another, or as far as the time allows; returns the step that was reached."""
    began = time.monotonic()
    for batch in make_batches(start=step).dataset.take(until - step):
        if any(any_worker(time.monotonic() - began > _REPLAY_SECONDS)):
            break
        model.train_on_batch(*batch)
        step += 1
    return step


def _look(model: keras.Model, batch: tuple) -> tuple[np.ndarray | None, str]:
    """(the rows of the batch that are not finite, or None if no single row is to blame; what is not finite)."""
    try:
        check_weights(model)
    except NotFiniteError as error:
        return None, f"{error}: the step before was too large"
    inputs, labels, weights = batch
    for name, values in {**inputs, "labels": labels, "weights": weights}.items():
        rows = _wrong_rows(values)
        if rows.size:
            return rows, f"{name} is not finite in the records themselves"
    with tf.GradientTape() as tape:
        layer, outputs = _first_wrong_layer(model, inputs)
        if layer:
            return _wrong_rows(outputs), f"the first layer whose output is not finite is {layer}"
        loss = model.compute_loss(inputs, labels, outputs, weights, training=True)
    if not np.isfinite(float(loss)):
        losses = [
            float(model.compute_loss(None, labels[row : row + 1], outputs[row : row + 1], weights[row : row + 1]))
            for row in range(len(weights))
        ]
        rows = np.flatnonzero(~np.isfinite(losses))
        return (rows if rows.size else None), f"all layers are finite, but the loss is {float(loss)}"
    variables = model.trainable_variables
    gradients = zip(variables, tape.gradient(loss, [variable.value for variable in variables]), strict=True)
    wrong = [variable.path for variable, gradient in gradients if gradient is not None and _wrong_rows(gradient).size]
    if wrong:
        return None, f"the loss is {float(loss):.4g}, but the gradient of {', '.join(wrong[:3])} is not finite"
    return None, f"the loss is {float(loss):.4g} and all gradients are finite; the step itself was too large"


def _first_wrong_layer(model: keras.Model, inputs: Mapping) -> tuple[str | None, tf.Tensor]:
    """(path of the first layer whose output is not finite, its output), or (None, the model's output) if all are finite."""
    wrong: list[tuple[str, tf.Tensor]] = []

    def watched(path: str, call: Callable) -> Callable:
        def watch(*arguments, **keywords):
            outputs = call(*arguments, **keywords)
            wrong.extend((path, output) for output in tf.nest.flatten(outputs) if _wrong_rows(output).size)
            return outputs

        return watch

    layers = dict(_layers(model))
    for path, layer in layers.items():
        layer.call = watched(path, layer.call)
    try:
        outputs = model(inputs, training=True)
    finally:
        for layer in layers.values():
            del layer.call
    return wrong[0] if wrong else (None, outputs)


def _layers(model: keras.Model, path: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    for layer in model.layers:
        yield f"{path}{layer.name}", layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer, f"{path}{layer.name}/")


def _wrong_rows(values) -> np.ndarray:
    """The rows of an array [B, …] that contain a number which is not finite."""
    values = tf.convert_to_tensor(values)
    if not values.dtype.is_floating:
        return np.empty(0, np.int64)
    finite = np.isfinite(tf.cast(values, tf.float32).numpy())
    return np.flatnonzero(~finite.reshape(len(finite), -1).all(1)) if finite.ndim else np.flatnonzero(~finite)
