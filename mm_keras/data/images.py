"""Encoded bytes -> the pixels that a tower sees; in training with augmentation. TensorFlow graph functions."""

from __future__ import annotations

import tensorflow as tf

from mm_keras.data.orientation import exif_orientation, turn_upright
from mm_keras.features import ImageSpec


def decode_image(data: tf.Tensor) -> tf.Tensor:
    """Decodes one JPEG, PNG, GIF (first frame) or BMP, and turns it upright as its EXIF says.

    Args:
        data: string [], not empty.

    Returns:
        uint8 [height, width, 3].
    """
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    return turn_upright(image, exif_orientation(data))


def fit_image(image: tf.Tensor, spec: ImageSpec) -> tf.Tensor:
    """Brings one picture to the tower's size as evaluation and serving do.

    Args:
        image: uint8 [height, width, 3].
        spec: the size, and how to get there.

    Returns:
        float32 [*spec.size, 3] within [0, 255].
    """
    if spec.fit == "crop":
        height, width = tf.unstack(tf.shape(image)[:2])
        crop_height, crop_width = _largest_crop(height, width, spec)
        image = tf.image.crop_to_bounding_box(
            image, (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width
        )
    return _resize(image, spec)


def augment_image(image: tf.Tensor, spec: ImageSpec, seed: tf.Tensor, min_area: float = 0.35) -> tf.Tensor:
    """A random part of the picture at the tower's size, mirrored in half of the cases.

    Args:
        image: uint8 [height, width, 3].
        spec: the size, and how to get there.
        seed: int64 [2]; the same seed gives the same result.
        min_area: smallest part of the picture that is taken, as a fraction of its area.

    Returns:
        float32 [*spec.size, 3] within [0, 255].
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    if spec.fit == "crop":
        crop_height, crop_width = _largest_crop(height, width, spec)
    else:
        crop_height, crop_width = height, width
    area, top, left, mirror = tf.unstack(tf.random.stateless_uniform([4], seed))
    scale = tf.sqrt(min_area + (1 - min_area) * area)
    crop_height, crop_width = _scaled(crop_height, scale), _scaled(crop_width, scale)
    top = tf.cast(top * tf.cast(height - crop_height + 1, tf.float32), tf.int32)
    left = tf.cast(left * tf.cast(width - crop_width + 1, tf.float32), tf.int32)
    image = _resize(tf.image.crop_to_bounding_box(image, top, left, crop_height, crop_width), spec)
    return tf.cond(mirror < 0.5, lambda: tf.reverse(image, [1]), lambda: image)


def _largest_crop(height: tf.Tensor, width: tf.Tensor, spec: ImageSpec) -> tuple[tf.Tensor, tf.Tensor]:
    """Size of the largest part of the tower's aspect."""
    aspect = spec.size[1] / spec.size[0]
    crop_height = tf.minimum(height, _scaled(width, 1 / aspect))
    crop_width = tf.minimum(width, _scaled(height, aspect))
    return crop_height, crop_width


def _scaled(length: tf.Tensor, scale) -> tf.Tensor:
    return tf.maximum(1, tf.cast(tf.round(tf.cast(length, tf.float32) * scale), tf.int32))


def _resize(image: tf.Tensor, spec: ImageSpec) -> tf.Tensor:
    """Bilinear; antialiased where it shrinks by a third or more (a served original), which costs several times as much."""
    height, width = tf.unstack(tf.shape(image)[:2])
    shrinks = tf.logical_or(2 * height >= 3 * spec.size[0], 2 * width >= 3 * spec.size[1])
    resized = tf.cond(
        shrinks,
        lambda: tf.image.resize(image, spec.size, antialias=True),
        lambda: tf.image.resize(image, spec.size),
    )
    resized.set_shape([*spec.size, 3])
    return resized
