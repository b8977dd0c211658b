"""Every kind of tower with every kind of encoder, fusion and head: one training step, saving and loading; export of a third."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from mm_keras.data.preprocess import Preprocessor
from mm_keras.data.text import make_pretrained_tokenizer
from mm_keras.features import FeatureSpec, ImageSpec, TokenizerSpec, TokenText, make_saved_model_text
from mm_keras.model.fusion import (
    build_bilinear_fusion,
    build_concatenation,
    build_cross_attention_fusion,
    build_gated_fusion,
)
from mm_keras.model.head import build_class_embedding_head, build_head, build_per_label_head
from mm_keras.model.image_tower import build_image_tower, build_small_cnn
from mm_keras.model.text_encoder import build_embedding_encoder, build_recurrent_encoder, build_small_text_encoder
from mm_keras.model.transformer_encoder import build_transformer_encoder
from mm_keras.model.tuning_dnn import build_tuning_dnn
from mm_keras.model.two_tower import build_two_tower
from mm_keras.model.vision_transformer import build_vision_transformer
from mm_keras.model.word_vector_encoder import build_word_vector_encoder
from mm_keras.runs.serving import ServingModule
from mm_keras.tf_text_model.embedder import make_saved_model_embedder
from mm_keras.tf_text_model.encoder import build_saved_model_encoder
from tests.mm_keras.drawn_towers import drawn_towers

WORDS = TokenizerSpec("words", ("[PAD]", "[UNK]", "oak", "steel", "mug", "blue", "the"))
LABELS = ("mug", "bottle", "table")
TEXTS = ["the blue mug", "steel", "", "oak mug oak"]


def _tiny_vit(spec: ImageSpec) -> keras.Model:
    pixels = keras.Input((*spec.size, 3), name="image")
    tower = build_vision_transformer((*spec.size, 3), "vit", "vit", patch=16, width=16, blocks=1, heads=2, mlp=32)
    return keras.Model(pixels, tower(keras.layers.Rescaling(1 / 127.5, -1)(pixels)), name="image_tower")


_PRETRAINED = {"architecture": "mobilenet_v2", "weights": None}
TOWERS = {
    "small CNN": functools.partial(build_small_cnn, widths=(8, 8)),
    "MobileNetV2, half frozen": functools.partial(build_image_tower, **_PRETRAINED),
    "MobileNetV2, frozen, places": functools.partial(build_image_tower, **_PRETRAINED, freeze_fraction=1.0, pooling="none"),
    "ViT": _tiny_vit,
}
ENCODERS = (
    "small",
    "LSTM",
    "GRU, both directions",
    "word vectors",
    "BERT, frozen, mean",
    "BERT, trained, first state",
    "BERT, frozen, states",
    "USE, frozen",
    "USE, trained",
)
# Of `train_small`, `bert_run` and webvision_use.gin; the GRU is a layer like the LSTM.
ENCODERS_OF_OTHER_TESTS = {"small", "GRU, both directions", "BERT, frozen, mean", "USE, frozen"}
FUSIONS = {
    "concatenation": build_concatenation,
    "gated": functools.partial(build_gated_fusion, width=8),
    "bilinear": functools.partial(build_bilinear_fusion, width=8, rank=2),
    "cross-attention": functools.partial(build_cross_attention_fusion, width=8, num_heads=2),
}
HEADS = {"dense": build_head, "a layer a label": build_per_label_head, "class embeddings": build_class_embedding_head}
SEQUENCES = {"MobileNetV2, frozen, places", "BERT, frozen, states"}


def _fits(tower, encoder, fusion, head) -> bool:
    return fusion == "cross-attention" or not SEQUENCES & {tower, encoder}


EVERY = [case for case in itertools.product(TOWERS, ENCODERS, FUSIONS, HEADS) if _fits(*case)]


def _is_served(tower, encoder, fusion, head) -> bool:
    """A third of them, in which every two parts meet: of parts that are left free, there is one that makes up the sum."""
    places = [
        list(parts).index(part) for parts, part in ((TOWERS, tower), (ENCODERS, encoder), (FUSIONS, fusion), (HEADS, head))
    ]
    return sum(places) % len(HEADS) == 0


# Each tower, encoder, fusion and head at least once.
SAMPLE = [
    ("small CNN", "small", "bilinear", "class embeddings"),
    ("MobileNetV2, half frozen", "LSTM", "concatenation", "a layer a label"),
    ("small CNN", "GRU, both directions", "gated", "dense"),
    ("ViT", "word vectors", "concatenation", "class embeddings"),
    ("ViT", "BERT, trained, first state", "bilinear", "a layer a label"),
    ("small CNN", "BERT, frozen, mean", "gated", "class embeddings"),
    ("MobileNetV2, frozen, places", "BERT, frozen, states", "cross-attention", "dense"),
    ("small CNN", "USE, frozen", "cross-attention", "a layer a label"),
    ("small CNN", "USE, trained", "gated", "dense"),
]
# What trainings and exports of other tests are made of is slow here.
MARKED = [
    pytest.param(case, id=" + ".join(case), marks=[pytest.mark.slow] * (case[1] in ENCODERS_OF_OTHER_TESTS)) for case in SAMPLE
]


@pytest.fixture(scope="module")
def make_encoder(tiny_bert, save_use, tmp_path_factory):
    """A function: name of an encoder -> (its TextSpec, what builds it)."""
    glove = tmp_path_factory.mktemp("vectors") / "glove.txt"
    glove.write_text("oak 1 0 2\nmug 0 1 1\nsteel 3 1 0\n")
    bert = {
        "mean": {"pooling": "mean"},
        "first state": {"pooling": "cls", "trainable": True},
        "states": {"pooling": "none"},
    }

    def make(name):
        if name.startswith("BERT"):
            tokenizer = make_pretrained_tokenizer([], source=tiny_bert)
            options = bert[name.split(", ")[-1]]
            return TokenText("title", tokenizer, 8), functools.partial(build_transformer_encoder, source=tiny_bert, **options)
        if name.startswith("USE"):
            trainable = name.endswith("trained")
            embedder = make_saved_model_embedder(save_use(), trainable=trainable)
            build = build_saved_model_encoder if trainable else build_embedding_encoder
            return make_saved_model_text("title", embedder), build
        builders = {
            "small": functools.partial(build_small_text_encoder, width=8),
            "LSTM": functools.partial(build_recurrent_encoder, embedding_width=8, width=4),
            "GRU, both directions": functools.partial(
                build_recurrent_encoder, cell="gru", embedding_width=8, width=4, num_layers=2, bidirectional=True
            ),
            "word vectors": functools.partial(build_word_vector_encoder, file=str(glove)),
        }
        return TokenText("title", WORDS, 8), builders[name]

    return functools.cache(make)


@pytest.fixture(scope="module")
def raw(encode_image):
    """Three pictures and an example without one; four titles, of which one is empty."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
    images = [*(encode_image(each) for each in pixels), b""]
    return {"image": tf.constant(images), "title": tf.constant(TEXTS)}


@pytest.fixture(scope="module")
def make_inputs(raw):
    """A function: features -> the model's inputs; labels do not enter, so that a text is prepared once for all heads."""
    prepared = {}

    def make(features: FeatureSpec) -> dict:
        if features.texts not in prepared:
            prepared[features.texts] = Preprocessor(features).raw(raw)
        return prepared[features.texts]

    return make


def _build(tower, encoder, fusion, head, make_encoder):
    text, build_encoder = make_encoder(encoder)
    features = FeatureSpec(ImageSpec((32, 32)), (text,), LABELS, multi_label=head == "a layer a label")
    classes = {"class_embeddings": np.eye(3, 5)} if head == "class embeddings" else {}
    model = build_two_tower(
        features,
        image_tower=TOWERS[tower],
        text_encoder=build_encoder,
        tuning_dnn=functools.partial(build_tuning_dnn, units=(8,)),
        fusion=FUSIONS[fusion],
        head=HEADS[head],
        **classes,
    )
    return features, model


def _train_step(model, features, inputs) -> float:
    if features.multi_label:
        labels, loss = np.eye(3, dtype="float32")[[0, 1, 2, 0]], keras.losses.BinaryCrossentropy(from_logits=True)
    else:
        labels, loss = np.array([0, 1, 2, 0]), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=False)
    return float(model.train_on_batch(inputs, labels))


def _check(case, make_encoder, raw, make_inputs, folder, serve=True):
    features, model = _build(*case, make_encoder)
    inputs = make_inputs(features)
    before = np.asarray(model(inputs))
    assert np.isfinite(_train_step(model, features, inputs))
    after = np.asarray(model(inputs))
    assert after.shape == (4, 3)
    assert np.abs(after - before).max() > 0
    model.save(folder / "model.keras")
    loaded = keras.models.load_model(folder / "model.keras", compile=False)
    np.testing.assert_allclose(loaded(inputs), after, atol=1e-5)
    if not serve:
        return
    module = ServingModule(loaded, features, answer_empty=True)
    tf.saved_model.save(module, str(folder / "export"), signatures=module.signature())
    served = tf.saved_model.load(str(folder / "export")).signatures["serving_default"](**raw)["scores"]
    np.testing.assert_allclose(served, tf.sigmoid(after) if features.multi_label else tf.nn.softmax(after), atol=1e-5)


@pytest.mark.ci
@pytest.mark.parametrize("case", MARKED)
def test_sampled_combination_trains_saves_loads_and_serves(case, make_encoder, raw, make_inputs, tmp_path):
    """With two convolutions in MobileNetV2's place, which the tests in bfloat16 and those of image towers build."""
    with drawn_towers():
        _check(case, make_encoder, raw, make_inputs, tmp_path)


def test_the_sample_has_every_part():
    quick = [case for case in SAMPLE if case[1] not in ENCODERS_OF_OTHER_TESTS]
    for index, parts in enumerate((TOWERS, ENCODERS, FUSIONS, HEADS)):
        assert {case[index] for case in SAMPLE} == set(parts)
        assert {case[index] for case in quick} == set(parts) - ENCODERS_OF_OTHER_TESTS


@pytest.mark.slow
@pytest.mark.parametrize("case", EVERY, ids=" + ".join)
def test_every_combination_trains_saves_and_loads_and_a_third_serves(case, make_encoder, raw, make_inputs, tmp_path):
    """With two convolutions in MobileNetV2's place, and without Grappler: what parts do together is asked here."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    with drawn_towers():
        _check(case, make_encoder, raw, make_inputs, tmp_path, serve=_is_served(*case))


def test_every_two_parts_are_served_together():
    served = [case for case in EVERY if _is_served(*case)]
    every, met = ({pair for case in cases for pair in itertools.combinations(case, 2)} for cases in (EVERY, served))
    assert met == every
    assert len(served) <= len(EVERY) / 2


@pytest.mark.ci
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=" + ".join(case), marks=[pytest.mark.slow] * (case != SAMPLE[4])) for case in SAMPLE],
)
def test_sampled_combination_trains_in_bfloat16_and_answers_in_float32(case, make_encoder, make_inputs, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        features, model = _build(*case, make_encoder)
        inputs = make_inputs(features)
        assert np.isfinite(_train_step(model, features, inputs))
        logits = np.asarray(model(inputs))
        assert (logits.dtype, np.isfinite(logits).all()) == (np.float32, True)
        model.save(tmp_path / "model.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(loaded(inputs), logits, atol=2e-2)
