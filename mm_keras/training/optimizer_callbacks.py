"""Callbacks that an optimizer of `make_optimizer` needs at the ends of epochs, for averages and for plateaus.

They work with `Adam` and `SGD` of `part_optimizers`, which train on TensorFlow only.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from mm_keras.training.part_optimizers import SGD, Adam
from mm_keras.training.schedules import PlateauRate


def make_optimizer_callbacks(
    optimizer: keras.optimizers.Optimizer, monitor: str, mode: str, checkpoint: keras.callbacks.Callback | None = None
) -> list[keras.callbacks.Callback]:
    """Makes the callbacks that an optimizer needs to average weights, or to lower its learning rate on a plateau.

    Args:
        optimizer: any optimizer. One that is not made by `make_optimizer` needs no callback.
        monitor: name of the value in an epoch's logs that shows a plateau, for instance "val_top_1".
        mode: "max" if higher values are better, "min" if lower ones are.
        checkpoint: the callback that saves the best epoch, or None. If weights are averaged, another callback wraps it, so that
            it saves the averages.

    Returns:
        the callbacks, `checkpoint` or what wraps it first.
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
    """Gives the model its averaged weights for validation, and for the callback that saves the best epoch.

    The trained weights are put back bit by bit afterwards, so training and all other callbacks see those. (Keras'
    SwapEMAWeights swaps by adding and subtracting, which changes the last bits of the trained weights.)

    Args:
        optimizer: one with `average`.
        checkpoint: a callback that is called with the averaged weights at the end of each epoch, or None.
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
    """Lowers the learning rate if the monitored value has not become better for some epochs; see `make_plateau_schedule`.

    The best value and the number of epochs since are variables of the optimizer, so that a resumed training gives the same
    result as one that was never interrupted.

    Args:
        optimizer: one with a `PlateauRate`.
        monitor, mode: as in `make_optimizer_callbacks`.
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
