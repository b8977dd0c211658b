"""Decodes encoded images into the pixels that a tower sees, as TensorFlow graph functions."""

from __future__ import annotations

import tensorflow as tf

from mm_keras.data.orientation import exif_orientation, turn_upright
from mm_keras.features import ImageSpec

_CENTRE = 224 / 256  # ImageNet's protocol: a short side of 256, then the central 224. Packed so, there is nothing to resize
_MARGIN = 4  # a JPEG that is decoded in part has slightly other colours in its outermost pixels, where chroma is interpolated


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
    """Brings one picture to the tower's size, as evaluation and serving do.

    Args:
        image: uint8 [height, width, 3].
        spec: the size, and whether the picture is cropped or stretched to it.

    Returns:
        float32 [*spec.size, 3] within [0, 255].
    """
    if spec.fit == "crop":
        image = _part(image, *_central_window(tf.shape(image)[:2], spec))
    return _resize(image, spec)


def fit_stored(data: tf.Tensor, spec: ImageSpec) -> tf.Tensor:
    """Decodes and fits the image of a record; it equals `fit_image(decode_image(data), spec)` and takes less time.

    Args:
        data: string [], an upright JPEG, as packing stores them.
        spec: the size, and whether the picture is cropped or stretched to it.

    Returns:
        float32 [*spec.size, 3] within [0, 255].
    """
    if spec.fit != "crop":
        return _resize(tf.io.decode_jpeg(data, channels=3), spec)
    shape = tf.io.extract_jpeg_shape(data)[:2]
    start, size = _central_window(shape, spec)
    first, last = tf.maximum(0, start - _MARGIN), tf.minimum(shape, start + size + _MARGIN)
    decoded = tf.image.decode_and_crop_jpeg(data, tf.concat([first, last - first], 0), channels=3)
    return _resize(_part(decoded, start - first, size), spec)


def decode_augmented(
    data: tf.Tensor, spec: ImageSpec, seed: tf.Tensor, min_area: float = 0.35, mirror: bool = True
) -> tf.Tensor:
    """Decodes a random crop of a record's image, resized to the tower's size.

    Args:
        data: string [], an upright JPEG.
        spec: the size, and whether the picture is cropped or stretched to it.
        seed: int64 [2]; the same seed gives the same result.
        min_area: area of the smallest crop, as a fraction of the picture's area.
        mirror: mirror the picture with probability 1/2.

    Returns:
        float32 [*spec.size, 3] within [0, 255].
    """
    shape = tf.io.extract_jpeg_shape(data)[:2]
    crop = _largest_crop(shape, spec) if spec.fit == "crop" else shape
    area, top, left, side = tf.unstack(tf.random.stateless_uniform([4], seed))
    crop = _scaled(crop, tf.sqrt(min_area + (1 - min_area) * area))
    start = tf.cast(tf.stack([top, left]) * tf.cast(shape - crop + 1, tf.float32), tf.int32)
    # Only what is inside the window is decoded; at its edges colours differ by a trace from those of the whole picture.
    image = tf.image.decode_and_crop_jpeg(data, tf.concat([start, crop], 0), channels=3)
    if mirror:
        image = tf.cond(side < 0.5, lambda: tf.reverse(image, [1]), lambda: image)  # as bytes: a quarter of the floats
    return _resize(image, spec)


def _central_window(shape: tf.Tensor, spec: ImageSpec) -> tuple[tf.Tensor, tf.Tensor]:
    """[top, left] and [height, width] of the window that evaluation and serving see."""
    largest = _largest_crop(shape, spec)
    size = tf.maximum(_scaled(largest, _CENTRE), tf.minimum(largest, spec.size))  # no enlarging for want of an edge
    return (shape - size) // 2, size


def _part(image: tf.Tensor, start: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    return tf.slice(image, tf.concat([start, [0]], 0), tf.concat([size, [3]], 0))


def _largest_crop(shape: tf.Tensor, spec: ImageSpec) -> tf.Tensor:
    """[height, width] of the largest crop that has the tower's aspect ratio."""
    aspect = spec.size[0] / spec.size[1]
    return tf.minimum(shape, _scaled(shape[::-1], [aspect, 1 / aspect]))


def _scaled(lengths: tf.Tensor, scale) -> tf.Tensor:
    return tf.maximum(1, tf.cast(tf.round(tf.cast(lengths, tf.float32) * scale), tf.int32))


def _resize(image: tf.Tensor, spec: ImageSpec) -> tf.Tensor:
    """Resizes bilinearly; a picture that shrinks by a third or more is averaged over areas, so that it does not alias."""
    shape = tf.shape(image)[:2]
    image = tf.cast(image, tf.float32)  # TensorFlow resizes floats almost twice as fast as bytes
    fits = tf.reduce_all(shape == spec.size)

    def shrink() -> tf.Tensor:
        return tf.cond(
            tf.reduce_any(shape < spec.size),  # the other side is enlarged: averaging would show blocks. Three times as long
            lambda: tf.image.resize(image, spec.size, antialias=True),
            lambda: tf.image.resize(image, spec.size, method="area"),
        )

    shrinks = tf.reduce_any(2 * shape >= [3 * side for side in spec.size])
    resized = tf.cond(fits, lambda: image, lambda: tf.cond(shrinks, shrink, lambda: tf.image.resize(image, spec.size)))
    resized.set_shape([*spec.size, 3])
    return resized
