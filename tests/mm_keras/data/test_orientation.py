import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from mm_keras.data.images import decode_image
from mm_keras.data.orientation import exif_orientation
from tfrecords_tools.packing.images import ImageOptions, prepare_image

ORIENTATION, MAKER = 0x0112, 0x010F


@pytest.fixture(scope="module")
def orientation_of():
    """A function: bytes that hold an EXIF block with its marker -> its orientation."""
    of_block = tf.function(exif_orientation, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    return lambda data: of_block(data[max(0, data.find(b"Exif")) :])


@pytest.fixture(scope="module")
def decode():
    """A function: bytes -> pixels."""
    in_graph = tf.function(decode_image, input_signature=[tf.TensorSpec([], tf.string)])
    return lambda data: in_graph(data)[0].numpy().astype(int)


def photo(orientation: int, endian: str = "<") -> bytes:
    """A JPEG whose four quarters differ, taken with the camera held that way."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30] = [255, 0, 0]
    pixels[20:, 30:] = [0, 255, 0]
    exif = Image.Exif()
    exif.endian = endian
    exif[MAKER], exif[ORIENTATION] = "a camera of some name", orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif, quality=95)
    return buffer.getvalue()


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photo_is_turned_as_pillow_turns_it(orientation_of, decode, orientation, endian):
    data = photo(orientation, endian)
    assert orientation_of(data).numpy() == orientation
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))).astype(int)
    decoded = decode(data)
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).mean() < 2


def test_client_and_record_show_the_same_picture_of_a_turned_photo(decode):
    data = photo(6)
    stored = prepare_image(data, ImageOptions(short_side=None)).data
    assert np.abs(decode(data) - decode(stored)).mean() < 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"Exif\x00\x00",
        b"\xff\xd8 no block at all",
        b"\xff\xd8Exif\x00\x00II",
        b"\xff\xd8Exif\x00\x00II*\x00\xff\xff\xff\xff",
        b"\xff\xd8Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff",
        photo(1).replace(b"\x12\x01\x03\x00\x01\x00\x00\x00\x01", b"\x12\x01\x03\x00\x01\x00\x00\x00\x09"),
    ],
)
def test_missing_or_damaged_exif_leaves_the_picture_as_it_is(orientation_of, data):
    assert orientation_of(data).numpy() == 1


def test_random_bytes_after_the_marker_never_fail(orientation_of):
    rng = np.random.default_rng(0)
    for length in rng.integers(0, 400, 500):
        for header in (b"II*\x00", b"MM\x00*"):
            assert 1 <= orientation_of(b"\xff\xd8Exif\x00\x00" + header + rng.bytes(int(length))).numpy() <= 8
