"""Trains a text encoder on each text once where examples of the same text follow each other. Pure Keras."""

from __future__ import annotations

import keras
from keras import ops


class EncodeRuns(keras.layers.Layer):
    """Runs a text encoder once for each run of examples that have the same text, and repeats its embedding. In training only.

    Outside training the encoder runs on every example. The layer has the encoder's name.

    Args:
        encoder: {name: [B, …]} -> [B, …].
        length: how many examples a run has. B is a multiple of it, and the examples of a run must have the same text.

    Example: with `length` 2, of the texts a a b b the encoder reads a b, and its embeddings x y are repeated: x x y y.

    Reference: ImageD's discussion, which notes that with descriptions of classes the text encoder need run only once a class.
    """

    def __init__(self, encoder: keras.Model, length: int):
        super().__init__(name=encoder.name, dtype=encoder.dtype_policy)
        self.encoder = encoder
        self.length = length

    def call(self, inputs, training=False):
        if not training:
            return self.encoder(inputs, training=False)
        first = {name: tensor[:: self.length] for name, tensor in inputs.items()}
        return ops.repeat(self.encoder(first, training=True), self.length, axis=0)

    def compute_output_spec(self, inputs, training=False):
        return self.encoder.compute_output_spec(inputs)
