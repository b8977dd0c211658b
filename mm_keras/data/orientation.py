"""Turns a photo upright by its EXIF orientation, in the graph: clients send what their camera wrote.

Packing stores upright pictures, and TensorFlow's decoders ignore EXIF; without this, a served model would see phone
photos lying on their side that it saw upright in training.
"""

from __future__ import annotations

import tensorflow as tf

_MARKER = b"Exif\x00\x00"
_ORIENTATION_TAG = 0x0112
_HEAD, _DIRECTORY = 4096, 64  # bytes in which the EXIF block begins; entries of its first directory that are read


def exif_orientation(data: tf.Tensor) -> tf.Tensor:
    """Reads the EXIF orientation of an encoded image.

    Returns int32 [], 1–8. It is 1, upright, if the image has no orientation or an invalid one.

    EXIF 2.3, section 4.5: after the marker a TIFF header ("II" little or "MM" big endian, offset of the first directory),
    then a directory: uint16 count, and per entry uint16 tag, uint16 type, uint32 count, 4 bytes value.

    Args:
        data: string [].
    """
    parts = tf.strings.split(tf.strings.substr(data, 0, _HEAD), _MARKER, maxsplit=1)
    tiff = tf.cond(tf.size(parts) > 1, lambda: parts[1], lambda: tf.constant(b""))
    needed = 2 + 12 * _DIRECTORY
    octets = tf.pad(tf.cast(tf.io.decode_raw(tiff, tf.uint8), tf.int32), [[0, 8 + needed]])
    little = tf.equal(octets[0], ord("I"))

    def number(pairs: tf.Tensor) -> tf.Tensor:
        """uint16 of byte pairs [..., 2]."""
        return tf.where(little, pairs[..., 0] + 256 * pairs[..., 1], 256 * pairs[..., 0] + pairs[..., 1])

    # The offset's other two bytes are zero: the first directory of a photo is near.
    offset = tf.where(little, number(octets[4:6]), number(octets[6:8]))
    offset = tf.minimum(offset, tf.size(octets) - needed)
    entries = tf.reshape(octets[offset + 2 : offset + needed], [_DIRECTORY, 12])
    values = number(entries[:, 8:10])
    listed = tf.range(_DIRECTORY) < number(octets[offset : offset + 2])
    valid = listed & (number(entries[:, :2]) == _ORIENTATION_TAG) & (values >= 1) & (values <= 8)
    return tf.reduce_max(tf.where(valid, values, 1))


def turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undoes an orientation: [height, width, channels] -> the upright picture (sides swapped for 5–8).

    Args:
        image: as the decoder gave it.
        orientation: int32 [], 1–8.
    """
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    upside_down = tf.reduce_any(orientation == [3, 4, 7, 8])
    mirrored = tf.reduce_any(orientation == [2, 3, 6, 7])
    image = tf.cond(upside_down, lambda: tf.reverse(image, [0]), lambda: image)
    return tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image)
