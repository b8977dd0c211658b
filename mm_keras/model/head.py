"""The classification head: fused embedding -> logits. Pure Keras."""

from __future__ import annotations

from collections.abc import Sequence

import keras


def build_head(input_width: int, num_labels: int, hidden_units: Sequence[int] = (), dropout: float = 0.1) -> keras.Model:
    """Dense layers, then one logit a label: for softmax (multi-class) and for sigmoid (multi-label) alike.

    Args:
        input_width: D of the fused embedding.
        num_labels: number of logits.
        hidden_units: width of each layer before the last.
        dropout: rate, 0–1, before each dense layer.

    Returns:
        model "head": [B, input_width] -> logits float32 [B, num_labels], in float32 under mixed precision too.
    """
    inputs = x = keras.Input((input_width,), name="fused")
    for index, width in enumerate(hidden_units):
        x = keras.layers.Dropout(dropout, name=f"dropout_{index}")(x)
        x = keras.layers.Dense(width, activation="relu", name=f"dense_{index}")(x)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    logits = keras.layers.Dense(num_labels, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="head")
