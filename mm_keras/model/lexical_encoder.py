"""The lexical encoder: a bag of the words that a text contains. Pure Keras."""

from __future__ import annotations

import keras
from keras import ops

from mm_keras.configurable import PositiveInt, configurable
from mm_keras.features import TextSpec
from mm_keras.model.text_encoder import token_inputs

# The length of a tuned embedding of 256 numbers whose root mean square is 1, so that the bag weighs as much as that.
_LENGTH = 16.0


@configurable
def build_lexical_encoder(spec: TextSpec, buckets: PositiveInt = 8192, name: str = "words") -> keras.Model:
    """A bag of the tokens that a text contains. It has no weights.

    A sentence encoder knows what a text is about, but blurs brands, models and materials, on which the classes of a catalogue
    depend. `build_two_tower` joins both. With thousands of labels, the head that reads the bag is large: buckets x labels
    weights.

    Reference: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning" (2009), without signs.

    Args:
        spec: the text field, which must be seen as tokens.
        buckets: the width of the bag. Where the vocabulary is larger, tokens share buckets (id modulo buckets).
        name: the model's name.

    Returns:
        model: {"token_ids" int32 [B, T], "padding_mask" bool [B, T]} -> [B, min(buckets, size of the vocabulary)], vectors of
        length 16; zeros for a text without tokens.

    Raises:
        ValueError: for a field that a SavedModel embeds.
    """
    inputs = token_inputs(spec)
    bag = BagOfTokens(min(buckets, len(spec.tokenizer.vocabulary)), name="bag")
    return keras.Model(inputs, bag(inputs["token_ids"], inputs["padding_mask"]), name=name)


@keras.saving.register_keras_serializable(package="mm_keras")
class BagOfTokens(keras.layers.Layer):
    """[B, T] token ids and padding mask -> [B, buckets]: vectors of length 16.

    All buckets whose tokens occur have the same value, however often they occur; the others are zero.

    Args:
        buckets: the width; the bucket of a token is its id modulo `buckets`.
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
        occurs = ops.minimum(counts, 1)
        return occurs * _LENGTH * ops.rsqrt(ops.maximum(ops.sum(occurs, axis=1, keepdims=True), 1))

    def compute_output_shape(self, token_ids_shape, padding_mask_shape):
        return (token_ids_shape[0], self.buckets)

    def get_config(self):
        return {**super().get_config(), "buckets": self.buckets}
