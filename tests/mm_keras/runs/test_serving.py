"""What is served, without an export: signatures, missing inputs, errors of single examples, lengths of texts."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mm_keras.data.preprocess import Preprocessor
from mm_keras.model.split_at_embeddings import build_embedder
from mm_keras.runs.serving import ServingModule, signature_names


@pytest.fixture(scope="module")
def served(make_spec, build_small_model):
    """(model, its features, signatures) of a model with random weights."""
    features = make_spec(image=(16, 16), fields=("title",), max_tokens=40)
    model = build_small_model(features)
    for weight in (*model.get_layer("head").weights, model.get_layer("image_missing").missing):
        weight.assign(np.random.default_rng(1).normal(size=weight.shape))
    return model, features, ServingModule(model, features).signatures()


@pytest.fixture(scope="module")
def raw(encode_image):
    """Five examples: all inputs; without a picture; a picture alone; nothing; a picture that is damaged."""
    rng = np.random.default_rng(0)
    pictures = [encode_image(rng.integers(0, 256, (20, 30, 3), "uint8")) for _ in range(2)]
    images = [pictures[0], b"", pictures[1], b"", pictures[0][:200]]
    titles = ["oak mug", "the blue steel mug " * 5, "", " ", "mug"]
    return {"image": images, "title": titles}


def _ask(signature, **inputs):
    return {name: value.numpy() for name, value in signature(**{key: tf.constant(v) for key, v in inputs.items()}).items()}


def test_signature_of_each_set_of_inputs():
    assert signature_names(("image", "Review Text")) == {
        "image": ("image",),
        "review_text_42d93221": ("review_text_42d93221",),
        "image_review_text_42d93221": ("image", "review_text_42d93221"),
    }
    assert len(signature_names("abcd")) == 15
    assert len(signature_names("abcdef")) == 6 + 15 + 1


def test_names_of_signatures_stay_apart():
    names = signature_names(("image", "title", "image_title", "embed"))
    assert len(names) == 15 and "embed" not in names
    assert (names["image_title"], names["image_title_"]) == (("image_title",), ("image", "title"))


@pytest.fixture(scope="module")
def good(raw):
    """The examples that can be answered."""
    return {name: values[:3] for name, values in raw.items()}


@pytest.fixture(scope="module")
def expected(served, good):
    """(the features of these, what the model makes of them)."""
    model, features, _ = served
    inputs = Preprocessor(features).raw({name: tf.constant(values) for name, values in good.items()})
    return inputs, tf.nn.softmax(model(inputs)).numpy()


def test_default_answers_what_the_model_answers(served, good, expected):
    answer = _ask(served[2]["serving_default"], **good)
    np.testing.assert_allclose(answer["scores"], expected[1], atol=1e-6)
    for scores, labels, probabilities in zip(*(answer[name] for name in ("scores", "labels", "probabilities")), strict=True):
        order = np.argsort(-scores)
        assert labels.tolist() == [b"label %d" % index for index in order]
        np.testing.assert_array_equal(probabilities, scores[order])


def test_a_bad_example_has_its_error_and_zeros_and_leaves_the_others_alone(served, raw):
    signature = served[2]["serving_default"]
    answer = _ask(signature, **raw)
    assert [error.decode()[:24] for error in answer["error"]] == [
        "",
        "",
        "",
        "the example has none of ",
        "the picture is damaged o",
    ]
    assert not answer["scores"][3:].any() and not answer["probabilities"][3:].any()
    assert answer["labels"][3].tolist() == [b""] * 4
    good = _ask(signature, **{name: values[:3] for name, values in raw.items()})
    for name, values in good.items():
        np.testing.assert_array_equal(answer[name][:3], values)


@pytest.mark.ci
def test_each_signature_is_the_default_with_the_other_inputs_empty(served, raw):
    _, features, signatures = served
    names = signature_names(features.modalities)
    assert set(signatures) == {"serving_default", "embed", "tensors", *names}
    for name, keys in names.items():
        given = {key: raw[key][:3] for key in keys}
        expected = _ask(signatures["serving_default"], **{key: given.get(key, [""] * 3) for key in raw})
        answer = _ask(signatures[name], **given)
        for output, values in expected.items():
            np.testing.assert_array_equal(answer[output], values, err_msg=f"{name} {output}")


def test_tensors_take_a_batch_of_features_padded_or_not(served, expected):
    signatures, (inputs, expected) = served[2], expected
    np.testing.assert_allclose(_ask(signatures["tensors"], **inputs)["scores"], expected, atol=1e-6)
    short = {name: value[:, :20] if "token" in name or "mask" in name else value for name, value in inputs.items()}
    np.testing.assert_allclose(_ask(signatures["tensors"], **short)["scores"], expected, atol=1e-6)
    kinds = set(_operations(signatures["tensors"].graph))
    assert "MatMul" in kinds and not [kind for kind in kinds if "String" in kind or "Jpeg" in kind or "Image" in kind]


def _operations(graph):
    """The operations of a graph and of all functions that it can reach."""
    definition = graph.as_graph_def()
    functions = {function.signature.name: function.node_def for function in definition.library.function}
    waiting, seen = [definition.node], set()
    while waiting:
        for node in waiting.pop():
            yield node.op
            called = {value.func.name for value in node.attr.values() if value.HasField("func")} - seen
            waiting += [functions[name] for name in called]
            seen |= called


def test_embed_gives_each_embedding_and_zeros_for_what_is_missing(served, good, expected):
    model, features, signatures = served
    answer = _ask(signatures["embed"], **good)
    expected = build_embedder(model, features.modalities)(expected[0])
    assert set(answer) == {*expected, "error"}
    np.testing.assert_allclose(answer["fused"], expected["fused"], atol=1e-5)
    np.testing.assert_allclose(answer["image_embedding"][[0, 2]], expected["image_embedding"].numpy()[[0, 2]], atol=1e-5)
    assert not answer["image_embedding"][1].any() and not answer["title_embedding"][2].any()


def test_empty_batch_is_answered_with_an_empty_batch(served, raw):
    answer = _ask(served[2]["serving_default"], **{name: tf.constant([], tf.string) for name in raw})
    assert {name: value.shape for name, value in answer.items()} == {
        "labels": (0, 4),
        "probabilities": (0, 4),
        "scores": (0, 4),
        "error": (0,),
    }


class Refusal(keras.layers.Layer):
    """Fails when it runs."""

    def call(self, pixels):
        tf.debugging.Assert(tf.constant(False), ["the image tower ran"])
        return pixels


def test_a_tower_without_an_example_does_not_run(make_spec, build_small_model, raw):
    def build_tower(spec):
        pixels = keras.Input((*spec.size, 3))
        return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(Refusal()(pixels)), name="image_tower")

    features = make_spec(image=(16, 16), fields=("title",))
    signature = ServingModule(build_small_model(features, image_tower=build_tower), features).signature()
    assert np.isfinite(_ask(signature, title=["oak"], image=[""])["scores"]).all()
    with pytest.raises(tf.errors.InvalidArgumentError, match="the image tower ran"):
        _ask(signature, title=["oak"], image=raw["image"][:1])


def test_short_texts_are_not_padded_to_the_limit(make_spec, build_small_model):
    features = make_spec(image=None, fields=("title",), max_tokens=400)
    answer = ServingModule(build_small_model(features), features)._served._answer
    inputs = {
        "title_token_ids": tf.ones([2, 400], tf.int32),
        "title_padding_mask": tf.sequence_mask([3, 9], 400),
        "title_present": tf.constant([True, True]),
    }
    assert {name: value.shape for name, value in answer._trim(inputs).items()} == {
        "title_token_ids": (2, 16),
        "title_padding_mask": (2, 16),
        "title_present": (2,),
    }
