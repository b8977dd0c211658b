import keras
import numpy as np
import pytest

from mm_keras.model.folding import fold_frozen

RNG = np.random.default_rng(0)


def _norm(name, **options):
    return keras.layers.BatchNormalization(name=name, **options)


def _draw_weights(model):
    for weight in model.weights:
        low = 0.5 if "variance" in weight.name or "gamma" in weight.name else -1.0
        weight.assign(RNG.uniform(low, 1.5, weight.shape))
    model.trainable = False
    return model


def _draw(*layers):
    image = keras.Input((8, 8, 3), name="image")
    x = image
    for layer in layers:
        x = layer(x)
    return _draw_weights(keras.Model(image, x, name="drawn"))


def _layers(model):
    return [layer.name for layer in model.layers if layer.weights]


def _same(model, folded):
    pixels = RNG.normal(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(np.asarray(folded(pixels)), np.asarray(model(pixels)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(  # a frozen layer is the same in training
        np.asarray(folded(pixels, training=True)), np.asarray(model(pixels, training=True)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    "convolution",
    [
        keras.layers.Conv2D(4, 3, use_bias=False, name="conv"),
        keras.layers.Conv2D(4, 3, strides=2, padding="same", name="conv"),
        keras.layers.Conv2D(6, 3, groups=3, name="conv"),
        keras.layers.DepthwiseConv2D(3, use_bias=False, name="conv"),
        keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="conv"),
    ],
    ids=["plain", "with a bias", "grouped", "depthwise", "of several channels each"],
)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"epsilon": 0.1}], ids=str)
def test_convolution_and_normalisation_become_one(convolution, options):
    convolution = type(convolution).from_config(convolution.get_config())
    model = _draw(convolution, _norm("norm", **options), keras.layers.ReLU(6.0, name="relu"))
    folded = fold_frozen(model)
    assert _layers(folded) == ["conv"]
    assert folded.name == model.name
    assert not folded.trainable_weights
    _same(model, folded)


@pytest.mark.parametrize(
    ("padding", "strides", "is_left_out"),
    [(((0, 1), (0, 1)), 2, True), (1, 2, False), (1, 1, True), (2, 1, False), (((1, 1), (0, 1)), (1, 2), True)],
)
def test_padding_that_the_convolution_can_do_itself_is_left_out(padding, strides, is_left_out):
    convolution = keras.layers.Conv2D(4, 3, strides=strides, name="conv")
    model = _draw(keras.layers.ZeroPadding2D(padding, name="pad"), convolution, _norm("norm"))
    folded = fold_frozen(model)
    assert ("pad" not in [layer.name for layer in folded.layers]) == is_left_out
    _same(model, folded)


def test_what_is_not_foldable_stays():
    image = keras.Input((8, 8, 3))
    read_twice = keras.layers.Conv2D(3, 1, name="read_twice")(image)
    x = keras.layers.Add()([_norm("of_read_twice")(read_twice), read_twice])
    x = keras.layers.Conv2D(3, 1, activation="relu", name="with_activation")(x)
    x = _norm("behind_activation")(x)
    x = _norm("behind_norm")(x)
    x = _norm("folded")(keras.layers.Conv2D(3, 1, name="conv")(x))
    model = _draw_weights(keras.Model(image, x))
    folded = fold_frozen(model)
    assert set(_layers(model)) - set(_layers(folded)) == {"folded"}
    _same(model, folded)


def test_layers_that_are_trained_stay_trained_and_as_they_are():
    model = _draw(
        *(keras.layers.Conv2D(3, 1, name="first"), _norm("norm")),
        *(keras.layers.Conv2D(3, 1, name="second"), _norm("trained_norm")),
        *(keras.layers.Conv2D(3, 1, name="trained"), _norm("frozen_norm")),
    )
    model.trainable = True
    for name in ("first", "norm", "second", "frozen_norm"):
        model.get_layer(name).trainable = False
    folded = fold_frozen(model)
    assert _layers(folded) == ["first", "second", "trained_norm", "trained", "frozen_norm"]
    assert [weight.path for weight in folded.trainable_weights] == [weight.path for weight in model.trainable_weights]


def test_nothing_to_fold_gives_the_model_itself():
    model = _draw(keras.layers.Conv2D(3, 1, name="conv"))
    assert fold_frozen(model) is model


@pytest.mark.slow
def test_a_pretrained_architecture_answers_the_same():
    model = _draw_weights(
        keras.applications.MobileNetV2(input_shape=(64, 64, 3), include_top=False, weights=None, pooling="avg")
    )
    folded = fold_frozen(model)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers)
    pixels = RNG.normal(size=(2, 64, 64, 3)).astype("float32")
    expected = np.asarray(model(pixels))
    np.testing.assert_allclose(np.asarray(folded(pixels)), expected, atol=1e-4 * np.abs(expected).max())
