"""Makes optimizers. `train` gives `make_optimizer` the number of batches and the model; a config binds its other arguments."""

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
    """Makes AdamW, Adam, or stochastic gradient descent. The learning rate rises linearly, and then follows its schedule.

    Args:
        total_steps: number of batches in the whole training.
        model: the model that is trained. It is needed only for `average`, `layer_rates` and `unfreeze_at`.
        algorithm: "adamw", "adam", or "sgd" with Nesterov's momentum.
        learning_rate: the highest learning rate, which the warm-up ends with.
        schedule: `(learning_rate, total_updates, warmup_updates) -> schedule`, see `schedules`.
        warmup_fraction: fraction of the training, within [0, 1), in which the learning rate rises.
        momentum: the momentum of "sgd", within [0, 1). With 0 there is neither momentum nor Nesterov's correction.
        weight_decay: decoupled weight decay: each update subtracts learning rate × weight_decay × weight from a weight. Biases,
            scales of normalisations and embeddings of missing inputs do not decay. None stands for 1e-4, and for 0 with "adam".
        clip_norm: the gradients are scaled down so that the norm of all of them together is at most this; None leaves them as
            they are. With `accumulate`, the mean gradient is clipped.
        accumulate: number of batches whose mean gradient makes one update. This trains with a batch that many times as large,
            in the memory of one. Schedule, average and `unfreeze_at` count updates. Batches that are left at the end of the
            training make no update.
        average: momentum, within (0, 1), of a moving average of the weights, for instance 0.999. Validation, the model of the
            best epoch and the model at the end use the average; see `part_optimizers`. With None they use the weights.
        layer_rates: for names of the model's parts ("image_tower", "text_encoder", "head", …), a factor of their learning
            rate, at least 0. The factor of all other parts is 1.
        unfreeze_at: for names of parts, the fraction of the training, within [0, 1], before which their weights do not change.
            With 0.3 and 10 epochs, a part is trained from the fourth epoch on. Its gradients are computed before, too, so that
            nothing has to be compiled again, and the statistics of its batch normalisations change. To keep a part frozen for
            the whole training, freeze it in its builder.

    Raises:
        ValueError: for values out of these ranges, and for a part that the model does not have or that has no trained weights.

    Example: the image tower learns ten times as slowly as the other parts.
        >>> optimizer = make_optimizer(1000, model, learning_rate=3e-4, layer_rates={"image_tower": 0.1})

    Reference: Loshchilov & Hutter, "Decoupled Weight Decay Regularization", algorithm 2.
    """
    _check_arguments(**locals())
    updates = total_steps // accumulate
    unfreeze_at = {part: round(fraction * updates) for part, fraction in _checked("unfreeze_at", unfreeze_at, 1).items()}
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
        optimizer.build(model.trainable_variables)  # XLA cannot make averages, which start as the weights, in the first step
    return optimizer


def _check_arguments(
    *,
    total_steps,
    model,
    algorithm,
    learning_rate,
    warmup_fraction,
    momentum,
    weight_decay,
    clip_norm,
    accumulate,
    average,
    **_,
) -> None:
    """Raises ValueError for a value out of its range, and for arguments that contradict each other."""
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


def _checked(argument: str, values: Mapping[str, float] | None, highest: float) -> Mapping[str, float]:
    for part, value in (values or {}).items():
        if not 0 <= value <= highest:
            rule = "at least 0" if highest == float("inf") else f"within [0, {highest}]"
            raise ValueError(f"{argument} must be {rule}. Received: {argument}={{{part!r}: {value}}}")
    return values or {}


def _of_weights(
    model: keras.Model | None, argument: str, values: Mapping[str, float], default: float
) -> tuple[float, ...] | None:
    """The value of each trained weight's part, else the default, in the model's order. None if `values` is empty."""
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
