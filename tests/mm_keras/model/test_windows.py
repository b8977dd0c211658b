"""Texts that are longer than what a transformer takes are read in windows."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mm_keras.data.text import make_pretrained_tokenizer, make_tokenizer
from mm_keras.features import TokenText
from mm_keras.model.transformer_encoder import SplitInWindows, build_transformer_encoder


def _spec(source, max_tokens=12):
    return TokenText("title", make_pretrained_tokenizer([], source), max_tokens)


def _tokenize(spec, texts):
    token_ids, padding_mask = make_tokenizer(spec.tokenizer)(tf.constant(texts), spec.max_tokens)
    return {"token_ids": token_ids.numpy(), "padding_mask": padding_mask.numpy()}


@pytest.mark.parametrize(
    ("max_tokens", "windows", "tokens", "expected"),
    [
        (7, 2, [101, 1, 2, 3, 4, 5, 102], [[101, 1, 2, 3, 102], [101, 4, 5, 102]]),
        (8, 2, [101, 1, 2, 3, 4, 102], [[101, 1, 2, 3, 102], [101, 4, 102]]),
        (8, 2, [101, 1, 2, 3, 102], [[101, 1, 2, 3, 102], []]),
        (8, 3, [], [[], [], []]),
        (5, 1, [101, 1, 2, 102], [[101, 1, 2, 102]]),
    ],
)
def test_each_window_stands_between_its_own_start_and_end(max_tokens, windows, tokens, expected):
    token_ids = np.zeros((2, max_tokens), "int32")
    token_ids[1, : len(tokens)] = tokens
    mask = np.arange(max_tokens) < np.array([[0], [len(tokens)]])
    found, found_mask = map(np.array, SplitInWindows(max_tokens, windows, 101, 102)(token_ids, mask))
    assert found.shape == found_mask.shape == (2 * windows, -(-(max_tokens - 2) // windows) + 2)
    assert [row[real].tolist() for row, real in zip(found, found_mask, strict=True)] == [[]] * windows + expected


def test_windows_of_a_family_without_a_start_token():
    found, mask = map(np.array, SplitInWindows(5, 2, None, 9)(np.array([[1, 2, 3, 9, 0]]), np.array([[1, 1, 1, 1, 0]], bool)))
    assert [row[real].tolist() for row, real in zip(found, mask, strict=True)] == [[1, 2, 9], [3, 9]]


@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_windows_are_encoded_one_by_one_and_pooled_by_their_tokens(tiny_bert, pooling, tmp_path):
    spec = _spec(tiny_bert, 26)  # more than the 24 that it takes
    text = "oak mug steel the cafe oak oak mugs"
    tokens = _tokenize(spec, [text, "", f"{text} {text} mug oak"])
    whole = build_transformer_encoder(spec, tiny_bert, pooling, windows=3)
    one = build_transformer_encoder(_spec(tiny_bert, 10), tiny_bert, pooling)
    inner = tokens["token_ids"][2, 1 : tokens["padding_mask"][2].sum() - 1]
    embeddings, counts = [], []
    for start in range(0, len(inner), 8):
        ids = np.array([[2, *inner[start : start + 8], 3]])
        embeddings.append(np.array(one({"token_ids": ids, "padding_mask": np.ones_like(ids, bool)}))[0])
        counts.append(ids.size)
    assert len(counts) == 3
    expected = np.max(embeddings, axis=0) if pooling == "max" else np.average(embeddings, axis=0, weights=counts)
    found = np.array(whole(tokens))
    np.testing.assert_allclose(found[2], expected, atol=1e-5)
    np.testing.assert_array_equal(found[1], 0)
    whole.save(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "encoder.keras")(tokens), found)


def test_windows_that_cannot_be_are_errors(tiny_bert):
    with pytest.raises(ValueError, match=r"windows must be at least 1. Received: 0"):
        build_transformer_encoder(_spec(tiny_bert), tiny_bert, windows=0)
    with pytest.raises(ValueError, match=r"keeps 100 tokens in 2 windows of 51, encoder '.*' takes 24: lower"):
        build_transformer_encoder(_spec(tiny_bert, 100), tiny_bert, windows=2)
