import re
from pathlib import Path

import keras
import numpy as np
import pytest

import mm_keras
from mm_keras.features import ImageSpec
from mm_keras.model.image_tower import build_image_tower
from mm_keras.model.weights import load_weights

SMALL = ImageSpec((32, 32))


def _model(*widths, name="net"):
    layers = [keras.layers.Dense(width, name=f"dense_{index}") for index, width in enumerate(widths)]
    return keras.Sequential([keras.Input((3,)), *layers], name=name)


@pytest.fixture
def weights_file(tmp_path):
    model = _model(4, 2)
    path = tmp_path / "net.weights.h5"
    model.save_weights(path)
    return str(path), model


def test_saved_weights_load(weights_file):
    path, model = weights_file
    other = _model(4, 2)
    load_weights(other, path)
    for found, expected in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_tower_takes_the_weights_of_its_architecture_at_another_size(tmp_path):
    backbone = build_image_tower(SMALL, "mobilenet_v2", None).get_layer("mobilenet_v2")
    backbone.save_weights(tmp_path / "mobilenet.weights.h5")
    tower = build_image_tower(ImageSpec((40, 48)), "mobilenet_v2", str(tmp_path / "mobilenet.weights.h5"), 1)
    for found, expected in zip(tower.get_layer("mobilenet_v2").get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert tower.trainable_weights == []
    with pytest.raises(ValueError, match=re.escape("mobilenet.weights.h5 does not fit 'resnet50_v2' (")):
        build_image_tower(SMALL, "resnet50_v2", str(tmp_path / "mobilenet.weights.h5"))


@pytest.mark.parametrize("widths", [(4, 3), (4,), (4, 2, 2), (5, 2)])
def test_weights_of_another_model_are_an_error_that_names_both(weights_file, widths):
    path, _ = weights_file
    other = _model(*widths, name="other")
    count = len(other.weights)
    with pytest.raises(ValueError, match=rf"net.weights.h5 does not fit 'other' \({count} weights; the file holds 4 arrays\)"):
        load_weights(other, path)


@pytest.mark.parametrize("widths", [(4, 3), (4,), (4, 2, 2), (5, 2)])
def test_weights_of_another_model_change_nothing(weights_file, widths):
    path, _ = weights_file
    other = _model(*widths)
    before = other.get_weights()
    with pytest.raises(ValueError, match="does not fit"):
        load_weights(other, path)
    for found, expected in zip(other.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_file_of_a_compiled_model_loads_too(tmp_path):
    model = _model(4, 2)
    model.compile("adam", "mse")
    model.train_on_batch(np.zeros((2, 3)), np.zeros((2, 2)))
    model.save_weights(tmp_path / "trained.weights.h5")
    other = _model(4, 2)
    load_weights(other, str(tmp_path / "trained.weights.h5"))
    np.testing.assert_array_equal(other.get_weights()[0], model.get_weights()[0])


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.weights.h5 does not exist"):
        load_weights(_model(2), str(tmp_path / "none.weights.h5"))


def test_file_of_another_format_is_an_error(tmp_path, weights_file):
    text = tmp_path / "text.weights.h5"
    text.write_text("no weights")
    renamed = tmp_path / "net.h5"
    renamed.write_bytes((tmp_path / "net.weights.h5").read_bytes())
    for path in (text, renamed):
        with pytest.raises(ValueError, match=rf"a Keras .weights.h5 file. Received: .*{path.name}"):
            load_weights(_model(4, 2), str(path))


IMAGENET = Path(mm_keras.__file__).parents[2] / "shared" / "weights" / "mobilenet_v2_224_imagenet_notop.weights.h5"


@pytest.mark.skipif(not IMAGENET.is_file(), reason="needs ImageNet weights of MobileNetV2 beside the repository")
def test_real_imagenet_weights_fit_their_tower():
    tower = build_image_tower(ImageSpec((96, 96)), "mobilenet_v2", str(IMAGENET), 1)
    pictures = np.random.default_rng(0).uniform(0, 255, (2, 96, 96, 3)).astype("float32")
    pictures[1] = 128
    embeddings = np.asarray(tower(pictures))
    assert 0 <= embeddings.min() < embeddings.max() <= 6  # what ReLU6 gives
    assert not np.allclose(*embeddings, atol=0.1)
    with pytest.raises(ValueError, match="does not fit 'inception_v3'"):
        build_image_tower(ImageSpec((96, 96)), "inception_v3", str(IMAGENET))
