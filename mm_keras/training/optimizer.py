"""Makes optimizers: `train` calls `make_optimizer` with the number of batches and the model; configs bind the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import keras

from mm_keras.configurable import Fraction, NonNegativeFloat, OpenFraction, PositiveFloat, PositiveInt, Rate, configurable
from mm_keras.training.part_optimizers import SGD, Adam
from mm_keras.training.schedules import make_cosine_schedule

ALGORITHMS = ("adam", "adamw", "sgd")


@configurable
def make_optimizer(
    total_steps: int,
    model: keras.Model | None = None,
    algorithm: Literal["adamw", "adam", "sgd"] = "adamw",
    learning_rate: PositiveFloat = 1e-3,
    schedule: Callable[..., keras.optimizers.schedules.LearningRateSchedule] = make_cosine_schedule,
    warmup_fraction: Rate = 0.05,
    momentum: Rate = 0.9,
    weight_decay: NonNegativeFloat | None = None,
    clip_norm: PositiveFloat | None = 1.0,
    accumulate: PositiveInt = 1,
    average: OpenFraction | None = None,
    layer_rates: Mapping[str, NonNegativeFloat] | None = None,
    unfreeze_at: Mapping[str, Fraction] | None = None,
) -> keras.optimizers.Optimizer:
    """AdamW, Adam, or stochastic gradient descent; the learning rate rises linearly, then follows its schedule.

    Args:
        total_steps: batches in the whole training.
        model: what is trained; needed for `average`, `layer_rates` and `unfreeze_at` alone.
        algorithm: "adamw", "adam", or "sgd" with Nesterov's momentum.
        learning_rate: at its highest.
        schedule: `(learning_rate, total_updates, warmup_updates) -> schedule`, see `schedules`.
        warmup_fraction: part of the training, within [0, 1), in which the rate rises.
        momentum: of "sgd", within [0, 1); 0: none, and no Nesterov.
        weight_decay: decoupled: with each update a weight loses learning rate × weight_decay of itself; all do but biases,
            normalisation scales and the embeddings of what is missing. None: 1e-4, and 0 for "adam".
        clip_norm: norm of all gradients together to which they are clipped; None: they are not. Accumulated gradients are
            clipped once, their mean.
        accumulate: batches whose mean gradient makes one update: a batch so many times as large, in the memory of one.
            Schedule, average and `unfreeze_at` count updates; what is left at the training's end makes none.
        average: momentum, within (0, 1), of a moving average of the weights, for instance 0.999. Validation, the best epoch's
            model and the model at the end then use the average; see `part_optimizers`. None: they use the weights.
        layer_rates: name of one of the model's parts ("image_tower", "text_encoder", "head", …) -> factor of its learning
            rate, at least 0. Others have 1.
        unfreeze_at: name of a part -> part of the training, within [0, 1], before which its weights stay as they are. (0.3 of
            10 epochs: from the fourth on.) Its gradients are computed all the same, so that nothing is compiled anew, and
            statistics of its batch normalisations move; where it shall stay frozen altogether, freeze it in its builder.

    Raises:
        ValueError: for values out of these ranges, or a part that is not there or has nothing to train.

    Reference: Loshchilov & Hutter, "Decoupled Weight Decay Regularization", algorithm 2.
    """
    for name, value, fine, rule in (
        ("algorithm", algorithm, algorithm in ALGORITHMS, f"one of {', '.join(ALGORITHMS)}"),
        ("learning_rate", learning_rate, learning_rate > 0, "above 0"),
        ("warmup_fraction", warmup_fraction, 0 <= warmup_fraction < 1, "within [0, 1)"),
        ("momentum", momentum, 0 <= momentum < 1, "within [0, 1)"),
        ("weight_decay", weight_decay, weight_decay is None or weight_decay >= 0, "at least 0, or None"),
        ("clip_norm", clip_norm, clip_norm is None or clip_norm > 0, "above 0, or None"),
        ("accumulate", accumulate, 1 <= accumulate <= total_steps, f"1 to {total_steps}, the batches of the training"),
        ("average", average, average is None or 0 < average < 1, "within (0, 1), or None"),
    ):
        if not fine:
            raise ValueError(f"{name} must be {rule}. Received: {name}={value!r}")
    if weight_decay and algorithm == "adam":
        raise ValueError(
            f"Adam with weight decay is algorithm='adamw'. Received: algorithm='adam', weight_decay={weight_decay}"
        )
    if average is not None and model is None:
        raise ValueError(f"average needs the model whose weights are averaged. Received: average={average}, model=None")
    updates = total_steps // accumulate
    unfreeze_at = {part: round(when * updates) for part, when in _checked("unfreeze_at", unfreeze_at, 1).items()}
    options = {
        "schedule": schedule(learning_rate, updates, round(warmup_fraction * updates)),
        "rates": _of_weights(model, "layer_rates", _checked("layer_rates", layer_rates, float("inf")), 1.0),
        "starts": _of_weights(model, "unfreeze_at", unfreeze_at, 0),
        "average": average,
        "global_clipnorm": clip_norm,
        "gradient_accumulation_steps": accumulate if accumulate > 1 else None,
    }
    if algorithm != "adam":
        options["weight_decay"] = 1e-4 if weight_decay is None else weight_decay
    optimizer = SGD(momentum=momentum, nesterov=momentum > 0, **options) if algorithm == "sgd" else Adam(**options)
    if model is not None:
        optimizer.build(model.trainable_variables)  # XLA could not make averages, which begin as the weights, in the first step
    return optimizer


def _checked(argument: str, values: Mapping[str, float] | None, highest: float) -> Mapping[str, float]:
    for part, value in (values or {}).items():
        if not 0 <= value <= highest:
            rule = "at least 0" if highest == float("inf") else f"within [0, {highest}]"
            raise ValueError(f"{argument} must be {rule}. Received: {argument}={{{part!r}: {value}}}")
    return values or {}


def _of_weights(
    model: keras.Model | None, argument: str, values: Mapping[str, float], default: float
) -> tuple[float, ...] | None:
    """The value of each trained weight, in the model's order; None where there is no value at all."""
    if not values:
        return None
    if model is None:
        raise ValueError(f"{argument} needs the model whose parts it names. Received: model=None")
    parts = {layer.name: layer.trainable_variables for layer in model.layers if layer.trainable_variables}
    for part in values:
        if part not in parts:
            raise ValueError(
                f"{argument} names {part!r}, which is no part of the model that is trained; those are {sorted(parts)}"
            )
    of_weight = {id(weight): values[part] for part in values for weight in parts[part]}
    return tuple(of_weight.get(id(weight), default) for weight in model.trainable_variables)
