"""Takes one expert out of a trained two-tower model: what it says of one modality alone. Pure Keras."""

from __future__ import annotations

import keras
from keras import ops

from mm_keras.features import FeatureSpec, present, safe_name
from mm_keras.model.late_fusion import fused_models
from mm_keras.model.layers import ModalityDropout
from mm_keras.model.two_tower_parts import MODALITY_DROPOUT, TwoTowerParts


def build_expert(model: keras.Model, features: FeatureSpec, modality: str) -> keras.Model:
    """The model that sees one modality and answers as the whole one does where all others are missing.

    It shares its weights with the whole model, and is a two-tower model of one modality: the encoder and the tuning DNN of
    that modality, the learned embeddings for the others being missing, fusion and head.

    Args:
        model: a model that `build_two_tower` or `build_solved_two_tower` built.
        features: its inputs.
        modality: "image" or a text field.

    Returns:
        model "two_tower": the inputs of `features.only([modality]).inputs()` by name -> logits float32 [B, num_labels].

    Raises:
        ValueError: for a late fusion, whose experts are the runs that it was made of.
    """
    if fused_models(model):
        raise ValueError("a late fusion is made of whole models: its experts are the runs that were fused")
    parts = TwoTowerParts(model.layers)
    spec = features.only([modality])
    inputs = {name: model.input[name] for name in spec.inputs()}
    embedding = parts.join_words(modality, parts.tuned_tensor(modality), model.input)
    alone = TwoTowerParts(layer for layer in model.layers if layer.name not in ("fusion", MODALITY_DROPOUT))
    alone.add(ModalityDropout(0.0, name=MODALITY_DROPOUT))
    alone.add(_build_fusion_of_one(parts, features, modality))
    return keras.Model(inputs, alone.classify({modality: embedding}, inputs), name=model.name)


def _build_fusion_of_one(parts: TwoTowerParts, features: FeatureSpec, modality: str) -> keras.Model:
    """The whole model's fusion, as one of a modality: its embedding [B, D] (and its presence flag, if read) -> [B, F]."""
    shapes = {other: parts.missing(other).input[0].shape[1:] for other in features.modalities}
    key, flag_name = safe_name(modality), present(modality)
    read = {tensor.name for tensor in parts.fusion.inputs}
    given = {key: keras.Input(shapes[modality], name=key)}
    if flag_name in read:
        given[flag_name] = keras.Input((), dtype="bool", name=flag_name)
    nothing = ops.zeros_like(given[key][:, :1] if len(shapes[modality]) == 1 else given[key][:, 0, :1])  # [B, 1]
    absent = ops.cast(nothing[:, 0], "bool")
    fused = dict(given)
    for other, shape in shapes.items():
        if other == modality:
            continue
        zeros = ops.reshape(ops.repeat(nothing, _size(shape), axis=1), (-1, *shape))
        fused[safe_name(other)] = parts.missing(other)(zeros, absent)
        if present(other) in read:
            fused[present(other)] = absent
    return keras.Model(given, parts.fusion(fused), name="fusion")


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size
