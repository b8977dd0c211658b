"""Numbers that are none: stops a training at the first, before it gets into a checkpoint."""

from __future__ import annotations

import math

import keras
import numpy as np


class NotFiniteError(FloatingPointError):
    """The loss or a weight became NaN or infinite."""


class StopAtNan(keras.callbacks.Callback):
    """Raises NotFiniteError after the first step whose loss is no number.

    The weights of such a step are none either, mostly; so it stands before all callbacks that save.
    """

    def on_train_batch_end(self, batch, logs=None):
        loss = float(logs["loss"])  # the mean of the epoch so far, which stays no number once it is
        if not math.isfinite(loss):
            raise NotFiniteError(f"the loss is {loss}, not finite; lower the learning rate")


def check_weights(model: keras.Model) -> None:
    """Raises NotFiniteError if a weight is no number."""
    for weight in model.weights:
        values = np.asarray(keras.ops.convert_to_numpy(weight))
        if np.issubdtype(values.dtype, np.integer) or values.dtype == bool:
            continue
        wrong = values.size - np.count_nonzero(np.isfinite(values.astype(np.float32, copy=False)))
        if wrong:
            raise NotFiniteError(f"{wrong:,} of {values.size:,} numbers of {weight.path} are not finite")
