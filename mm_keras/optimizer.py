"""The default optimizer and schedule."""

from __future__ import annotations

import keras


def make_optimizer(
    total_steps: int,
    learning_rate: float = 1e-3,
    warmup_fraction: float = 0.05,
    weight_decay: float = 1e-4,
    clip_norm: float | None = 1.0,
) -> keras.optimizers.Optimizer:
    """AdamW; the learning rate rises linearly, then falls to zero along a cosine.

    Args:
        total_steps: of the whole training.
        learning_rate: at its highest.
        warmup_fraction: part of the steps, 0–1, in which it rises.
        weight_decay: decoupled, of all but biases and normalisation scales.
        clip_norm: global norm to which gradients are clipped; None: they are not.

    Reference: Loshchilov & Hutter, "Decoupled Weight Decay Regularization", algorithm 2.
    """
    warmup = max(1, round(warmup_fraction * total_steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=max(1, total_steps - warmup), warmup_target=learning_rate, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=weight_decay, global_clipnorm=clip_norm)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "scale", "missing"])
    return optimizer
