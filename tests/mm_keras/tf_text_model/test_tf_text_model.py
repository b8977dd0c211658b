import dataclasses
import functools
import shutil
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from mm_keras.data.make_features import make_features
from mm_keras.data.pipeline import make_evaluation_batches
from mm_keras.data.preprocess import Preprocessor
from mm_keras.features import (
    EmbeddedText,
    EmbedderSpec,
    FeatureSpec,
    StringText,
    TokenizerSpec,
    TokenText,
    make_saved_model_text,
)
from mm_keras.model.text_encoder import build_embedding_encoder, build_small_text_encoder
from mm_keras.model.two_tower import build_two_tower
from mm_keras.runs.evaluate import evaluate
from mm_keras.runs.export import export
from mm_keras.tf_text_model.embedder import SavedModelEmbedder, make_saved_model_embedder
from mm_keras.tf_text_model.encoder import build_saved_model_encoder
from tfrecords_tools.dataset.folder import Split

WORDS = TokenizerSpec("words", ("[PAD]", "[UNK]", "mug"))
TEXTS = ["Oak mug", "steel", "oak mug"]


def _features(embedder):
    return FeatureSpec(None, (make_saved_model_text("title", embedder),), ("a", "b"), False)


@pytest.fixture(scope="module")
def use(save_use):
    return make_saved_model_embedder(save_use())


@pytest.mark.parametrize("signature", [None, "serving_default", "default"])
def test_models_are_called_themselves_or_by_a_known_signature(save_use, use, signature):
    spec = make_saved_model_embedder(save_use(signature=signature))
    assert spec.width == 8
    found = SavedModelEmbedder(spec.path)(tf.constant(TEXTS)).numpy()
    np.testing.assert_array_equal(found, tf.saved_model.load(use.path)(tf.constant(TEXTS)))
    np.testing.assert_array_equal(found[0], found[2])
    assert not np.allclose(found[0], found[1])


@pytest.mark.parametrize(
    ("make_outputs", "message"),
    [
        (lambda each: {"outputs": each, "other": each + 1}, None),
        (lambda each: {"vectors": each}, None),
        (lambda each: {"one": each, "two": each}, r"outputs \['one', 'two'\]; known are one output, or one named of"),
        (lambda each: {"outputs": tf.cast(each, tf.float64)}, r"makes float64 \[1, 8\] of one string, not float32 \[1, D\]"),
        (lambda each: {"outputs": each[:, tf.newaxis]}, r"makes float32 \[1, 1, 8\]"),
    ],
)
def test_the_one_output_is_found_or_all_are_listed(save_use, use, make_outputs, message):
    folder = save_use(signature="serving_default", make_outputs=make_outputs)
    if message:
        with pytest.raises(ValueError, match=f"(?s){message}.*its signatures:.*serving_default.*string"):
            make_saved_model_embedder(folder)
    else:
        found = SavedModelEmbedder(folder)(tf.constant(TEXTS))
        np.testing.assert_array_equal(found, SavedModelEmbedder(use.path)(tf.constant(TEXTS)))


def test_other_signatures_are_an_error_that_lists_them(save_use, tmp_path):
    with pytest.raises(ValueError, match=r"(?s)one string input named serving_default or default.*predict: .*string"):
        make_saved_model_embedder(save_use(signature="predict"))
    module = tf.Module()
    double = tf.function(lambda x: {"y": x * 2}).get_concrete_function(tf.TensorSpec([None], tf.float32, name="x"))
    tf.saved_model.save(module, str(tmp_path), signatures=double)
    with pytest.raises(ValueError, match=r"(?s)no function of one string input.*serving_default: .*float32"):
        make_saved_model_embedder(str(tmp_path))


def test_folder_without_a_model_and_unknown_handles_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no SavedModel \(saved_model\.pb\)"):
        make_saved_model_embedder(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"'none' is neither a folder with a SavedModel, nor a handle kaggle://"):
        make_saved_model_embedder("none")


def test_handles_are_resolved_by_their_own_libraries(use, monkeypatch):
    asked = []

    class Fake:
        @staticmethod
        def model_download(handle):
            asked.append(handle)
            return use.path

        @staticmethod
        def resolve(handle):
            return Fake.model_download(handle)

    monkeypatch.setitem(sys.modules, "kagglehub", Fake)
    monkeypatch.setitem(sys.modules, "tensorflow_hub", Fake)
    handles = [
        "kaggle://google/use/tensorFlow2/use",
        "https://www.kaggle.com/models/google/use",
        "https://tfhub.dev/google/use/4",
    ]
    assert [make_saved_model_embedder(handle) for handle in handles] == [use] * 3
    assert asked == ["google/use/tensorFlow2/use", "google/use", "https://tfhub.dev/google/use/4"]


def test_handle_without_tensorflow_hub_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'mm_keras\[hub\]'"):
        make_saved_model_embedder("https://tfhub.dev/google/universal-sentence-encoder/4")


def test_missing_text_is_zeros_and_not_the_embedding_of_nothing(use):
    made = Preprocessor(_features(use)).texts({"title": tf.constant(["oak mug", "  ", ""])})
    assert made["title_present"].numpy().tolist() == [True, False, False]
    np.testing.assert_array_equal(made["title_embedding"][1:], np.zeros((2, 8)))
    np.testing.assert_array_equal(made["title_embedding"][0], SavedModelEmbedder(use.path)(tf.constant(["oak mug"]))[0])


def test_batches_hold_embeddings_of_static_shapes(dataset, use):
    features = make_features(dataset, image_size=None, text_fields=("title", "description"), make_embedder=lambda: use)
    assert {name: shape for name, (shape, _) in features.inputs().items() if shape} == {
        "title_embedding": (8,),
        "description_embedding": (8,),
    }
    batches = make_evaluation_batches(Split.open(dataset, "test"), features, 16)
    inputs, _, _ = batches.dataset.element_spec
    assert inputs["title_embedding"].shape == (16, 8)
    inputs, _, _ = next(iter(batches.dataset))
    assert set(inputs) == set(features.inputs())
    assert np.isfinite(inputs["title_embedding"]).all()


def test_saved_features_carry_the_model(use, tmp_path):
    (tmp_path / "run").mkdir()
    _features(use).save(tmp_path / "run")
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    loaded = FeatureSpec.load(moved)
    assert loaded == _features(EmbedderSpec(str(moved / "text_model_0"), 8))
    texts = {"title": tf.constant(TEXTS)}
    found, expected = (Preprocessor(each).texts(texts)["title_embedding"] for each in (loaded, _features(use)))
    np.testing.assert_array_equal(found, expected)
    (tmp_path / "light").mkdir()
    _features(use).save(tmp_path / "light", with_models=False)
    assert [path.name for path in (tmp_path / "light").iterdir()] == ["features.json"]


def test_field_of_a_saved_model_says_with_its_embedder_whether_that_is_trained(use, trained_use):
    assert make_saved_model_text("title", use) == EmbeddedText("title", use)
    assert make_saved_model_text("title", trained_use) == StringText("title", trained_use)
    for text_class, embedder in ((EmbeddedText, trained_use), (StringText, use)):
        with pytest.raises(ValueError, match=f"field 'title' is a {text_class.__name__}, .*Received: EmbedderSpec"):
            text_class("title", embedder)


def test_encoder_of_the_other_kind_is_an_error_that_names_the_right_one(use):
    with pytest.raises(ValueError, match=r"'title' is for the SavedModel .*text_encoder = @build_embedding_encoder"):
        build_small_text_encoder(EmbeddedText("title", use))
    with pytest.raises(ValueError, match=r"'title' comes as tokens, build_embedding_encoder takes vectors: bind make_features"):
        build_embedding_encoder(TokenText("title", WORDS, 5))


def test_embedding_encoder_gives_the_vectors_as_they_are(use):
    encoder = build_embedding_encoder(EmbeddedText("title", use), name="title_encoder")
    vectors = np.random.default_rng(0).normal(size=(3, 8)).astype("float32")
    np.testing.assert_array_equal(encoder({"embedding": vectors}), vectors)
    assert (encoder.name, encoder.count_params()) == ("title_encoder", 0)


@pytest.fixture
def trained_use(use):
    return dataclasses.replace(use, trainable=True)


def _learn(encoder):
    inputs = {"text": tf.constant([*TEXTS, ""])}
    encoder.compile("sgd", "mse", jit_compile=False)
    encoder.train_on_batch(inputs, np.ones((4, 8), "float32"))
    return inputs


def test_trained_model_starts_from_the_frozen_one_and_learns(use, trained_use):
    encoder = build_saved_model_encoder(StringText("title", trained_use))
    texts = tf.constant(TEXTS)
    before = encoder({"text": texts})
    np.testing.assert_array_equal(before, SavedModelEmbedder(use.path)(texts))
    assert sorted(tuple(weight.shape) for weight in encoder.trainable_weights) == [(), (64, 8)]
    after = np.array(encoder(_learn(encoder)))
    assert np.abs(after[:3] - before).max() > 1e-4
    np.testing.assert_array_equal(after[3], 0)
    assert all(np.isfinite(weight).all() for weight in encoder.get_weights())


def test_trained_model_survives_saving_without_its_folder(save_use, tmp_path):
    spec = make_saved_model_embedder(save_use(signature="serving_default"), trainable=True)
    encoder = build_saved_model_encoder(StringText("title", spec))
    inputs = _learn(encoder)
    encoder.save(tmp_path / "encoder.keras")
    again = build_saved_model_encoder(StringText("title", spec))
    again.load_weights(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(again(inputs), encoder(inputs))
    shutil.rmtree(spec.path)
    loaded = keras.models.load_model(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(loaded(inputs), encoder(inputs))
    loaded.save(tmp_path / "second.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "second.keras")(inputs), encoder(inputs))
    assert len(loaded.trainable_weights) == 2


@pytest.mark.slow
def test_run_with_a_trained_model_is_exported_from_its_folder_alone(dataset, save_use, train_small, tmp_path):
    spec = make_saved_model_embedder(save_use(), trainable=True)
    train_small(
        dataset,
        tmp_path / "run",
        make_features=functools.partial(
            make_features, image_size=None, text_fields=("title", "description"), make_embedder=lambda: spec
        ),
        build_model=functools.partial(build_two_tower, text_encoder=build_saved_model_encoder),
        strategy="none",
    )
    shutil.rmtree(spec.path)
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    evaluate(moved)
    assert (moved / "report" / "evaluation.json").is_file()
    assert (export(moved) / "saved_model.pb").is_file()  # which compares it with the trained model


def test_trained_model_on_several_replicas_is_an_error_that_says_what_to_set(trained_use, monkeypatch):
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: types.SimpleNamespace(num_replicas_in_sync=2))
    with pytest.raises(ValueError, match=r"trains on one replica, not on 2: set train\.strategy = 'none', or make_saved"):
        build_saved_model_encoder(StringText("title", trained_use))


def test_encoders_say_which_fields_they_take(use, trained_use):
    with pytest.raises(ValueError, match=r"no embedder that is trained: .*make_saved_model_embedder\.trainable = True"):
        build_saved_model_encoder(EmbeddedText("title", use))
    with pytest.raises(ValueError, match=r"comes as a string for a SavedModel that is trained: .*@build_saved_model_encoder"):
        build_embedding_encoder(StringText("title", trained_use))
    with pytest.raises(ValueError, match=r"is for the SavedModel .*text_encoder = @build_saved_model_encoder"):
        build_small_text_encoder(StringText("title", trained_use))


def test_model_with_nothing_to_train_is_an_error(tmp_path):
    module = tf.Module()
    length = tf.function(lambda inputs: {"outputs": tf.cast(tf.strings.length(inputs), tf.float32)[:, tf.newaxis]})
    signature = length.get_concrete_function(tf.TensorSpec([None], tf.string, name="inputs"))
    tf.saved_model.save(module, str(tmp_path), signatures=signature)
    spec = make_saved_model_embedder(str(tmp_path), trainable=True)
    with pytest.raises(ValueError, match=r"has nothing to train: set make_saved_model_embedder\.trainable = False"):
        build_saved_model_encoder(StringText("title", spec))
