"""Fusion: an embedding a modality -> one. Pure Keras."""

from __future__ import annotations

import keras


def build_concatenation(widths: dict[str, int]) -> keras.Model:
    """Concatenates the modalities' embeddings.

    Args:
        widths: modality -> D of its embedding.

    Returns:
        model "fusion": {modality: [B, D]} -> [B, sum of D].
    """
    inputs = {modality: keras.Input((width,), name=modality) for modality, width in widths.items()}
    parts = list(inputs.values())
    fused = keras.layers.Concatenate(name="concatenated_embeddings")(parts) if len(parts) > 1 else parts[0]
    return keras.Model(inputs, fused, name="fusion")
