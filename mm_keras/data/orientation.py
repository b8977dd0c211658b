"""Turns a photo upright by its EXIF orientation, in the graph: clients send what their camera wrote.

Packing stores upright pictures, and TensorFlow's decoders ignore EXIF; without this, a served model would see phone
photos lying on their side that it saw upright in training.
"""

from __future__ import annotations

import tensorflow as tf

from mm_keras.data.image_headers import aside

_MARKER = b"Exif\x00\x00"
_ORIENTATION_TAG = 0x0112
_BYTE, _SHORT, _LONG = 1, 3, 4  # types in which an orientation is found
_DIRECTORY = 64  # entries of the first directory that are read
_NEEDED = 2 + 12 * _DIRECTORY


def exif_orientation(block: tf.Tensor) -> tf.Tensor:
    """Reads the orientation in an EXIF block.

    Returns int32 [], 1–8. It is 1, upright, if the block has no orientation or an invalid one, or is damaged.

    EXIF 2.3, section 4.5: a TIFF header ("II" little or "MM" big endian, 42, offset of the first directory), then a directory:
    uint16 count, and per entry uint16 tag, uint16 type, uint32 count, 4 bytes value.

    Args:
        block: string []; empty: there is none. Some programs write the marker of JPEG segments in front of it.
    """
    marked = tf.strings.substr(block, 0, len(_MARKER)) == _MARKER
    block = tf.cond(marked, lambda: tf.strings.substr(block, len(_MARKER), tf.strings.length(block)), lambda: block)
    return tf.cond(tf.strings.length(block) > 8, lambda: _orientation(block), lambda: tf.constant(1))


@aside
def _orientation(block: tf.Tensor) -> tf.Tensor:
    octets = tf.pad(tf.cast(tf.io.decode_raw(block, tf.uint8), tf.int64), [[0, 8 + _NEEDED]])
    little = octets[0] == ord("I")

    def number(parts: tf.Tensor, size: int) -> tf.Tensor:
        """The numbers that octets [..., size] spell."""
        weights = tf.constant([256**index for index in range(size)], tf.int64)
        return tf.reduce_sum(parts * tf.where(little, weights, weights[::-1]), axis=-1)

    offset = tf.minimum(number(octets[4:8], 4), tf.size(octets, tf.int64) - _NEEDED)
    entries = tf.reshape(octets[offset + 2 : offset + _NEEDED], [_DIRECTORY, 12])
    kind, short = number(entries[:, 2:4], 2), number(entries[:, 8:10], 2)
    values = tf.where(kind == _SHORT, short, tf.where(kind == _LONG, number(entries[:, 8:12], 4), entries[:, 8]))
    valid = (tf.range(_DIRECTORY, dtype=tf.int64) < number(octets[offset : offset + 2], 2)) & (values >= 1) & (values <= 8)
    valid &= (number(entries[:, :2], 2) == _ORIENTATION_TAG) & (number(entries[:, 4:8], 4) == 1)
    valid &= (kind == _SHORT) | (kind == _LONG) | (kind == _BYTE)
    valid &= (tf.reduce_all(octets[:4] == [73, 73, 42, 0])) | (tf.reduce_all(octets[:4] == [77, 77, 0, 42]))
    return tf.cast(tf.reduce_max(tf.where(valid, values, 1)), tf.int32)


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
