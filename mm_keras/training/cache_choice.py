"""Decides which frozen encoders run only once on each example, instead of in every epoch."""

from __future__ import annotations

import math
import os

import keras
import tensorflow as tf

from mm_keras.data.augment import Augmentation
from mm_keras.features import IMAGE, FeatureSpec, TokenText
from mm_keras.model.cut_text_encoder import cut_text_encoder
from mm_keras.model.cut_tower import cut_tower, multiply_adds
from mm_keras.model.frozen import frozen_modalities
from mm_keras.model.two_tower_parts import TwoTowerParts

CHOICES = (True, False, "towers", "cut")
# What one core, one GPU and one disk do in a second, in round numbers. They decide whether reading activations is faster than
# computing them. Nothing is measured, so that the decision is the same every time.
_CORE_MULTIPLY_ADDS, _GPU_MULTIPLY_ADDS, _DISK_BYTES = 4e10, 1e13, 4e8
_MOST_BYTES = 64 * 2**30  # of activations that are cached without being asked for


def choose_cached(
    model: keras.Model, features: FeatureSpec, augment: bool | Augmentation, cache_frozen: bool | str, num_examples: int
) -> tuple[str, ...]:
    """The modalities whose frozen encoders, or frozen parts of a tower, have to run only once on each example.

    There are none if pictures or tokens change from epoch to epoch: with cached outputs, the training would be another one.

    Args:
        model: a model of `build_two_tower`.
        features: what the model was built for.
        augment: as in `train`.
        cache_frozen: False caches nothing. "towers" caches towers and encoders only if all of one is frozen. "cut" also caches
            the activations behind the frozen part of an image tower, and the states behind the frozen layers of a text encoder.
            True does so where reading them takes less time than computing them, and all of them fit into 64 GiB.
        num_examples: number of examples that would be cached.

    Raises:
        ValueError: for another value of `cache_frozen`, or for "cut" if no tower can be cut.
    """
    if cache_frozen not in CHOICES:
        raise ValueError(f"cache_frozen is one of {CHOICES}. Received: {cache_frozen!r}")
    changing = bool(features.image and augment) or (isinstance(augment, Augmentation) and bool(augment.token_dropout))
    frozen = frozen_modalities(model, features)
    if not cache_frozen or changing:
        return ()
    parts = TwoTowerParts(model.layers)
    cut_texts = [
        text.name
        for text in features.texts
        if text.name not in frozen
        and cache_frozen != "towers"
        and (cut_parts := cut_text_encoder(parts.encoder(text.name)))
        and (cache_frozen == "cut" or _fits(cut_parts[0], text, num_examples))
    ]
    chosen = {*frozen, *cut_texts}
    if features.image and IMAGE not in frozen:
        cut_parts = cut_tower(parts.encoder(IMAGE)) if cache_frozen != "towers" else None
        if cache_frozen == "cut" and not cut_parts:
            raise ValueError(
                "cache_frozen = 'cut' is for an image tower whose first layers are frozen; "
                "this one has none that can be cut off"
            )
        if not cut_parts or (cache_frozen is True and not _pays(cut_parts[0], num_examples)):
            return ()
        chosen.add(IMAGE)
    return tuple(modality for modality in features.modalities if modality in chosen)


def _fits(frozen_part: keras.Model, text: TokenText, num_examples: int) -> bool:
    """Whether the states of all texts fit into `_MOST_BYTES`. Reading them takes a fraction of the time of computing them."""
    return 2 * text.max_tokens * frozen_part.output.shape[-1] * num_examples <= _MOST_BYTES


def _pays(frozen_part: keras.Model, num_examples: int) -> bool:
    """Whether reading activations takes less time than computing them, and those of all examples fit into `_MOST_BYTES`."""
    size = 4 * math.prod(frozen_part.output.shape[1:])
    gpus = len(tf.config.list_logical_devices("GPU"))
    rate = gpus * _GPU_MULTIPLY_ADDS or (os.cpu_count() or 1) * _CORE_MULTIPLY_ADDS
    return size / _DISK_BYTES < multiply_adds(frozen_part) / rate and size * num_examples <= _MOST_BYTES
