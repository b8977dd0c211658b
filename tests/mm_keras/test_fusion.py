import numpy as np
import pytest

from mm_keras.model.fusion import build_concatenation

EMBEDDINGS = {
    "image": np.random.default_rng(0).normal(0, 1, (4, 6)).astype("float32"),
    "title": np.random.default_rng(1).normal(0, 100, (4, 3)).astype("float32"),
}


def test_plain_concatenation_keeps_the_numbers_in_order():
    fusion = build_concatenation({"image": 6, "title": 3}, normalize=False)
    assert (fusion.name, fusion.output.shape) == ("fusion", (None, 9))
    np.testing.assert_array_equal(fusion(EMBEDDINGS), np.concatenate(list(EMBEDDINGS.values()), axis=1))


def test_order_of_the_dict_that_is_passed_does_not_matter():
    fusion = build_concatenation({"image": 6, "title": 3})
    backwards = {name: EMBEDDINGS[name] for name in ("title", "image")}
    np.testing.assert_array_equal(fusion(backwards), fusion(EMBEDDINGS))


def test_normalised_modalities_are_equally_loud():
    fused = np.asarray(build_concatenation({"image": 6, "title": 3})(EMBEDDINGS))
    image, title = (np.sqrt(np.square(part).mean(axis=1)) for part in (fused[:, :6], fused[:, 6:]))
    np.testing.assert_allclose(image / image.mean(), np.ones(4), rtol=1e-2)
    np.testing.assert_allclose(title / title.mean(), np.ones(4), rtol=1e-2)
    assert 0.1 < image.mean() / title.mean() < 10  # they came in 1 : 100


@pytest.mark.parametrize("normalize", [True, False])
def test_one_modality_needs_no_other(normalize):
    fusion = build_concatenation({"title": 3}, normalize=normalize)
    assert fusion.output.shape == (None, 3)
    assert np.isfinite(fusion({"title": EMBEDDINGS["title"][:1]})).all()


def test_embedding_of_zeros_stays_finite():
    assert np.isfinite(build_concatenation({"title": 3})({"title": np.zeros((2, 3), "float32")})).all()
