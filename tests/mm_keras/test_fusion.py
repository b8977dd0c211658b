import numpy as np
import pytest

from mm_keras.model.fusion import build_concatenation

EMBEDDINGS = {
    "image": np.random.default_rng(0).normal(0, 1, (4, 6)).astype("float32"),
    "title": np.random.default_rng(1).normal(0, 100, (4, 3)).astype("float32"),
}


def test_plain_concatenation_keeps_the_numbers_in_order():
    fusion = build_concatenation({"image": 6, "title": 3})
    assert (fusion.name, fusion.output.shape) == ("fusion", (None, 9))
    np.testing.assert_array_equal(fusion(EMBEDDINGS), np.concatenate(list(EMBEDDINGS.values()), axis=1))


def test_order_of_the_dict_that_is_passed_does_not_matter():
    fusion = build_concatenation({"image": 6, "title": 3})
    backwards = {name: EMBEDDINGS[name] for name in ("title", "image")}
    np.testing.assert_array_equal(fusion(backwards), fusion(EMBEDDINGS))


def test_one_modality_needs_no_other():
    fusion = build_concatenation({"title": 3})
    np.testing.assert_array_equal(fusion({"title": EMBEDDINGS["title"][:1]}), EMBEDDINGS["title"][:1])


@pytest.mark.parametrize("field", ["fused", "concatenate", "logits"])
def test_field_may_have_the_name_of_a_part(field):
    assert build_concatenation({"image": 6, field: 3}).output.shape == (None, 9)
