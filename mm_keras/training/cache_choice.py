"""Which frozen encoders run once an example instead of in every epoch."""

from __future__ import annotations

import math
import os

import keras
import tensorflow as tf

from mm_keras.data.augment import Augmentation
from mm_keras.features import IMAGE, FeatureSpec
from mm_keras.model.cut_tower import cut_tower, multiply_adds
from mm_keras.model.frozen import frozen_modalities

CHOICES = (True, False, "towers", "cut")
# What one core, one GPU, and one disk do in a second, in round numbers: they tell whether reading activations is quicker than
# computing them, and shall tell the same each time, so nothing is measured.
_CORE_MULTIPLY_ADDS, _GPU_MULTIPLY_ADDS, _DISK_BYTES = 4e10, 1e13, 4e8
_MOST_BYTES = 64 * 2**30  # of activations, unasked


def choose_cached(
    model: keras.Model, features: FeatureSpec, augment: bool | Augmentation, cache_frozen: bool | str, num_examples: int
) -> tuple[str, ...]:
    """The modalities whose frozen encoders, or frozen parts of a tower, need to run only once an example.

    None where training on what they give were another training: where pictures or tokens change from epoch to epoch.

    Args:
        model: of `build_two_tower`.
        features: what it was built for.
        augment: as in `train`.
        cache_frozen: False: nothing. "towers": if all of the image tower is frozen. "cut": also if a first part of it is. True:
            also then, where reading a picture's activations at the cut takes less time than computing them, and all of them
            fit in 64 GiB.
        num_examples: that will be kept.

    Raises:
        ValueError: for another `cache_frozen`, or "cut" where no tower can be cut.
    """
    if cache_frozen not in CHOICES:
        raise ValueError(f"cache_frozen is one of {CHOICES}. Received: {cache_frozen!r}")
    changing = bool(features.image and augment) or (isinstance(augment, Augmentation) and bool(augment.token_dropout))
    frozen = frozen_modalities(model, features)
    if not cache_frozen or changing:
        return ()
    if not features.image or IMAGE in frozen:
        return frozen
    parts = cut_tower(model.get_layer("image_tower")) if cache_frozen != "towers" else None
    if cache_frozen == "cut" and not parts:
        raise ValueError(
            "cache_frozen = 'cut' is for an image tower whose first layers are frozen; this one has none that can be cut off"
        )
    if not parts or (cache_frozen is True and not _pays(parts[0], num_examples)):
        return ()
    return (IMAGE, *frozen)


def _pays(frozen_part: keras.Model, num_examples: int) -> bool:
    size = 4 * math.prod(frozen_part.output.shape[1:])
    gpus = len(tf.config.list_logical_devices("GPU"))
    rate = gpus * _GPU_MULTIPLY_ADDS or (os.cpu_count() or 1) * _CORE_MULTIPLY_ADDS
    return size / _DISK_BYTES < multiply_adds(frozen_part) / rate and size * num_examples <= _MOST_BYTES
