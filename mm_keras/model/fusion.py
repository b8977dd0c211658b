"""Fusion: an embedding a modality -> one. Pure Keras."""

from __future__ import annotations

import keras


def build_concatenation(widths: dict[str, int], normalize: bool = True) -> keras.Model:
    """Concatenates the modalities' embeddings.

    Args:
        widths: modality -> D of its embedding.
        normalize: scale each embedding to unit length first, so that no modality is louder than another; False is the
            papers' plain concatenation.

    Returns:
        model "fusion": {modality: [B, D]} -> [B, sum of D].
    """
    inputs = {modality: keras.Input((width,), name=modality) for modality, width in widths.items()}
    parts = list(inputs.values())
    if normalize:
        parts = [keras.layers.RMSNormalization(name=f"{modality}_norm")(part) for modality, part in inputs.items()]
    fused = keras.layers.Concatenate(name="concatenate")(parts) if len(parts) > 1 else parts[0]
    return keras.Model(inputs, keras.layers.Identity(name="fused")(fused), name="fusion")
