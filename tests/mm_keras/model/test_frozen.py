import keras
import numpy as np
import pytest

from mm_keras.model.frozen import frozen_modalities, split_at_frozen
from mm_keras.model.image_tower import build_small_cnn
from mm_keras.model.lexical_encoder import build_lexical_encoder
from mm_keras.model.text_encoder import build_small_text_encoder


def _frozen(build, **options):
    def freeze(spec, **more):
        model = build(spec, **options, **more)
        model.trainable = False
        return model

    return freeze


FROZEN_IMAGE = {"image_tower": _frozen(build_small_cnn, widths=(8, 8))}
FROZEN_TEXT = {"text_encoder": _frozen(build_small_text_encoder, width=8)}
VARIANTS = {
    "everything": FROZEN_IMAGE | FROZEN_TEXT,
    "image": FROZEN_IMAGE,
    "texts": FROZEN_TEXT,
    "words are read": FROZEN_IMAGE | FROZEN_TEXT | {"lexical_encoder": build_lexical_encoder},
    "own encoders": FROZEN_TEXT | {"share_text_encoder": False, "normalize": False},
}
FIELDS = ("title", "description")


@pytest.fixture(scope="module", params=VARIANTS)
def cut(request, make_spec, build_small_model):
    """(name, features, model, encoders, trained part); a test may change weights, and none may rely on their values."""
    features = make_spec((16, 16), FIELDS)
    model = build_small_model(features, **VARIANTS[request.param])
    return request.param, features, model, *split_at_frozen(model, features, frozen_modalities(model, features))


def _given(encoders, trained, inputs):
    """What the trained part sees of the inputs."""
    seen = dict(inputs)
    for modality, encoder in encoders.items():
        if modality == "image":
            seen["image_encoded"] = seen["image_cut"] = np.asarray(encoder(inputs["image"]))
        else:
            parts = {name: inputs[f"{modality}_{name}"] for name in encoder.input}
            seen[f"{modality}_encoded"] = np.asarray(encoder(parts))
    return {name: seen[name] for name in trained.input}


def test_frozen_modalities_are_those_without_trained_weights(make_spec, build_small_model):
    features = make_spec((16, 16), FIELDS)
    for options, expected in (({}, ()), (FROZEN_IMAGE, ("image",)), (FROZEN_TEXT, FIELDS)):
        assert frozen_modalities(build_small_model(features, **options), features) == expected


def test_both_parts_one_after_the_other_are_the_model(cut, make_inputs):
    _, features, model, encoders, trained = cut
    inputs = make_inputs(features)
    inputs["title_present"] = np.array([True, False, True, True, False])
    given = _given(encoders, trained, inputs)
    np.testing.assert_allclose(trained(given), model(inputs), atol=1e-6)


def test_trained_part_sees_neither_pixels_nor_tokens_that_were_encoded(cut):
    name, _, _, encoders, trained = cut
    assert not any(encoder.trainable_weights for encoder in encoders.values())
    assert ("image" in trained.input) == (name in ("texts", "own encoders"))
    assert ("title_token_ids" in trained.input) == (name in ("image", "words are read"))


def test_training_a_part_trains_the_model_that_can_still_be_saved(cut, make_inputs, tmp_path):
    _, features, model, encoders, trained = cut
    inputs = make_inputs(features)
    before = np.asarray(model(inputs))
    given = _given(encoders, trained, inputs)
    trained.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    trained.train_on_batch(given, np.arange(5) % 4)
    after = np.asarray(model(inputs))
    assert np.abs(after - before).max() > 1e-4
    np.testing.assert_allclose(trained(given), after, atol=1e-6)
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "model.keras")(inputs), after, atol=1e-6)


def _auxiliary(features, model, weight=0.5):
    _, trained = split_at_frozen(model, features, auxiliary_weight=weight)
    trained.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), weighted_metrics=["accuracy"], jit_compile=False
    )
    return trained


def test_auxiliary_heads_add_the_loss_of_each_modality_over_the_examples_that_have_it(
    make_spec, build_small_model, make_inputs
):
    features = make_spec((16, 16), ("title",))
    trained = _auxiliary(features, build_small_model(features, modality_dropout=0.0))
    inputs, labels = make_inputs(features), np.arange(5) % 4
    inputs["title_present"] = np.array([True, False, True, True, False])
    weights = np.array([1, 2, 0.5, 1, 1], "float32")
    outputs = {name: np.asarray(value) for name, value in trained(inputs).items()}
    assert set(outputs) == {"logits", "image_auxiliary", "title_auxiliary"}
    each = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
    main, image, title = (np.asarray(each(labels, outputs[name])) for name in ("logits", "image_auxiliary", "title_auxiliary"))
    expected = np.mean(weights * (main + 0.5 * image + 0.5 * title * inputs["title_present"]))
    loss = trained.compute_loss(inputs, labels, trained(inputs), weights)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    evaluated = trained.evaluate(inputs, labels, sample_weight=weights, verbose=0, return_dict=True)
    np.testing.assert_allclose(evaluated["loss"], np.mean(weights * main), rtol=1e-5)
    right = outputs["logits"].argmax(axis=1) == labels
    np.testing.assert_allclose(evaluated["accuracy"], np.sum(right * weights) / weights.sum(), rtol=1e-5)


def test_auxiliary_heads_teach_a_tower_that_the_fusion_ignores(make_spec, build_small_model, make_inputs):
    features = make_spec((16, 16), ("title",))
    for weight, changes in ((0.5, True), (0.0, False)):
        model = build_small_model(features, modality_dropout=0.0, normalize=False)
        kernel, bias = model.get_layer("head").get_layer("logits").get_weights()
        width = model.get_layer("image_tower").output.shape[-1]
        kernel[:width] = 0  # the embedding of the image comes first
        model.get_layer("head").get_layer("logits").set_weights([kernel, bias])
        model.get_layer("head").trainable = False
        tower = model.get_layer("image_tower")
        before = [np.array(kernel) for kernel in tower.trainable_weights]
        _auxiliary(features, model, weight).train_on_batch(make_inputs(features), np.arange(5) % 4)
        moved = [np.abs(was - np.array(now)).max() for was, now in zip(before, tower.trainable_weights, strict=True)]
        assert (max(moved) > 0) == changes


def test_model_is_saved_without_its_auxiliary_heads(make_spec, build_small_model, make_inputs, tmp_path):
    features = make_spec((16, 16), ("title",))
    model = build_small_model(features)
    _auxiliary(features, model).fit(make_inputs(features), np.arange(5) % 4, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert not [layer.name for layer in loaded.layers if "auxiliary" in layer.name]
    np.testing.assert_allclose(loaded(make_inputs(features)), model(make_inputs(features)), atol=1e-6)


def test_negative_auxiliary_weight_is_refused(make_spec, build_small_model):
    features = make_spec((16, 16), ("title",))
    with pytest.raises(ValueError, match="auxiliary_weight must be at least 0"):
        split_at_frozen(build_small_model(features), features, auxiliary_weight=-1)
