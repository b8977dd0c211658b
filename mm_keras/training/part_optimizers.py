"""Keras' Adam and SGD with a learning rate for each part of a model, and with a moving average of its weights."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from mm_keras.keras_internals import SummedGradients
from mm_keras.training.schedules import PlateauRate

_NOT_DECAYED = ("bias", "gamma", "beta", "scale", "missing")  # weights with one of these words in their name do not decay


class _ByPart(SummedGradients):
    """Base of `Adam` and `SGD`: what they add to the optimizers of Keras.

    Gradients of all replicas are added up before they are accumulated and clipped, so that a training gives the same result
    on any number of replicas; see `SummedGradients`.

    Args:
        schedule: update -> learning rate. With gradient accumulation several batches make one update; a schedule of Keras'
            optimizers would count batches.
        rates: one factor for each trained weight, in the model's order, or None for 1 everywhere. It multiplies the learning
            rate and the decay. (Adam would cancel a factor of the gradient.)
        starts: for each trained weight the update from which on it is trained, or None. Before, the weight stays exactly the
            same.
        average: momentum of the moving average of the weights, within (0, 1), or None. After update t, counted from 0, the
            average moves towards the weights by 1 - min(average, t / (t + 10)). This ramp lets short trainings forget their
            beginning. Keras' `use_ema` has no ramp, and with accumulation it averages after every batch.
        **kwargs: arguments of the optimizer of Keras.
    """

    def __init__(
        self,
        schedule: keras.optimizers.schedules.LearningRateSchedule,
        rates: Sequence[float] | None = None,
        starts: Sequence[int] | None = None,
        average: float | None = None,
        **kwargs,
    ):
        super().__init__(schedule, **kwargs)
        self.schedule = schedule
        self.rates = None if rates is None else tuple(rates)
        self.starts = None if starts is None else tuple(starts)
        self.average = average
        self.plateau = None
        self.exclude_from_weight_decay(var_names=list(_NOT_DECAYED))

    def build(self, variables):
        if self.built:
            return
        for name in ("rates", "starts"):
            values = getattr(self, name)
            if values is not None and len(values) != len(variables):
                raise ValueError(
                    f"the optimizer was made for a model of {len(values)} trained weights. Received: {len(variables)} "
                    f"weights for {name} of {len(values)}; make one for this model"
                )
        super().build(variables)
        if isinstance(self.schedule, PlateauRate):
            # The optimizer has these variables, not the callback that writes them, so that a checkpoint holds them.
            initial = {"factor": 1.0, "best": float("-inf"), "waited": 0.0}
            self.plateau = {
                name: self.add_variable((), keras.initializers.Constant(value), "float32", "only_first_replica", name=name)
                for name, value in initial.items()
            }
        if self.average is not None:
            self._averages = [
                self.add_variable_from_reference(
                    variable, "average", lambda shape, dtype, variable=variable: ops.convert_to_tensor(variable, dtype)
                )
                for variable in variables
            ]

    @property
    def learning_rate(self):
        """The learning rate of the next update, before it is multiplied by the factors in `rates`."""
        rate = self.schedule(self.iterations)
        return rate if self.plateau is None else rate * self.plateau["factor"]

    def update_step(self, gradient, variable, learning_rate):
        index = self.index_of(variable)
        rate = learning_rate * self._factor(index)
        if self.weight_decay and self.is_decayed(variable):
            decay = ops.cast(self.weight_decay * rate, variable.dtype)
            self.assign_sub(variable, variable * decay)
        super().update_step(gradient, variable, rate)
        if self.average is not None:
            update = ops.cast(self.iterations, "float32")
            momentum = ops.cast(ops.minimum(self.average, update / (update + 10)), variable.dtype)
            average = self._averages[index]
            self.assign_add(average, (variable - ops.convert_to_tensor(average)) * (1 - momentum))

    def _factor(self, index: int):
        factor = 1.0 if self.rates is None else self.rates[index]
        start = 0 if self.starts is None else self.starts[index]
        return ops.where(self.iterations >= start, factor, 0.0) if start else factor

    def finalize_variable_values(self, var_list):
        """Assigns the averages to the model's weights; `fit` calls it at its end."""
        if self.average is not None:
            for variable, average in zip(var_list, self._averages, strict=True):
                variable.assign(ops.convert_to_numpy(average))

    def get_config(self):
        config = super().get_config()
        config["schedule"] = config.pop("learning_rate")
        return config | {"rates": self.rates, "starts": self.starts, "average": self.average}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        schedule = keras.optimizers.schedules.deserialize(config["schedule"], custom_objects)
        return cls(**config | {"schedule": schedule})


@keras.saving.register_keras_serializable(package="mm_keras")
class Adam(_ByPart, keras.optimizers.Adam):
    """Adam, which is AdamW with `weight_decay`. The arguments are those of `_ByPart`."""


@keras.saving.register_keras_serializable(package="mm_keras")
class SGD(_ByPart, keras.optimizers.SGD):
    """Gradient descent with momentum. The arguments are those of `_ByPart`."""
