import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mm_keras.data.preprocess import Preprocessor
from mm_keras.features import FeatureSpec, TokenizerSpec, TokenText


@pytest.fixture(scope="module")
def spec(make_spec):
    return make_spec(image=(16, 24), fields=("title", "title_2"))


@pytest.fixture(scope="module")
def raw(encode_image):
    blue = encode_image(Image.new("RGB", (50, 40), "blue"), "PNG")
    return {
        "image": tf.constant([blue, b"", encode_image(Image.new("L", (30, 60), 7), "PNG")]),
        "title": tf.constant(["The oak mug\u00a0", "", " \n\u3000\u2003"]),
        "title_2": tf.constant(["", "blue", "?"]),
    }


@pytest.fixture(scope="module")
def made(spec, raw):
    return Preprocessor(spec).raw(raw)


def test_raw_examples_become_all_features(spec, made):
    assert {name: (tensor.shape[1:], tensor.dtype.name) for name, tensor in made.items()} == spec.inputs()
    assert made["title_token_ids"].numpy().tolist() == [[6, 2, 4, 0, 0, 0], [0] * 6, [0] * 6]
    assert made["title_2_token_ids"].numpy().tolist() == [[0] * 6, [5, 0, 0, 0, 0, 0], [0] * 6]


def test_missing_image_is_zeros_and_not_present(made):
    assert made["image_present"].numpy().tolist() == [True, False, True]
    np.testing.assert_array_equal(made["image"][1], np.zeros((16, 24, 3)))
    np.testing.assert_allclose(made["image"][0], np.broadcast_to(np.float32([0, 0, 255]), (16, 24, 3)), atol=1e-3)
    np.testing.assert_allclose(made["image"][2], np.full((16, 24, 3), 7), atol=1e-3)


def test_blank_text_is_missing(made):
    assert made["title_present"].numpy().tolist() == [True, False, False]
    assert made["title_padding_mask"].numpy().sum(axis=1).tolist() == [3, 0, 0]


@pytest.mark.ci
def test_graph_of_any_batch_size_makes_the_same(spec, raw, made):
    preprocessor = Preprocessor(spec)
    signature = {name: tf.TensorSpec([None], tf.string) for name in raw}
    graph = tf.function(preprocessor.raw).get_concrete_function(signature)
    found = graph(raw)
    assert {name: (tensor.shape[1:], tensor.dtype.name) for name, tensor in found.items()} == spec.inputs()
    for name, expected in made.items():
        np.testing.assert_array_equal(found[name], expected)


def test_fields_may_have_tokenizers_and_lengths_of_their_own():
    first, second = (TokenizerSpec("words", ("[PAD]", "[UNK]", word)) for word in ("oak", "mug"))
    texts = (TokenText("a", first, 3), TokenText("b", second, 4))
    made = Preprocessor(FeatureSpec(None, texts, ("x", "y"), False)).texts({name: tf.constant(["mug oak"]) for name in "ab"})
    assert made["a_token_ids"].numpy().tolist() == [[1, 2, 0]]
    assert made["b_token_ids"].numpy().tolist() == [[2, 1, 0, 0]]
