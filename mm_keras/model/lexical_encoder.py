"""The lexical encoder: which words a text holds, whatever they mean. Pure Keras."""

from __future__ import annotations

import keras
from keras import ops

from mm_keras.configurable import PositiveInt, configurable
from mm_keras.features import TextSpec
from mm_keras.model.text_encoder import token_inputs

_LENGTH = 16.0  # that of a tuned embedding of 256 numbers whose root mean square is 1: words are as loud as meaning


@configurable
def build_lexical_encoder(spec: TextSpec, buckets: PositiveInt = 8192, name: str = "words") -> keras.Model:
    """Which tokens a text holds: a bag of words, without weights of its own.

    A sentence encoder knows what a text is about, but blurs brands, models and materials; a catalogue's classes hang on them.
    `build_two_tower` puts both side by side. With thousands of labels the head that reads it is large: buckets x labels.

    Reference: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning" (2009), without signs.

    Args:
        spec: the text field.
        buckets: width. Where the vocabulary is larger, tokens share them (id modulo buckets).
        name: of the model.

    Returns:
        model: {"token_ids" int32 [B, T], "padding_mask" bool [B, T]} -> [B, min(buckets, vocabulary)], of length 16; zeros for
        a text without tokens.
    """
    inputs = token_inputs(spec)
    bag = BagOfTokens(min(buckets, len(spec.tokenizer.vocabulary)), name="bag")
    return keras.Model(inputs, bag(inputs["token_ids"], inputs["padding_mask"]), name=name)


@keras.saving.register_keras_serializable(package="mm_keras")
class BagOfTokens(keras.layers.Layer):
    """[B, T] token ids and padding mask -> [B, buckets]: the same number for each that occurs, together of length 16.

    Args:
        buckets: width; ids are taken modulo it.
    """

    def __init__(self, buckets: int, **kwargs):
        super().__init__(**kwargs)
        self.buckets = buckets

    def call(self, token_ids, padding_mask):
        rows = ops.arange(ops.shape(token_ids)[0], dtype="int32")[:, None]
        places = ops.stack([ops.broadcast_to(rows, ops.shape(token_ids)), token_ids % self.buckets], axis=-1)
        counts = ops.scatter(
            ops.reshape(places, (-1, 2)),
            ops.reshape(ops.cast(padding_mask, self.compute_dtype), (-1,)),
            (ops.shape(token_ids)[0], self.buckets),
        )
        found = ops.minimum(counts, 1)
        return found * _LENGTH * ops.rsqrt(ops.maximum(ops.sum(found, axis=1, keepdims=True), 1))

    def compute_output_shape(self, token_ids_shape, padding_mask_shape):
        return (token_ids_shape[0], self.buckets)

    def get_config(self):
        return {**super().get_config(), "buckets": self.buckets}
