"""Texts of a large batch are encoded by length, and nobody can tell from their embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from mm_keras.features import TokenizerSpec, TokenText
from mm_keras.runs.text_lengths import run_by_length, trim

TEXT = TokenText("title", TokenizerSpec("words", ("[PAD]", "[UNK]")), max_tokens=30)


def _inputs(lengths):
    names = TEXT.batch_names()
    mask = np.arange(TEXT.max_tokens) < np.array(lengths, int).reshape(-1, 1)
    ids = np.random.default_rng(0).integers(1, 99, mask.shape) * mask
    return {names["token_ids"]: tf.constant(ids, tf.int32), names["padding_mask"]: tf.constant(mask)}


class Tower:
    """Sums the ids of each text, and notes the shapes that it is asked with."""

    def __init__(self):
        self.shapes = []

    def __call__(self, inputs, training):
        names = TEXT.batch_names()
        ids = tf.cast(inputs[names["token_ids"]] * tf.cast(inputs[names["padding_mask"]], tf.int32), tf.float32)
        tf.py_function(lambda shape: self.shapes.append(tuple(shape.numpy().tolist())), [tf.shape(ids)], [])
        total = tf.reduce_sum(ids, axis=1, keepdims=True)
        return tf.concat([total, -total], axis=1)


def _embed(lengths):
    tower, inputs = Tower(), _inputs(lengths)
    embeddings = tf.function(lambda inputs: run_by_length(tower, trim(inputs, TEXT), TEXT), autograph=False)(inputs)
    totals = inputs[TEXT.batch_names()["token_ids"]].numpy().sum(axis=1)
    np.testing.assert_array_equal(embeddings.numpy(), np.stack([totals, -totals], axis=1).astype("float32"))
    return tower.shapes


@pytest.mark.parametrize("lengths", [[], [0], [3], [0, 30, 5], [*range(16)]], ids=len)
def test_small_batch_is_encoded_as_a_whole(lengths):
    longest = min(30, -(-max([1, *lengths]) // 8) * 8)
    assert _embed(lengths) == [(len(lengths), longest)]


def test_large_batch_is_encoded_by_length():
    lengths = [2, 30] * 10 + [9] * 17
    assert sorted(_embed(lengths)) == [(5, 30), (16, 16), (16, 30)]
