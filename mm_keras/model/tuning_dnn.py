"""The tuning DNN: fits a (frozen) encoder's embedding to the task. Pure Keras."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from mm_keras.configurable import PositiveInt, Rate, configurable


@configurable
def build_tuning_dnn(
    input_width: int, units: Sequence[PositiveInt] = (256,), dropout: Rate = 0.1, name: str = "tuning_dnn"
) -> keras.Model:
    """Dense layers, each normalised, rectified and followed by dropout.

    Args:
        input_width: D, the width of the embedding.
        units: the width of each layer; an empty sequence leaves the embedding as it is.
        dropout: rate of the dropout after each layer, within [0, 1).
        name: the model's name.

    Returns:
        model: [B, input_width] -> [B, units[-1]].
    """
    inputs = x = keras.Input((input_width,), name="embedding")
    for index, width in enumerate(units):
        x = keras.layers.Dense(width, use_bias=False, name=f"dense_{index}")(x)
        x = keras.layers.LayerNormalization(name=f"norm_{index}")(x)
        x = keras.layers.ReLU(name=f"relu_{index}")(x)
        x = keras.layers.Dropout(dropout, name=f"dropout_{index}")(x)
    return keras.Model(inputs, x, name=name)
