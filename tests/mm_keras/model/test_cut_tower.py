import keras
import numpy as np
import pytest

from mm_keras.features import ImageSpec
from mm_keras.model.cut_tower import cut_tower, multiply_adds
from mm_keras.model.image_tower import build_image_tower, build_small_cnn

PIXELS = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")


@pytest.mark.parametrize(
    ("architecture", "frozen_up_to", "cut_at"),
    [
        ("mobilenet_v2", "block_5_add", "block_5_add"),
        ("mobilenet_v2", "block_5_project", "block_4_add"),  # block 5's shortcut goes around all of its layers
        ("resnet34", "layer2_3_out", "layer2_3_out"),
    ],
)
def test_tower_is_cut_where_everything_passes_through(architecture, frozen_up_to, cut_at):
    tower = build_image_tower(ImageSpec((64, 64)), architecture, weights=None, freeze_fraction=0.0)
    backbone = next(layer for layer in tower.layers if isinstance(layer, keras.Model))
    names = [layer.name for layer in backbone.layers]
    for layer in backbone.layers[: names.index(frozen_up_to) + 1]:
        layer.trainable = False
    frozen_part, rest = cut_tower(tower)
    np.testing.assert_allclose(rest(frozen_part(PIXELS)), tower(PIXELS), atol=1e-5)
    assert frozen_part.layers[-1].layers[-1].name == cut_at
    assert not frozen_part.trainable_weights
    assert {id(weight) for weight in rest.trainable_weights} == {id(weight) for weight in tower.trainable_weights}
    assert rest.name == "image_tower"


def test_training_what_is_behind_the_cut_trains_the_tower_and_leaves_the_frozen_part():
    tower = build_small_cnn(ImageSpec((16, 16)), widths=(4, 4))
    for name in ("conv_0", "norm_0"):
        tower.get_layer(name).trainable = False
    frozen_part, rest = cut_tower(tower)
    pixels = PIXELS[:, :16, :16]
    activations = np.asarray(frozen_part(pixels))
    before = np.asarray(tower(pixels))
    rest.compile("sgd", "mse", jit_compile=False)
    rest.train_on_batch(activations, before + 1)
    after = np.asarray(tower(pixels))
    assert np.abs(after - before).max() > 1e-4
    np.testing.assert_allclose(rest(activations), after, atol=1e-6)
    np.testing.assert_array_equal(frozen_part(pixels), activations)


def test_what_draws_at_random_or_counts_is_not_cut_off():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, name="conv", trainable=False)(inputs)
    dropped = keras.layers.Dropout(0.5)(x)
    tower = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(dropped))
    assert cut_tower(tower)[0].layers[-1].name == "conv"


def test_tower_without_a_frozen_beginning_is_not_cut():
    tower = build_small_cnn(ImageSpec((16, 16)), widths=(4, 4))
    assert cut_tower(tower) is None
    tower.get_layer("conv_1").trainable = False
    assert cut_tower(tower) is None


def test_multiply_adds_are_those_of_convolutions_and_dense_layers():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(5, 3, padding="same", strides=2)(inputs)
    inner = keras.Model(inputs, keras.layers.BatchNormalization()(x))
    outer = keras.Input((8, 8, 3))
    model = keras.Model(outer, keras.layers.Dense(7)(keras.layers.GlobalAveragePooling2D()(inner(outer))))
    assert multiply_adds(model) == 4 * 4 * 3 * 3 * 3 * 5 + 5 * 7
