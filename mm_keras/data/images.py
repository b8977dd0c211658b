"""Decodes encoded images into the pixels that a tower sees, as TensorFlow graph functions."""

from __future__ import annotations

import functools

import tensorflow as tf

from mm_keras.data.image_headers import TOO_LARGE, aside, kind_of, read_header
from mm_keras.data.orientation import exif_orientation, turn_upright
from mm_keras.features import ImageSpec
from tfrecords_tools.dataset.schema import MAX_PIXELS

_CENTRE = 224 / 256  # ImageNet's protocol: the central 224 of a short side of 256; pictures packed that small need no resizing
_MARGIN = 4  # a JPEG that is decoded in part has slightly other colours in its outermost pixels, where chroma is interpolated
_LARGE = 2**24  # samples (pixels x channels); of a larger picture no copy in floats is made
_DCT = "INTEGER_ACCURATE"  # as Pillow and OpenCV decode, to the bit; TensorFlow's default is off by up to 9 of 255
_BAND = 2**20  # pixels that are put on white at a time


@tf.autograph.experimental.do_not_convert  # there is nothing to convert, and looking for it takes seconds
def decode_image(data: tf.Tensor, max_pixels: int = MAX_PIXELS) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a picture as packing does: the first frame, on white, upright as its EXIF block says.

    The rules are those of `tfrecords_tools.packing.pictures`, for JPEG, PNG, GIF, WebP and BMP. The header is read first: by it
    a picture is refused before anything is decoded.

    Args:
        data: string [], not empty.
        max_pixels: the largest picture that is decoded.

    Returns:
        uint8 [height, width, 3], and int32 [], the index in `PROBLEMS` of why the picture is refused; 0 if it is not.
        A refused picture has a single pixel, which is black.

    Raises:
        tf.errors.InvalidArgumentError: when the function runs, if the data are damaged.
    """
    kind = kind_of(data)
    header = read_header(data, kind)
    problem = tf.where(tf.reduce_prod(header.size) > max_pixels, TOO_LARGE, header.problem)

    def upright() -> tf.Tensor:
        decoders = [functools.partial(decode, header.still, header.channels) for decode in _DECODERS]
        decoded = tf.switch_case(kind, decoders)  # pictures of unknown format were refused above
        return turn_upright(decoded, exif_orientation(header.exif))

    image = tf.cond(problem == 0, upright, lambda: tf.zeros([1, 1, 3], tf.uint8))
    image.set_shape([None, None, 3])
    return image, problem


@aside
def _decode_png(data: tf.Tensor, channels: tf.Tensor) -> tf.Tensor:
    return tf.cond(
        channels == 4,
        lambda: _on_white(tf.io.decode_png(data, channels=4)),
        lambda: tf.io.decode_png(data, channels=3),
    )


@aside
def _decode_webp(data: tf.Tensor, channels: tf.Tensor) -> tf.Tensor:
    """Decodes a WebP of one frame. Of several frames, TensorFlow writes beyond its memory if `channels` is 0."""

    def decode(channels: int) -> tf.Tensor:
        image = tf.io.decode_image(data, channels=channels, expand_animations=False)
        return tf.ensure_shape(image, [None, None, channels])

    return tf.cond(channels == 4, lambda: _on_white(decode(4)), lambda: decode(3))


@aside
def _decode_bmp(data: tf.Tensor, channels: tf.Tensor) -> tf.Tensor:
    """Decodes a BMP; a fourth octet of a pixel is filler, not alpha."""
    return tf.cond(
        channels == 4,
        lambda: tf.io.decode_bmp(data, channels=4)[..., :3],
        lambda: tf.io.decode_bmp(data, channels=3),
    )


def _decode_jpeg(data: tf.Tensor, channels: tf.Tensor) -> tf.Tensor:
    del channels
    return tf.io.decode_jpeg(data, channels=3, dct_method=_DCT)


def _decode_gif(data: tf.Tensor, channels: tf.Tensor) -> tf.Tensor:
    del channels
    return tf.io.decode_gif(data)[0]


_DECODERS = (_decode_jpeg, _decode_png, _decode_gif, _decode_webp, _decode_bmp)  # in the order of `image_headers.READERS`


def _on_white(image: tf.Tensor) -> tf.Tensor:
    """Puts a picture on white, uint8 [height, width, 4] -> [height, width, 3], in bands, so that copies stay small."""
    height, width = tf.unstack(tf.shape(image)[:2])
    rows = tf.maximum(1, _BAND // width)

    def band(index: tf.Tensor) -> tf.Tensor:
        part = tf.cast(image[index * rows : (index + 1) * rows], tf.int32)
        alpha = part[..., 3:]
        return tf.cast((part[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)

    def bands() -> tf.Tensor:
        count = (height + rows - 1) // rows
        strips = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=[None, None, 3])
        _, strips = tf.while_loop(
            lambda index, _: index < count,
            lambda index, strips: (index + 1, strips.write(index, band(index))),
            (0, strips),
            parallel_iterations=1,
        )
        return strips.concat()

    return tf.cond(rows >= height, lambda: band(0), bands)


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
        return _resize(tf.io.decode_jpeg(data, channels=3, dct_method=_DCT), spec)
    shape = tf.io.extract_jpeg_shape(data)[:2]
    start, size = _central_window(shape, spec)
    first, last = tf.maximum(0, start - _MARGIN), tf.minimum(shape, start + size + _MARGIN)
    decoded = tf.image.decode_and_crop_jpeg(data, tf.concat([first, last - first], 0), channels=3, dct_method=_DCT)
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
    area, top, left, coin = tf.unstack(tf.random.stateless_uniform([4], seed))
    crop = _scaled(crop, tf.sqrt(min_area + (1 - min_area) * area))
    start = tf.cast(tf.stack([top, left]) * tf.cast(shape - crop + 1, tf.float32), tf.int32)
    # Only what is inside the window is decoded; at its edges colours differ by a trace from those of the whole picture.
    image = tf.image.decode_and_crop_jpeg(data, tf.concat([start, crop], 0), channels=3, dct_method=_DCT)
    if mirror:
        image = tf.cond(coin < 0.5, lambda: tf.reverse(image, [1]), lambda: image)  # still uint8: a quarter of floats
    return _resize(image, spec)


def _central_window(shape: tf.Tensor, spec: ImageSpec) -> tuple[tf.Tensor, tf.Tensor]:
    """[top, left] and [height, width] of the window that evaluation and serving see."""
    largest = _largest_crop(shape, spec)
    size = tf.maximum(_scaled(largest, _CENTRE), tf.minimum(largest, spec.size))  # cropped less rather than enlarged
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

    def resize(**options) -> tf.Tensor:
        # TensorFlow resizes floats almost twice as fast as bytes.
        return tf.image.resize(tf.cast(image, tf.float32), spec.size, **options)

    def shrink() -> tf.Tensor:
        return tf.cond(
            tf.reduce_any(shape < spec.size),  # one side is enlarged: area averages would show blocks. Takes 3 times as long
            lambda: resize(antialias=True),
            lambda: resize(method="area"),
        )

    def shrink_large() -> tf.Tensor:
        smaller = tf.image.resize(image, tf.minimum(shape, spec.size), method="area")
        return tf.image.resize(smaller, spec.size)

    shrinks = tf.reduce_any(2 * shape >= [3 * side for side in spec.size])
    resized = tf.cond(
        tf.reduce_all(shape == spec.size),
        lambda: tf.cast(image, tf.float32),
        lambda: tf.cond(shrinks, lambda: tf.cond(tf.size(image) > _LARGE, shrink_large, shrink), resize),
    )
    resized.set_shape([*spec.size, 3])
    return resized
