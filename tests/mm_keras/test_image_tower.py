import keras
import numpy as np
import pytest

from mm_keras.features import ImageSpec
from mm_keras.model.image_tower import ARCHITECTURES, build_image_tower, build_small_cnn

MODULES = {
    "inception_v3": keras.applications.inception_v3,
    "mobilenet_v2": keras.applications.mobilenet_v2,
    "resnet50_v2": keras.applications.resnet_v2,
}
SMALL = ImageSpec((32, 32))


def _pictures(size, number=2):
    return np.random.default_rng(0).uniform(0, 255, (number, *size, 3)).astype("float32")


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_tower_prepares_pixels_as_its_architecture_expects(architecture):
    size = (ARCHITECTURES[architecture].min_size,) * 2
    tower = build_image_tower(ImageSpec(size), architecture, weights=None)
    pictures = _pictures(size)
    prepared = MODULES[architecture].preprocess_input(pictures.copy())
    expected = tower.get_layer(architecture)(prepared, training=False)
    np.testing.assert_allclose(
        tower(pictures, training=False), np.mean(expected, axis=(1, 2)), rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    )
    scaled = tower.get_layer("rescale")(np.float32([[[[0, 127.5, 255]]]]))
    np.testing.assert_allclose(scaled, [[[[-1, 0, 1]]]], atol=1e-6)


def test_tower_takes_pictures_of_its_size_alone():
    tower = build_image_tower(ImageSpec((32, 48)), "mobilenet_v2", weights=None)
    assert (tower.name, tower.input.name) == ("image_tower", "image")
    assert tower.input.shape == (None, 32, 48, 3)
    assert tower.output.shape == (None, 1280)
    assert tower(_pictures((32, 48), number=1)).shape == (1, 1280)


@pytest.fixture(scope="module")
def count_trainable():
    """A function: freeze_fraction -> the numbers of trainable and of expected trainable weights."""

    def count(fraction):
        tower = build_image_tower(SMALL, "mobilenet_v2", None, fraction)
        layers = tower.get_layer("mobilenet_v2").layers
        trained = layers[round(fraction * len(layers)) :]
        return len(tower.trainable_weights), sum(len(layer.trainable_weights) for layer in trained)

    return count


def test_freezing_freezes_the_first_layers(count_trainable):
    none, half, all_of_it = (count_trainable(fraction) for fraction in (0, 0.5, 1))
    assert none[0] == none[1]
    assert half[0] == half[1]
    assert all_of_it == (0, 0)
    assert 0 < half[0] < none[0]


def test_training_moves_no_frozen_weight_and_no_frozen_statistic():
    tower = build_image_tower(SMALL, "mobilenet_v2", None, 0.5)
    layers = tower.get_layer("mobilenet_v2").layers
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = {norm.name: np.asarray(norm.moving_mean).copy() for norm in norms}
    model = keras.Sequential([tower, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.train_on_batch(_pictures(SMALL.size, 4), np.zeros((4, 1)))
    for norm in norms:
        moved = not np.array_equal(norm.moving_mean, before[norm.name])
        assert moved == (layers.index(norm) >= round(0.5 * len(layers)))


def test_frozen_tower_sees_the_same_in_training():
    tower = build_image_tower(SMALL, "mobilenet_v2", None, 1)
    pictures = _pictures(SMALL.size)
    np.testing.assert_array_equal(tower(pictures, training=True), tower(pictures, training=False))


def test_unknown_architecture_is_an_error():
    with pytest.raises(ValueError, match=r"\['inception_v3', 'mobilenet_v2', 'resnet50_v2'\]. Received: 'vgg16'"):
        build_image_tower(SMALL, "vgg16", None)


@pytest.mark.parametrize("fraction", [-0.1, 1.1])
def test_fraction_out_of_range_is_an_error(fraction):
    with pytest.raises(ValueError, match=rf"within \[0, 1\]. Received: {fraction}"):
        build_image_tower(SMALL, "mobilenet_v2", None, fraction)


def test_image_that_is_too_small_is_an_error():
    with pytest.raises(ValueError, match=r"inception_v3 needs images of at least 75 pixels a side. Received: \(80, 74\)"):
        build_image_tower(ImageSpec((80, 74)), "inception_v3", None)


@pytest.mark.parametrize("size", [(32, 32), (30, 45)])
def test_small_cnn_learns_from_pixels_of_any_size(size):
    tower = build_small_cnn(ImageSpec(size), widths=(4, 6))
    assert (tower.name, tower.output.shape) == ("image_tower", (None, 6))
    assert tower.trainable_weights
    np.testing.assert_allclose(tower.get_layer("rescale")(np.float32([0, 127.5, 255])), [-1, 0, 1], atol=1e-6)
    assert np.isfinite(tower(_pictures(size, number=1))).all()


def test_small_cnn_too_deep_for_its_pictures_is_an_error():
    with pytest.raises(ValueError, match=r"6 blocks need images of at least 64 pixels a side\. Received: \(63, 80\)"):
        build_small_cnn(ImageSpec((63, 80)), widths=(4,) * 6)
