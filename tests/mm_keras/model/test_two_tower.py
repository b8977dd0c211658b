import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from mm_keras.features import present
from mm_keras.model.fusion import build_bilinear_fusion, build_gated_fusion
from mm_keras.model.image_tower import build_small_cnn
from mm_keras.model.lexical_encoder import build_lexical_encoder
from mm_keras.model.split_at_embeddings import build_embedder, build_fusion_of_encoded, split_at_embeddings
from mm_keras.model.text_encoder import build_small_text_encoder
from mm_keras.model.transformer_encoder import build_transformer_encoder
from mm_keras.model.two_tower import build_two_tower
from mm_keras.model.two_tower_parts import TwoTowerParts, part_name
from mm_keras.objectives.losses import make_loss

VARIANTS = {
    "all": ((16, 16), ("title", "title_2")),
    "image": ((16, 16), ()),
    "title": (None, ("title",)),
    "texts": (None, ("title", "description")),
    "odd names": ((16, 16), ("product name", "größe")),
}


@pytest.fixture(scope="module", params=VARIANTS)
def built(request, make_spec, build_small_model):
    """(features, model) of some modalities."""
    spec = make_spec(*VARIANTS[request.param])
    return spec, build_small_model(spec)


FUSIONS = {
    "concatenation": {},
    "gated": {"fusion": functools.partial(build_gated_fusion, width=8)},
    "bilinear and words": {
        "fusion": functools.partial(build_bilinear_fusion, width=8),
        "lexical_encoder": build_lexical_encoder,
    },
}


@pytest.fixture(scope="module", params=FUSIONS)
def whole(request, make_spec, build_small_model):
    """(features, model) with an image and two fields; no random number is left at zero or one."""
    features = make_spec(*VARIANTS["all"])
    model = build_small_model(features, **FUSIONS[request.param])
    rng = np.random.default_rng(0)
    for modality in features.modalities:
        missing = model.get_layer(f"{modality}_missing").missing
        missing.assign(rng.normal(size=missing.shape))
    return features, model


def _parts(model):
    return {layer.name for layer in model.layers if isinstance(layer, keras.Model)}


def test_model_is_built_for_any_modalities(built, make_inputs):
    spec, model = built
    assert model.name == "two_tower"
    assert set(model.input) == set(spec.inputs())
    logits = model(make_inputs(spec))
    assert logits.shape == (5, 4)
    assert np.isfinite(logits).all()
    assert model(make_inputs(spec, batch_size=1)).shape == (1, 4)


def test_parts_keep_their_names(make_spec, build_small_model):
    features = make_spec(*VARIANTS["all"])
    shared = {"image_tower", "text_encoder", "title_tuning", "title_2_tuning", "fusion", "head"}
    assert _parts(build_small_model(features)) == shared
    own = build_small_model(features, share_text_encoder=False, tune_image=True)
    assert _parts(own) == shared - {"text_encoder"} | {"title_encoder", "title_2_encoder", "image_tuning"}


def test_shared_text_encoder_is_one_and_own_ones_are_two(make_spec, build_small_model):
    features = make_spec(None, ("title", "title_2"))
    shared, own = (build_small_model(features, share_text_encoder=share) for share in (True, False))
    encoder = shared.get_layer("text_encoder").count_params()
    assert own.count_params() - shared.count_params() == encoder


def _ask_split(model, features, inputs):
    """The logits of a model that was split and is asked in two steps."""
    encoders, fusion_and_head = split_at_embeddings(model, features.modalities)
    embeddings = encoders(inputs)
    names = {part_name(modality, "embedding") for modality in features.modalities}
    assert {name for name in embeddings if name.endswith("_embedding")} == names
    assert all(value.shape[-1] < 1000 for value in embeddings.values())  # no bags of words: a split's have to fit in memory
    flags = {name: ops.convert_to_tensor(value) for name, value in inputs.items() if name.endswith("_present")}
    return fusion_and_head({name: ops.cast(value, "float32") for name, value in embeddings.items()} | flags)


def _changed(model, inputs, other):
    """Per example, whether its logits change with the inputs."""
    return np.any(np.asarray(model(inputs)) != np.asarray(model(other)), axis=1)


@pytest.mark.parametrize("modality", ["image", "title", "title_2"])
def test_logits_depend_on_a_modality_where_it_is_present_alone(whole, make_inputs, modality):
    features, model = whole
    inputs = make_inputs(features, batch_size=6)
    inputs[f"{modality}_present"] = np.array([True, False] * 3)
    other = make_inputs(features, batch_size=6, seed=1)
    changed = {name: value for name, value in other.items() if name == modality or name.startswith(f"{modality}_")}
    changed.pop(f"{modality}_present")
    if modality == "title":
        changed = {name: value for name, value in changed.items() if not name.startswith("title_2")}
    assert _changed(model, inputs, inputs | changed).tolist() == [True, False] * 3


def test_everything_missing_is_one_constant(whole, make_inputs):
    features, model = whole
    none = {f"{modality}_present": np.zeros(5, bool) for modality in features.modalities}
    logits = np.asarray(model(make_inputs(features) | none))
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(logits, np.broadcast_to(logits[0], logits.shape), atol=1e-6)


def test_whole_model_survives_saving_and_loading(tmp_path, whole, make_inputs):
    features, model = whole
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(make_inputs(features)), model(make_inputs(features)))
    np.testing.assert_allclose(_ask_split(loaded, features, make_inputs(features)), model(make_inputs(features)), atol=1e-6)


def test_missing_embedding_learns_where_its_modality_is_missing(whole, make_inputs):
    import tensorflow as tf

    features, model = whole
    inputs = make_inputs(features) | {"title_present": np.array([True, True, False, True, True])}
    with tf.GradientTape() as tape:
        loss = make_loss(False)(np.zeros(5, "int32"), model(inputs))
    missing = [model.get_layer(f"{modality}_missing").missing.value for modality in features.modalities]
    image, title, title_2 = tape.gradient(loss, missing)
    assert np.abs(title).max() > 0
    assert np.abs(image).max() == np.abs(title_2).max() == 0


def test_training_hides_modalities_and_inference_does_not(make_spec, build_small_model, make_inputs):
    features = make_spec(None, ("title", "title_2"))
    inputs = make_inputs(features, batch_size=64)
    tuning = lambda width, name: keras.Sequential([keras.Input((width,)), keras.layers.Identity()], name=name)  # noqa: E731
    head = lambda width, num_labels: keras.Sequential([keras.Input((width,)), keras.layers.Dense(num_labels)], name="head")  # noqa: E731
    for rate, hides in ((0.5, True), (0.0, False)):  # without any other dropout
        model = build_small_model(features, tuning_dnn=tuning, head=head, modality_dropout=rate)
        differs = np.any(np.asarray(model(inputs, training=True)) != np.asarray(model(inputs, training=False)), axis=1)
        assert differs.any() == hides
        assert not differs.all()


def test_fusion_of_encoded_is_what_the_embedder_calls_fused(built, make_inputs):
    features, model = built
    inputs = make_inputs(features)
    fuse = build_fusion_of_encoded(model, features)
    parts = TwoTowerParts(model.layers)
    encoders = keras.Model(model.input, {name: parts.encoded(name).output for name in features.modalities})
    given = {part_name(name, "encoded"): np.asarray(value) for name, value in encoders(inputs).items()}
    given |= {name: inputs[name] for name in fuse.input if name in inputs}
    expected = build_embedder(model, features.modalities)(inputs)["fused"]
    np.testing.assert_allclose(fuse(given), expected, atol=1e-5)


def test_split_at_embeddings_is_the_whole_model(built, make_inputs):
    spec, model = built
    inputs = make_inputs(spec)
    for index, modality in enumerate(spec.modalities):
        inputs[present(modality)] = np.arange(5) != index
    np.testing.assert_allclose(_ask_split(model, spec, inputs), model(inputs), atol=1e-6)


def test_model_can_be_split_twice(whole, make_inputs):
    features, model = whole
    for _ in range(2):
        np.testing.assert_allclose(_ask_split(model, features, make_inputs(features)), model(make_inputs(features)), atol=1e-6)


def test_embeddings_do_not_depend_on_presence(whole, make_inputs):
    features, model = whole
    encoders, _ = split_at_embeddings(model, features.modalities)
    inputs = make_inputs(features)
    none = {f"{modality}_present": np.zeros(5, bool) for modality in features.modalities}
    for one, other in zip(encoders(inputs).values(), encoders(inputs | none).values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_model_survives_saving_and_loading(tmp_path, built, make_inputs):
    spec, model = built
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(make_inputs(spec)), model(make_inputs(spec)))
    assert _parts(loaded) == _parts(model)
    encoders, _ = split_at_embeddings(loaded, spec.modalities)
    assert set(encoders(make_inputs(spec))) == {part_name(modality, "embedding") for modality in spec.modalities}


def _train_one_step(model, features, inputs, jit_compile=False):
    """Names of the layers that a step changed; without XLA, as `train` does it."""
    labels = np.arange(len(inputs[next(iter(inputs))]), dtype="int32") % len(features.labels)
    model.compile(keras.optimizers.Adam(1e-2), make_loss(False), jit_compile=jit_compile)
    before = {layer.name: [np.array(weight) for weight in layer.trainable_weights] for layer in model.layers}
    assert np.isfinite(model.train_on_batch(inputs, labels))
    return {
        layer.name
        for layer in model.layers
        if any(not np.array_equal(*pair) for pair in zip(layer.trainable_weights, before[layer.name], strict=True))
    }


@pytest.mark.parametrize(
    ("fusion", "jit_compile"),
    [("bilinear and words", False), *(pytest.param(name, True, marks=pytest.mark.slow) for name in FUSIONS)],
)
def test_one_step_moves_every_part_compiled_by_xla_or_not(make_spec, build_small_model, make_inputs, fusion, jit_compile):
    """XLA needs static shapes, no strings and no host calls, as a TPU does; test_tpu.py compiles the usual model."""
    features = make_spec((16, 16), ("title", "description"))
    inputs = make_inputs(features, batch_size=8)
    for modality in features.modalities:
        inputs[f"{modality}_present"] = np.arange(8) % 3 > 0
    inputs["title_present"][:2] = True, False
    model = build_small_model(features, modality_dropout=0.0, **FUSIONS[fusion])
    moved = _train_one_step(model, features, inputs, jit_compile)
    parts = {"image_tower", "text_encoder", "title_tuning", "description_tuning", "title_missing", "fusion", "head"}
    assert {name for name in parts if model.get_layer(name).trainable_weights} <= moved


@pytest.fixture
def half_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def test_mixed_precision_trains_and_gives_float32_logits(half_precision, make_spec, build_small_model, make_inputs):
    features = make_spec((16, 16), ("title",))
    model = build_small_model(features)
    assert model.get_layer("image_tower").get_layer("conv_0").compute_dtype == "bfloat16"
    assert "image_tower" in _train_one_step(model, features, make_inputs(features, batch_size=8))
    logits = model(make_inputs(features))
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert np.isfinite(logits).all()


def test_mixed_precision_split_is_the_whole_model(half_precision, make_spec, build_small_model, make_inputs):
    features = make_spec((16, 16), ("title",))
    model = build_small_model(features)
    inputs = make_inputs(features)
    np.testing.assert_allclose(_ask_split(model, features, inputs), model(inputs), atol=0.02)


def test_frozen_bert_stays_as_it_was_while_the_rest_learns(tiny_bert, make_spec, make_inputs, build_small_model):
    from mm_keras.data.text import make_pretrained_tokenizer

    features = make_spec(None, ("title", "description"), tokenizer=make_pretrained_tokenizer([], tiny_bert))
    model = build_small_model(features, text_encoder=functools.partial(build_transformer_encoder, source=tiny_bert))
    encoder = model.get_layer("text_encoder")
    before = encoder.get_weights()
    assert {"title_tuning", "description_tuning", "head"} <= _train_one_step(model, features, make_inputs(features))
    for found, expected in zip(encoder.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_parts_of_ones_own_can_be_put_in(make_spec, make_inputs):
    features = make_spec((16, 16), ("title",))

    def fusion(shapes):
        inputs = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
        summed = keras.layers.Add()([keras.layers.Dense(7)(part) for part in inputs.values()])
        return keras.Model(inputs, summed, name="fusion")

    model = build_two_tower(
        features,
        image_tower=functools.partial(build_small_cnn, widths=(4,)),
        text_encoder=functools.partial(build_small_text_encoder, width=4),
        fusion=fusion,
    )
    assert model.get_layer("head").input.shape == (None, 7)
    assert model(make_inputs(features)).shape == (5, 4)


def test_words_stand_beside_the_embedding_of_each_field_that_has_tokens(make_spec, build_small_model, make_inputs):
    features = make_spec((16, 16), ("title", "description"))
    model = build_small_model(features, lexical_encoder=build_lexical_encoder, modality_dropout=0.0)
    inputs = make_inputs(features)
    before = np.asarray(model(inputs))
    fusion = model.get_layer("fusion")
    assert fusion.output.shape == (None, 8 + 2 * (8 + 7))  # the picture; each field's tuned embedding and its words
    kernel, bias = model.get_layer("head").get_layer("logits").get_weights()
    kernel[-7:] = 0  # of the description's words
    model.get_layer("head").get_layer("logits").set_weights([kernel, bias])
    assert np.abs(np.asarray(model(inputs)) - before).max() > 1e-3


def test_normalised_modalities_are_equally_loud(make_spec, build_small_model, make_inputs):
    features = make_spec()
    inputs = make_inputs(features)
    encoders, _ = split_at_embeddings(build_small_model(features), features.modalities)
    for embedding in encoders(inputs).values():
        np.testing.assert_allclose(np.sqrt(np.square(embedding).mean(axis=1)), np.ones(5), rtol=1e-3)
    plain, _ = split_at_embeddings(build_small_model(features, normalize=False), features.modalities)
    assert any(np.abs(np.sqrt(np.square(embedding).mean(axis=1)) - 1).max() > 0.1 for embedding in plain(inputs).values())


def test_missing_embedding_starts_with_a_gradient_like_the_others(make_spec, build_small_model, make_inputs):
    features = make_spec()
    model = build_small_model(features)
    inputs = make_inputs(features) | {"title_present": np.array([True, False] * 2 + [True])}
    with tf.GradientTape() as tape:
        loss = make_loss(False)(np.arange(5) % 4, model(inputs))
    weights = model.trainable_weights
    gradients = {weight.path: value for weight, value in zip(weights, tape.gradient(loss, weights), strict=True)}
    missing = next(value for path, value in gradients.items() if path.endswith("title_missing/missing"))
    logits = next(value for path, value in gradients.items() if path.endswith("logits/kernel"))
    assert 0 < float(tf.norm(missing)) < 10 * float(tf.norm(logits))
