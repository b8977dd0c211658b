"""Random changes of colours and shapes. TensorFlow graph functions of one picture, float32 [H, W, 3] within [0, 255].

Keras' layers of the same names draw from a random state that they keep, so that a resumed training would see other pictures,
and some of them change all pictures of a batch alike. The functions of this module take a seed: the same seed gives the same
picture.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

_GREY = 128.0  # fills what a moved picture leaves empty
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
_FROM_YIQ = tuple(map(tuple, np.linalg.inv(np.array(_TO_YIQ, "float32"))))


def jitter_colors(image: tf.Tensor, seed: tf.Tensor, strength: float) -> tf.Tensor:
    """Changes brightness, contrast and saturation by random factors within 1 ± strength, and rotates the hue.

    All four changes are one matrix product, which is several times as fast as applying them one after the other.

    Args:
        image: float32 [H, W, 3] within [0, 255].
        seed: int64 [2].
        strength: within [0, 1]. The hue rotates in the plane of YIQ's I and Q, by at most strength / 4 of a full circle.

    Reference: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", appendix A, whose factors
        are four times as far from 1 as the hue turns.
    """
    changes = strength * tf.random.stateless_uniform([4], seed, -1.0, 1.0)
    brightness, contrast, saturation, _ = tf.unstack(1 + changes)
    angle = changes[3] / 4 * 2 * math.pi
    zero, cosine, sine = tf.zeros([]), tf.cos(angle), tf.sin(angle)
    turn = tf.reshape(tf.stack([1.0, zero, zero, zero, cosine, -sine, zero, sine, cosine]), [3, 3])
    hue = tf.constant(_FROM_YIQ) @ turn @ tf.constant(_TO_YIQ)
    colors = saturation * tf.eye(3) + (1 - saturation) * tf.constant([_TO_YIQ[0]] * 3)
    mean = brightness * tf.tensordot(tf.reduce_mean(image, axis=[0, 1]), tf.constant(_TO_YIQ[0]), 1)
    changed = tf.tensordot(image, tf.transpose(hue @ colors) * brightness * contrast, 1)
    return _clip(changed + (1 - contrast) * mean)


def rand_augment(image: tf.Tensor, seed: tf.Tensor, operations: int, magnitude: float) -> tf.Tensor:
    """Applies operations drawn at random, with replacement, from 14 kinds, all with the same magnitude.

    Args:
        image: float32 [H, W, 3] within [0, 255].
        seed: int64 [2].
        operations: number of operations.
        magnitude: within [0, 10]. At 10, a picture is rotated by 30°, sheared by 0.3, or moved by 0.45 of a side, its colours
            change by a factor of 0.1 or 1.9, posterising keeps 4 bits a colour, and solarising inverts all pixels.

    Reference: Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search Space", figure 2.
    """
    strength = magnitude / 10
    chosen = tf.random.stateless_uniform([operations], seed, maxval=len(_OPERATIONS), dtype=tf.int32)
    signs = tf.sign(tf.random.stateless_uniform([operations], seed[::-1], -1.0, 1.0))
    for number in range(operations):
        branches = [
            lambda image=image, sign=signs[number], change=change: tf.ensure_shape(change(image, strength, sign), image.shape)
            for change in _OPERATIONS
        ]
        image = _clip(tf.switch_case(chosen[number], branches))
    return image


def _clip(image: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(image, 0.0, 255.0)


def _away_from(image: tf.Tensor, other, factor) -> tf.Tensor:
    """Blends two pictures: `other` at factor 0, `image` at 1, and away from `other` beyond `image` above 1."""
    return _clip(other + factor * (image - other))


def _grey(image: tf.Tensor) -> tf.Tensor:
    return tf.tensordot(image, tf.constant(_TO_YIQ[0]), 1)[..., tf.newaxis]


def change_brightness(image: tf.Tensor, factor) -> tf.Tensor:
    return _away_from(image, 0.0, factor)


def change_contrast(image: tf.Tensor, factor) -> tf.Tensor:
    return _away_from(image, tf.reduce_mean(_grey(image)), factor)


def change_saturation(image: tf.Tensor, factor) -> tf.Tensor:
    return _away_from(image, _grey(image), factor)


def change_sharpness(image: tf.Tensor, factor) -> tf.Tensor:
    kernel = tf.constant([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    kernel = tf.tile(kernel[:, :, tf.newaxis, tf.newaxis], [1, 1, 3, 1])
    padded = tf.pad(image, [[1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    smooth = tf.nn.depthwise_conv2d(padded[tf.newaxis], kernel, [1, 1, 1, 1], "VALID")[0]
    return _away_from(image, smooth, factor)


def _warp(image: tf.Tensor, along_x, along_y, shift=(0.0, 0.0)) -> tf.Tensor:
    """Warps a picture: its pixel (x, y), from the centre, comes from (along_x · (x, y), along_y · (x, y)) + shift."""
    height, width = (tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(image)[:2]))
    x, y = (width - 1) / 2, (height - 1) / 2
    offsets = [
        place + shift[axis] - along[0] * x - along[1] * y for axis, (place, along) in enumerate(((x, along_x), (y, along_y)))
    ]
    numbers = [*along_x, offsets[0], *along_y, offsets[1], 0.0, 0.0]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=tf.stack([tf.cast(number, tf.float32) for number in numbers])[tf.newaxis],
        output_shape=tf.shape(image)[:2],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=_GREY,
    )[0]


def rotate(image: tf.Tensor, strength: float, sign) -> tf.Tensor:
    angle = sign * strength * math.radians(30)
    return _warp(image, (tf.cos(angle), -tf.sin(angle)), (tf.sin(angle), tf.cos(angle)))


def shear_x(image: tf.Tensor, strength: float, sign) -> tf.Tensor:
    return _warp(image, (1.0, 0.3 * strength * sign), (0.0, 1.0))


def shear_y(image: tf.Tensor, strength: float, sign) -> tf.Tensor:
    return _warp(image, (1.0, 0.0), (0.3 * strength * sign, 1.0))


def move_x(image: tf.Tensor, strength: float, sign) -> tf.Tensor:
    return _warp(image, (1.0, 0.0), (0.0, 1.0), (0.45 * strength * sign * tf.cast(tf.shape(image)[1], tf.float32), 0.0))


def move_y(image: tf.Tensor, strength: float, sign) -> tf.Tensor:
    return _warp(image, (1.0, 0.0), (0.0, 1.0), (0.0, 0.45 * strength * sign * tf.cast(tf.shape(image)[0], tf.float32)))


def posterize(image: tf.Tensor, strength: float, sign) -> tf.Tensor:
    del sign
    step = 2.0 ** round(4 * strength)
    return tf.floor(image / step) * step


def solarize(image: tf.Tensor, strength: float, sign) -> tf.Tensor:
    del sign
    return tf.where(image < 256 * (1 - strength), image, 255 - image)


def autocontrast(image: tf.Tensor, strength: float, sign) -> tf.Tensor:
    del strength, sign
    low, high = (reduce(image, axis=[0, 1]) for reduce in (tf.reduce_min, tf.reduce_max))
    return tf.where(high > low, (image - low) * tf.math.divide_no_nan(255.0, high - low), image)


def equalize(image: tf.Tensor, strength: float, sign) -> tf.Tensor:
    """Each colour channel's values become about equally frequent."""
    del strength, sign

    def spread(channel: tf.Tensor) -> tf.Tensor:
        values = tf.cast(tf.round(channel), tf.int32)
        below = tf.cumsum(tf.math.bincount(values, minlength=256, maxlength=256), exclusive=True)
        ranks = tf.cast(tf.gather(below, values), tf.float32)
        highest = tf.reduce_max(ranks)
        return tf.where(highest > 0, 255 * tf.math.divide_no_nan(ranks, highest), channel)

    return tf.stack([spread(channel) for channel in tf.unstack(image, axis=-1)], axis=-1)


def _scaled(change):
    """Makes an operation of a change by a factor, which is above 1 for sign 1 and below 1 for sign -1."""
    return lambda image, strength, sign: change(image, 1 + 0.9 * strength * sign)


_OPERATIONS = (
    lambda image, strength, sign: image,
    autocontrast,
    equalize,
    rotate,
    solarize,
    posterize,
    *map(_scaled, (change_saturation, change_contrast, change_brightness, change_sharpness)),
    shear_x,
    shear_y,
    move_x,
    move_y,
)
