import functools

import keras
import numpy as np
import pytest

from mm_keras.model.fusion import (
    build_bilinear_fusion,
    build_concatenation,
    build_cross_attention_fusion,
    build_gated_fusion,
)

EMBEDDINGS = {
    "image": np.random.default_rng(0).normal(0, 1, (4, 6)).astype("float32"),
    "title": np.random.default_rng(1).normal(0, 100, (4, 3)).astype("float32"),
}


def test_plain_concatenation_keeps_the_numbers_in_order():
    fusion = build_concatenation({"image": (6,), "title": (3,)})
    assert (fusion.name, fusion.output.shape) == ("fusion", (None, 9))
    np.testing.assert_array_equal(fusion(EMBEDDINGS), np.concatenate(list(EMBEDDINGS.values()), axis=1))


def test_order_of_the_dict_that_is_passed_does_not_matter():
    fusion = build_concatenation({"image": (6,), "title": (3,)})
    backwards = {name: EMBEDDINGS[name] for name in ("title", "image")}
    np.testing.assert_array_equal(fusion(backwards), fusion(EMBEDDINGS))


def test_one_modality_needs_no_other():
    fusion = build_concatenation({"title": (3,)})
    np.testing.assert_array_equal(fusion({"title": EMBEDDINGS["title"][:1]}), EMBEDDINGS["title"][:1])


@pytest.mark.parametrize("field", ["fused", "concatenate", "logits"])
def test_field_may_have_the_name_of_a_part(field):
    assert build_concatenation({"image": (6,), field: (3,)}).output.shape == (None, 9)


def _flags(image, title):
    return {"image_present": np.full(4, image), "title_present": np.full(4, title)}


ATTENTION = functools.partial(build_cross_attention_fusion, width=8, num_heads=2)


@pytest.mark.parametrize("build", [build_gated_fusion, build_bilinear_fusion])
def test_gates_and_products_depend_on_every_embedding_and_on_presence(build):
    fusion = build({"image": (6,), "title": (3,)}, width=5)
    quiet = {name: values / np.abs(values).max() for name, values in EMBEDDINGS.items()}
    both = quiet | _flags(True, True)
    other = both | {"title": quiet["title"] + 1}
    assert np.abs(fusion(both) - fusion(other)).max() > 1e-2
    alone = np.asarray(fusion(quiet | _flags(True, False)))[:, -5:]
    assert np.abs(alone - np.asarray(fusion(both))[:, -5:]).max() > 1e-2


def test_gates_of_the_present_modalities_add_up_to_one_and_the_others_are_zero():
    fusion = build_gated_fusion({"image": (6,), "title": (3,)}, width=5)
    gates = keras.Model(fusion.inputs, fusion.get_layer("gates").output)
    by_name = [(EMBEDDINGS | _flags(True, False))[tensor.name] for tensor in fusion.inputs]
    weights = np.asarray(gates(by_name))
    np.testing.assert_allclose(weights[:, 0], 1, atol=1e-6)
    np.testing.assert_array_equal(weights[:, 1], 0)
    by_name = [(EMBEDDINGS | _flags(True, True))[tensor.name] for tensor in fusion.inputs]
    np.testing.assert_allclose(np.asarray(gates(by_name)).sum(axis=1), 1, atol=1e-6)
    by_name = [(EMBEDDINGS | _flags(False, False))[tensor.name] for tensor in fusion.inputs]
    np.testing.assert_array_equal(np.asarray(gates(by_name)), 0)


def test_gated_embedding_is_the_gates_times_what_the_modalities_say():
    fusion = build_gated_fusion({"image": (6,), "title": (3,)}, width=5)
    alone = np.asarray(fusion(EMBEDDINGS | _flags(True, False)))
    kernel, bias = fusion.get_layer("image_hidden").get_weights()
    np.testing.assert_allclose(alone, np.tanh(EMBEDDINGS["image"] @ kernel + bias), atol=1e-5)


def test_bilinear_fusion_is_the_sum_of_products_of_linear_maps_beside_the_embeddings():
    fusion = build_bilinear_fusion({"image": (6,), "title": (3,)}, width=5, rank=2)
    fused = np.asarray(fusion(EMBEDDINGS | _flags(True, True)))
    assert fused.shape == (4, 14)
    np.testing.assert_array_equal(fused[:, :6], EMBEDDINGS["image"])
    maps = {}
    for name, values in EMBEDDINGS.items():
        kernel, bias = fusion.get_layer(f"{name}_factor").get_weights()
        maps[name] = values @ kernel + bias
    joint = (maps["image"] * maps["title"]).reshape(4, 2, 5).sum(axis=1)
    expected = (joint - joint.mean(axis=1, keepdims=True)) / np.sqrt(joint.var(axis=1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(fused[:, 9:], expected, atol=1e-3)


def _sequences():
    rng = np.random.default_rng(0)
    words = rng.normal(0, 1, (4, 5, 3)).astype("float32")
    words[1, 3:] = 0  # padding
    return {"image": rng.normal(0, 1, (4, 9, 6)).astype("float32"), "title": words}


SEQUENCES = {"image": (9, 6), "title": (5, 3)}


def test_padding_is_neither_attended_to_nor_averaged():
    fusion = ATTENTION({"image": (9, 6), "title": (None, 3)})
    full = _sequences() | _flags(True, True)
    short = full | {"title": full["title"][:, :3]}
    fused, without = np.asarray(fusion(full)), np.asarray(fusion(short))
    assert fused.shape == (4, 16)
    np.testing.assert_allclose(fused[1], without[1], atol=1e-5)
    assert np.abs(fused[0] - without[0]).max() > 1e-3


@pytest.mark.parametrize("seen, by", [("title", "image"), ("image", "title")])
def test_each_modality_attends_to_the_other_if_it_is_there(seen, by):
    fusion = ATTENTION(SEQUENCES)
    columns = slice(0, 8) if by == "image" else slice(8, 16)
    given = _sequences() | _flags(True, True)
    other = given | {seen: given[seen] + 1}
    assert np.abs(np.asarray(fusion(given))[:, columns] - np.asarray(fusion(other))[:, columns]).max() > 1e-3
    hidden = _flags(seen != "image", seen != "title")
    fused, same = np.asarray(fusion(given | hidden)), np.asarray(fusion(other | hidden))
    np.testing.assert_array_equal(fused, same)
    assert np.abs(fused[:, columns]).max() > 0
    np.testing.assert_array_equal(np.delete(fused, np.r_[columns], axis=1), 0)


def test_attention_is_finite_where_everything_is_missing_and_takes_vectors_and_single_modalities():
    assert np.all(np.asarray(ATTENTION(SEQUENCES)(_sequences() | _flags(False, False))) == 0)
    vectors = {"image": (6,), "title": (3,)}
    assert np.isfinite(np.asarray(ATTENTION(vectors)(EMBEDDINGS | _flags(True, True)))).all()
    alone = ATTENTION({"image": (9, 6)})({"image": _sequences()["image"], "image_present": np.ones(4, bool)})
    assert alone.shape == (4, 8)


def test_errors_say_what_a_fusion_takes():
    with pytest.raises(ValueError, match=r"'title' comes as a sequence \(5, 3\): .* @build_cross_attention_fusion"):
        build_concatenation({"image": (6,), "title": (5, 3)})
    with pytest.raises(ValueError, match="Received: width=8, num_heads=3, num_blocks=1"):
        build_cross_attention_fusion(SEQUENCES, width=8, num_heads=3)
