"""What an optimizer of `make_optimizer` needs to know of the epochs. Pure Keras."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from mm_keras.training.part_optimizers import SGD, Adam
from mm_keras.training.schedules import PlateauRate


def make_optimizer_callbacks(
    optimizer: keras.optimizers.Optimizer, monitor: str, mode: str, checkpoint: keras.callbacks.Callback | None = None
) -> list[keras.callbacks.Callback]:
    """The callbacks without which the optimizer does not do what it was asked for.

    Args:
        optimizer: any; one that is not of `make_optimizer` needs none.
        monitor: the value in the epoch's logs by which a plateau is seen.
        mode: "max" or "min": is more or less of it better?
        checkpoint: what saves the best epoch. Where weights are averaged, it comes back inside of another callback and saves
            the averages.
    """
    callbacks = [checkpoint] if checkpoint else []
    if not isinstance(optimizer, Adam | SGD):
        return callbacks
    if optimizer.average is not None:
        callbacks = [AveragedWeights(optimizer, checkpoint)]
    if isinstance(optimizer.schedule, PlateauRate):
        callbacks.append(ReduceOnPlateau(optimizer, monitor, mode))
    return callbacks


class AveragedWeights(keras.callbacks.Callback):
    """Lets validation, and the callback that saves the best epoch, see the averaged weights; training goes on with its own.

    Between the epochs the model holds the weights that are trained, so other callbacks save and restore those. (Keras'
    SwapEMAWeights adds and subtracts to swap, and trains on with other bits.)

    Args:
        optimizer: one that averages.
        checkpoint: called at the end of each epoch, or None.
    """

    def __init__(self, optimizer: Adam | SGD, checkpoint: keras.callbacks.Callback | None = None):
        super().__init__()
        self._optimizer = optimizer
        self._checkpoint = checkpoint

    def set_params(self, params):
        super().set_params(params)
        if self._checkpoint:
            self._checkpoint.set_params(params)

    def set_model(self, model):
        super().set_model(model)
        if self._checkpoint:
            self._checkpoint.set_model(model)

    def on_test_begin(self, logs=None):
        self._trained = [ops.convert_to_numpy(variable) for variable in self.model.trainable_variables]
        self._optimizer.finalize_variable_values(self.model.trainable_variables)

    def on_test_end(self, logs=None):
        for variable, value in zip(self.model.trainable_variables, self._trained, strict=True):
            variable.assign(value)
        del self._trained

    def on_epoch_begin(self, epoch, logs=None):
        if self._checkpoint:
            self._checkpoint.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        if self._checkpoint:
            self.on_test_begin()
            self._checkpoint.on_epoch_end(epoch, logs)
            self.on_test_end()


class ReduceOnPlateau(keras.callbacks.Callback):
    """Lowers the learning rate where the monitored value has not become better for some epochs; see `make_plateau_schedule`.

    What it remembers is kept in the optimizer's variables, so that a resumed training goes on as an unbroken one.
    """

    def __init__(self, optimizer: Adam | SGD, monitor: str, mode: str):
        super().__init__()
        self._optimizer = optimizer
        self._monitor = monitor
        self._sign = {"max": 1, "min": -1}[mode]

    def on_epoch_end(self, epoch, logs=None):
        rate, state = self._optimizer.schedule, self._optimizer.plateau
        value = self._sign * float(logs[self._monitor])
        best, waited = (float(ops.convert_to_numpy(state[name])) for name in ("best", "waited"))
        if np.isneginf(best) or value > best + rate.min_delta:
            state["best"].assign(value)
            state["waited"].assign(0.0)
        elif waited + 1 < rate.patience:
            state["waited"].assign(waited + 1)
        else:
            state["waited"].assign(0.0)
            state["factor"].assign(ops.convert_to_numpy(state["factor"]) * rate.reduction)
