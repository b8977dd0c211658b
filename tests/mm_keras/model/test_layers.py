import keras
import numpy as np
import pytest
from keras import ops

from mm_keras.model.layers import MaskedMeanPooling, MissingEmbedding, ModalityDropout


@pytest.fixture
def states():
    return np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")


MASK = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)


def test_pooling_takes_the_mean_over_real_tokens(states):
    pooled = MaskedMeanPooling()(states, MASK)
    np.testing.assert_allclose(pooled[0], states[0, :2].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(pooled[2], states[2].mean(axis=0), rtol=1e-5)


def test_pooling_over_no_token_is_zero(states):
    np.testing.assert_array_equal(MaskedMeanPooling()(states, MASK)[1], np.zeros(5))


def test_pooling_does_not_see_padding(states):
    other = np.where(MASK[..., np.newaxis], states, 1e6).astype("float32")
    np.testing.assert_array_equal(MaskedMeanPooling()(other, MASK), MaskedMeanPooling()(states, MASK))


def test_pooling_works_on_a_batch_of_one(states):
    for row in range(3):
        pooled = MaskedMeanPooling()(states[row : row + 1], MASK[row : row + 1])
        np.testing.assert_allclose(pooled, MaskedMeanPooling()(states, MASK)[row : row + 1], rtol=1e-6)


def test_pooling_in_half_precision_is_the_mean_in_half_precision(states):
    pooled = MaskedMeanPooling(dtype="bfloat16")(ops.cast(states, "bfloat16"), MASK)
    assert keras.backend.standardize_dtype(pooled.dtype) == "bfloat16"
    np.testing.assert_allclose(ops.cast(pooled, "float32"), MaskedMeanPooling()(states, MASK), atol=0.03)


def test_missing_modality_becomes_the_learned_vector():
    layer = MissingEmbedding()
    embeddings = np.arange(6, dtype="float32").reshape(3, 2)
    layer(embeddings, np.ones(3, bool))
    layer.missing.assign([7, 8])
    known = layer(embeddings, np.array([True, False, True]))
    np.testing.assert_array_equal(known, [[0, 1], [7, 8], [4, 5]])


def test_nothing_of_a_missing_modality_is_seen_even_if_it_is_not_a_number():
    layer = MissingEmbedding()
    embeddings = np.array([[np.nan, np.inf], [1, 2]], "float32")
    np.testing.assert_array_equal(layer(embeddings, np.array([False, True])), [[0, 0], [1, 2]])


def test_missing_embedding_has_the_precision_of_its_policy():
    layer = MissingEmbedding(dtype="mixed_bfloat16")
    known = layer(np.ones((2, 3), "float32"), np.array([True, False]))
    assert keras.backend.standardize_dtype(known.dtype) == "bfloat16"
    assert layer.missing.dtype == "float32"


def _hide(present, rate=0.3, seed=0, training=True):
    return np.asarray(ModalityDropout(rate, seed=seed)(np.asarray(present), training=training))


def test_modality_dropout_never_hides_all():
    kept = _hide(np.ones((2000, 2), bool), rate=0.9)
    assert kept.any(axis=1).all()
    assert not kept.all(axis=1).all()
    assert _hide(np.ones((2000, 1), bool), rate=0.9).all()


def test_modality_dropout_hides_at_its_rate():
    """Each of three at 0.3; where all three would be hidden (0.027), none is."""
    hidden = 1 - _hide(np.ones((20_000, 3), bool)).mean(axis=0)
    np.testing.assert_allclose(hidden, 0.3 - 0.3**3, atol=0.01)


def test_modality_dropout_hides_each_modality_on_its_own():
    kept = _hide(np.ones((20_000, 3), bool))
    assert abs(np.corrcoef(kept[:, 0], kept[:, 1])[0, 1]) < 0.08  # but for keeping one of them


def test_modality_dropout_never_brings_back_what_is_absent():
    rng = np.random.default_rng(0)
    present = rng.random((2000, 3)) < 0.6
    kept = _hide(present)
    assert not (kept & ~present).any()
    np.testing.assert_array_equal(kept.any(axis=1), present.any(axis=1))


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True)])
def test_modality_dropout_is_off_outside_training_and_at_rate_zero(rate, training):
    present = np.random.default_rng(0).random((500, 3)) < 0.6
    np.testing.assert_array_equal(_hide(present, rate, training=training), present)


def test_modality_dropout_depends_on_its_seed():
    present = np.ones((200, 3), bool)
    np.testing.assert_array_equal(_hide(present, seed=4), _hide(present, seed=4))
    assert not np.array_equal(_hide(present, seed=4), _hide(present, seed=5))
    layer = ModalityDropout(0.3, seed=4)
    assert not np.array_equal(layer(present, training=True), layer(present, training=True))  # but each call draws anew


def test_modality_dropout_without_a_seed_follows_the_global_one():
    drawn = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        drawn.append(_hide(np.ones((200, 3), bool), seed=None))
    np.testing.assert_array_equal(*drawn)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5])
def test_modality_dropout_with_an_impossible_rate_is_an_error(rate):
    with pytest.raises(ValueError, match=rf"within \[0, 1\). Received: {rate}"):
        ModalityDropout(rate)
