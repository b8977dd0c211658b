"""Losses on logits. Pure Keras."""

from __future__ import annotations

import keras


def make_loss(multi_label: bool) -> keras.losses.Loss:
    """Softmax cross-entropy with label ids [B], or sigmoid cross-entropy with multi-hot labels [B, L].

    A batch's loss is the sum of weight x loss over its examples, divided by their number: an example of weight 2 counts twice.
    """
    if multi_label:
        return keras.losses.BinaryCrossentropy(from_logits=True, name="loss")
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, name="loss")
