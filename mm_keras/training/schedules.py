"""Learning rates over a training. A config chooses one of these functions for `make_optimizer`. Pure Keras.

All of them take `(learning_rate, total_updates, warmup_updates)`: the highest learning rate, the number of updates of the
weights in the whole training, and the number of updates at its beginning in which the learning rate rises linearly from zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops
from keras.optimizers.schedules import CosineDecay, LearningRateSchedule

from mm_keras.configurable import NonNegativeFloat, OpenFraction, PositiveInt, configurable


@configurable
def make_cosine_schedule(learning_rate: float, total_updates: int, warmup_updates: int) -> LearningRateSchedule:
    """After the warm-up the learning rate falls to zero along half a cosine.

    Reference: Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", equation 5, without restarts.
    """
    decay = max(1, total_updates - warmup_updates)
    if not warmup_updates:
        return CosineDecay(learning_rate, decay)
    return CosineDecay(0.0, decay, warmup_target=learning_rate, warmup_steps=warmup_updates)


@configurable
def make_constant_schedule(learning_rate: float, total_updates: int, warmup_updates: int) -> LearningRateSchedule:
    """After the warm-up the learning rate is constant."""
    del total_updates
    return SteppedRate(learning_rate, warmup_updates)


@configurable
def make_step_schedule(
    learning_rate: float,
    total_updates: int,
    warmup_updates: int,
    drops: Sequence[OpenFraction] = (0.5, 0.75),
    factor: OpenFraction = 0.1,
) -> LearningRateSchedule:
    """After the warm-up the learning rate is constant but for some drops.

    Args:
        drops: when the learning rate drops, as fractions of the training within (0, 1), in rising order.
        factor: the learning rate is multiplied by it at each drop; within (0, 1).

    Raises:
        ValueError: for drops or a factor out of these ranges.
    """
    if list(drops) != sorted(set(drops)) or not all(0 < drop < 1 for drop in drops):
        raise ValueError(f"drops are fractions of the training within (0, 1), rising. Received: drops={drops}")
    _check_factor(factor)
    return SteppedRate(learning_rate, warmup_updates, [round(drop * total_updates) for drop in drops], factor)


@configurable
def make_plateau_schedule(
    learning_rate: float,
    total_updates: int,
    warmup_updates: int,
    factor: OpenFraction = 0.5,
    patience: PositiveInt = 3,
    min_delta: NonNegativeFloat = 1e-4,
) -> LearningRateSchedule:
    """After the warm-up the learning rate is constant, and it drops whenever the validation metric stops getting better.

    The metric is the one that chooses the best epoch; without a validation split it is the loss.

    Args:
        factor: the learning rate is multiplied by it at each drop; within (0, 1).
        patience: number of epochs without a better value before a drop, at least 1.
        min_delta: a value is better if it is so by more than this, in the unit of the metric; at least 0.

    Raises:
        ValueError: for values out of these ranges.
    """
    del total_updates
    _check_factor(factor)
    if patience < 1 or min_delta < 0:
        raise ValueError(
            f"patience must be at least 1 and min_delta at least 0. Received: patience={patience}, min_delta={min_delta}"
        )
    return PlateauRate(learning_rate, warmup_updates, factor, patience, min_delta)


@keras.saving.register_keras_serializable(package="mm_keras")
class SteppedRate(LearningRateSchedule):
    """A learning rate that rises linearly, and is then constant but for drops.

    Args:
        learning_rate: the rate after the warm-up.
        warmup_updates: number of updates in which the rate rises from zero.
        drops: updates from which on the rate is multiplied by `factor` once more.
        factor: what each drop multiplies the learning rate by.
    """

    def __init__(self, learning_rate: float, warmup_updates: int = 0, drops: Sequence[int] = (), factor: float = 1.0):
        self.learning_rate = learning_rate
        self.warmup_updates = warmup_updates
        self.drops = tuple(drops)
        self.factor = factor

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rate = ops.convert_to_tensor(self.learning_rate, "float32")
        if self.warmup_updates:
            rate = rate * ops.minimum(step / self.warmup_updates, 1.0)
        for drop in self.drops:
            rate = rate * ops.where(step >= drop, self.factor, 1.0)
        return rate

    def get_config(self):
        names = ("learning_rate", "warmup_updates", "drops", "factor")
        return {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable(package="mm_keras")
class PlateauRate(SteppedRate):
    """The rate of an optimizer that `ReduceOnPlateau` slows down. The schedule itself is constant after the warm-up.

    Args:
        learning_rate, warmup_updates: as in `SteppedRate`.
        reduction: `ReduceOnPlateau` multiplies the rate by it.
        patience, min_delta: as in `make_plateau_schedule`.
    """

    def __init__(
        self,
        learning_rate: float,
        warmup_updates: int = 0,
        reduction: float = 0.5,
        patience: int = 3,
        min_delta: float = 1e-4,
    ):
        super().__init__(learning_rate, warmup_updates)
        self.reduction = reduction
        self.patience = patience
        self.min_delta = min_delta

    def get_config(self):
        names = ("learning_rate", "warmup_updates", "reduction", "patience", "min_delta")
        return {name: getattr(self, name) for name in names}


def _check_factor(factor: float) -> None:
    if not 0 < factor < 1:
        raise ValueError(f"factor must be within (0, 1). Received: factor={factor}")
