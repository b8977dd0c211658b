"""What a picture is: one table, read by packing, by `predict` and by the graph of an exported model."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mm_keras.data.image_headers import PROBLEMS, TOO_LARGE
from mm_keras.data.images import decode_image
from mm_keras.data.preprocess import read_images
from mm_keras.features import ImageSpec
from mm_keras.runs.predict import read_picture
from tests.faults import drawn_pictures as drawn
from tfrecords_tools.packing.images import BadImageError, ImageOptions, prepare_image

ANY_SIZE = ImageOptions(short_side=None, quality=100)
READABLE = drawn.READ_BY_ALL | drawn.REFUSED_BY_THE_GRAPH


@pytest.fixture(scope="module")
def in_graph():
    """A function: bytes -> (pixels, number of the problem), as an exported model computes them."""
    return tf.function(decode_image, input_signature=[tf.TensorSpec([], tf.string)])


def _seen(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)


def _check_equal(found, expected):
    assert found.shape == expected.shape
    height, width, _ = expected.shape
    blocks = (height // 4, 4, width // 4, 4, 3)  # JPEG and WebP halve the resolution of colours
    difference = (found - np.asarray(expected, float)).reshape(blocks).mean((1, 3))
    assert np.abs(difference).max() < 6


@pytest.mark.parametrize("name", READABLE)
def test_packing_and_prediction_see_what_is_drawn(name, tmp_path):
    data, expected = READABLE[name]
    _check_equal(_seen(prepare_image(data, ANY_SIZE).data), expected)
    (tmp_path / "picture").write_bytes(data)
    assert read_picture(tmp_path / "picture", ANY_SIZE) == prepare_image(data, ANY_SIZE).data


@pytest.mark.parametrize("name", drawn.READ_BY_ALL)
def test_the_graph_sees_what_is_drawn(name, in_graph):
    data, expected = drawn.READ_BY_ALL[name]
    pixels, problem = in_graph(data)
    assert PROBLEMS[problem] == ""
    _check_equal(pixels.numpy().astype(int), expected)


@pytest.mark.parametrize("name", drawn.REFUSED_BY_THE_GRAPH)
def test_the_graph_refuses_what_it_cannot_read(name, in_graph):
    _, problem = in_graph(drawn.REFUSED_BY_THE_GRAPH[name][0])
    assert "convert it" in PROBLEMS[problem]


@pytest.mark.parametrize("name", drawn.BOMBS)
def test_large_pictures_are_refused_by_their_headers(name, in_graph):
    with pytest.raises(BadImageError, match="max_pixels is 50,000,000"):
        prepare_image(drawn.BOMBS[name], ImageOptions())
    _, problem = in_graph(drawn.BOMBS[name])
    assert problem == TOO_LARGE or (name.startswith("tiff") and problem)


@pytest.mark.parametrize("name", drawn.NO_PICTURES)
def test_what_is_no_picture_is_refused_and_never_quoted(name, in_graph, tmp_path):
    data = drawn.NO_PICTURES[name]
    with pytest.raises(BadImageError) as caught:
        prepare_image(data, ImageOptions())
    assert drawn.SECRET not in str(caught.value)
    (tmp_path / "picture.jpg").write_bytes(data)
    with pytest.raises(ValueError, match=r"picture\.jpg: ") as caught:
        read_picture(tmp_path / "picture.jpg", ImageOptions())
    assert drawn.SECRET not in str(caught.value)
    if data:
        try:
            _, problem = in_graph(data)
        except tf.errors.InvalidArgumentError:
            problem = True
        assert problem


def test_a_picture_that_cannot_be_read_leaves_the_others_of_its_batch():
    good = drawn.READ_BY_ALL["png rgba"][0]
    bad = [drawn.NO_PICTURES["PNG cut off"], drawn.NO_PICTURES["text"], drawn.BOMBS["png"]]
    spec = ImageSpec((24, 32), "stretch")
    read = tf.function(lambda encoded: read_images(encoded, spec), input_signature=[tf.TensorSpec([None], tf.string)])
    pixels, problems = read([bad[0], good, *bad[1:], b"", good])
    assert [PROBLEMS[problem][:26] for problem in problems.numpy()] == [
        *("the picture is damaged or ", "", "the picture is no JPEG, PN", "the picture has too many p", "", "")
    ]
    for place in (1, 5):
        _check_equal(pixels[place].numpy(), drawn.READ_BY_ALL["png rgba"][1])
    assert not pixels.numpy()[[0, 2, 3, 4]].any()
    assert read(bad[2:])[1].numpy().tolist() == [TOO_LARGE]
    photo = drawn.READ_BY_ALL["jpeg rgb"][0]
    for cut in (bad[0], photo[:-2], photo[: len(photo) // 2], photo[:3], b"\xff"):  # alone, the call does not fail either
        assert read([cut])[1].numpy().tolist() != [0]
    assert read([photo])[1].numpy().tolist() == [0]
    assert read(tf.constant([], tf.string))[0].shape == (0, 24, 32, 3)
