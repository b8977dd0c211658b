import numpy as np
import pytest

from mm_keras.features import TokenizerSpec, TokenText
from mm_keras.model.lexical_encoder import build_lexical_encoder


@pytest.fixture
def spec():
    return TokenText("title", TokenizerSpec("words", tuple(f"w{i}" for i in range(100))), 8)


def _ask(model, *texts):
    ids = np.zeros((len(texts), 6), "int32")
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text
    return np.asarray(model({"token_ids": ids, "padding_mask": ids > 0}))


def test_each_word_counts_once_wherever_it_stands(spec):
    model = build_lexical_encoder(spec)
    both, swapped, twice, nothing = _ask(model, [5, 7], [7, 5], [7, 5, 7, 7], [])
    assert sorted(np.flatnonzero(both)) == [5, 7]
    assert both[5] == both[7]
    np.testing.assert_array_equal(both, swapped)
    np.testing.assert_array_equal(both, twice)
    assert not nothing.any()


def test_every_text_is_as_loud_as_another(spec):
    bags = _ask(build_lexical_encoder(spec), [5], [1, 2, 3, 4])
    np.testing.assert_allclose(np.linalg.norm(bags, axis=1), 16, rtol=1e-5)


def test_large_vocabulary_shares_buckets(spec):
    model = build_lexical_encoder(spec, buckets=10)
    assert model.output.shape == (None, 10)
    one, eleven, two = _ask(model, [1], [11], [2])
    np.testing.assert_array_equal(one, eleven)
    assert np.abs(one - two).max() > 0


def test_bag_has_no_more_buckets_than_there_are_tokens(spec):
    assert build_lexical_encoder(spec).output.shape == (None, 100)
