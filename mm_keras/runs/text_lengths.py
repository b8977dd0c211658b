"""Spares served text encoders the padding of texts. TensorFlow graph functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

from mm_keras.features import TokenText

_BUCKET = 8  # texts are padded to a multiple of so many tokens
_TOGETHER = 16  # texts that are encoded together, of a larger batch


def trim(inputs: Mapping[str, tf.Tensor], text: TokenText) -> dict[str, tf.Tensor]:
    """Cuts off the tokens that are padding in all texts of a field.

    Args:
        inputs: some features of a batch, with those of the field.
        text: the field.
    """
    names = text.batch_names()
    longest = tf.reduce_max(tf.concat([_lengths(inputs, text), [1]], 0))
    kept = tf.minimum(-(-longest // _BUCKET) * _BUCKET, text.max_tokens)
    return dict(inputs) | {name: inputs[name][:, :kept] for name in names.values()}


def run_by_length(tower: Callable[..., tf.Tensor], inputs: Mapping[str, tf.Tensor], text: TokenText) -> tf.Tensor:
    """The embeddings of texts, float32 [B, D]: in a large batch, texts of about the same length are encoded together.

    The titles of a shop have a dozen tokens, and one of a batch has forty: with its padding, all would take as long as it does.

    Args:
        tower: `(inputs, training=) -> [B, D]`, for texts of any length.
        inputs: the features of the batch that the tower takes.
        text: the field.
    """

    def group(first: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
        rows = order[first : first + _TOGETHER]
        return tower(trim({name: tf.gather(value, rows) for name, value in inputs.items()}, text), training=False)

    def groups() -> tf.Tensor:
        order = tf.argsort(_lengths(inputs, text))
        count = tf.size(order)
        embeddings = tf.TensorArray(tf.float32, 0, dynamic_size=True, infer_shape=False, element_shape=[None, None])
        _, embeddings = tf.while_loop(
            lambda number, _: number * _TOGETHER < count,
            lambda number, embeddings: (number + 1, embeddings.write(number, group(number * _TOGETHER, order))),
            (0, embeddings),
        )
        return tf.gather(embeddings.concat(), tf.math.invert_permutation(order))

    small = tf.shape(inputs[text.batch_names()["token_ids"]])[0] <= _TOGETHER
    return tf.cond(small, lambda: tower(inputs, training=False), groups)


def _lengths(inputs: Mapping[str, tf.Tensor], text: TokenText) -> tf.Tensor:
    """The number of tokens of each text, int32 [B]."""
    return tf.reduce_sum(tf.cast(inputs[text.batch_names()["padding_mask"]], tf.int32), axis=1)
