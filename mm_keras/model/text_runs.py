"""Trains a text encoder on each text once where examples of the same text follow each other. Pure Keras."""

from __future__ import annotations

import keras
from keras import ops


class EncodeRuns(keras.layers.Layer):
    """An encoder that in training runs on the first example of each run, and says the same of the others.

    In inference it runs on every example. Its layer has the encoder's name.

    Args:
        encoder: {name: [B, …]} -> [B, …].
        length: of the runs: B is a multiple of it, and examples of a run have the same text.

    Reference: ImageD's discussion, that with descriptions of classes the text encoder need run only once a class.
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
