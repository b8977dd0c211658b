"""Small layers that every two-tower model needs. Pure Keras."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="mm_keras")
class MaskedMeanPooling(keras.layers.Layer):
    """[B, T, D] states and [B, T] padding mask -> [B, D], the mean over the real tokens; zeros where there is none.

    Reference: Fang et al., "Data Determines Distributional Robustness in CLIP" (ImageNet-Captions), and Reimers & Gurevych,
    "Sentence-BERT", section 3 (MEAN strategy).
    """

    def call(self, states, padding_mask):
        mask = ops.expand_dims(ops.cast(padding_mask, states.dtype), -1)
        return ops.sum(states * mask, axis=1) / ops.maximum(ops.sum(mask, axis=1), 1)

    def compute_output_shape(self, states_shape, padding_mask_shape):
        return (states_shape[0], states_shape[-1])


@keras.saving.register_keras_serializable(package="mm_keras")
class MaskedMaxPooling(keras.layers.Layer):
    """[B, T, D] states and [B, T] padding mask -> [B, D], the maximum over the real tokens; zeros where there is none."""

    def call(self, states, padding_mask):
        mask = ops.expand_dims(padding_mask, -1)
        has_tokens = ops.any(mask, axis=1)
        lowest = ops.min(states, axis=1, keepdims=True)
        return ops.where(has_tokens, ops.max(ops.where(mask, states, lowest), axis=1), ops.zeros_like(lowest[:, 0]))

    def compute_output_shape(self, states_shape, padding_mask_shape):
        return (states_shape[0], states_shape[-1])


@keras.saving.register_keras_serializable(package="mm_keras")
class ZeroPadding(keras.layers.Layer):
    """[B, T, D] states and [B, T] padding mask -> [B, T, D] with zeros at the padding."""

    def call(self, states, padding_mask):
        return states * ops.expand_dims(ops.cast(padding_mask, states.dtype), -1)

    def compute_output_shape(self, states_shape, padding_mask_shape):
        return states_shape


@keras.saving.register_keras_serializable(package="mm_keras")
class MissingEmbedding(keras.layers.Layer):
    """[B, D] or [B, T, D] embeddings and [B] presence flags -> embeddings of the same shape.

    Where the modality is missing, the output is a learned vector of width D, and nothing of the input reaches it, since a
    blank picture is not what "no picture" means.
    """

    def build(self, embedding_shape, present_shape):
        self.missing = self.add_weight(shape=(embedding_shape[-1],), initializer="zeros", name="missing")

    def call(self, embedding, present):
        missing = ops.cast(self.missing, embedding.dtype)
        present = ops.reshape(present, (-1, *[1] * (len(embedding.shape) - 1)))
        return ops.where(present, embedding, missing)

    def compute_output_shape(self, embedding_shape, present_shape):
        return embedding_shape


@keras.saving.register_keras_serializable(package="mm_keras")
class ModalityDropout(keras.layers.Layer):
    """[B, M] presence flags -> [B, M]; in training each modality is hidden with probability `rate`, never all of them.

    An example whose present modalities would all be hidden keeps them all.

    Args:
        rate: the probability, within [0, 1), of hiding a modality of an example.
        seed: the seed of the random numbers; None follows Keras' global seed.

    Raises:
        ValueError: for a rate outside [0, 1).
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be within [0, 1). Received: {rate}")
        self.rate = rate
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, present, training=False):
        if not training or not self.rate:
            return present
        drawn = keras.random.uniform(ops.shape(present), seed=self.seed_generator)
        kept = ops.logical_and(present, drawn >= self.rate)
        return ops.where(ops.any(kept, axis=1, keepdims=True), kept, present)

    def compute_output_shape(self, present_shape):
        return present_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
