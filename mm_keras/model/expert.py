"""Takes an expert out of a trained two-tower model: a model that sees one modality alone. Pure Keras."""

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
    that modality, the learned embeddings that stand for the others where they are missing, the fusion and the head.

    Args:
        model: a model that `build_two_tower` or `build_solved_two_tower` built.
        features: the features that the model was built for.
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
    expert_parts = TwoTowerParts(layer for layer in model.layers if layer.name not in ("fusion", MODALITY_DROPOUT))
    expert_parts.add(ModalityDropout(0.0, name=MODALITY_DROPOUT))
    expert_parts.add(_build_fusion_of_one(parts, features, modality))
    return keras.Model(inputs, expert_parts.classify({modality: embedding}, inputs), name=model.name)


def _build_fusion_of_one(parts: TwoTowerParts, features: FeatureSpec, modality: str) -> keras.Model:
    """The whole model's fusion where one modality is present alone.

    Returns:
        model "fusion": the embedding [B, D] of the modality (and its presence flag, if the fusion reads flags) -> [B, F].
    """
    shapes = {other: parts.missing(other).input[0].shape[1:] for other in features.modalities}
    key, flag_name = safe_name(modality), present(modality)
    read_by_fusion = {tensor.name for tensor in parts.fusion.inputs}
    inputs = {key: keras.Input(shapes[modality], name=key)}
    if flag_name in read_by_fusion:
        inputs[flag_name] = keras.Input((), dtype="bool", name=flag_name)
    zeros_column = ops.zeros_like(inputs[key][:, :1] if len(shapes[modality]) == 1 else inputs[key][:, 0, :1])  # [B, 1]
    absent = ops.cast(zeros_column[:, 0], "bool")
    fusion_inputs = dict(inputs)
    for other, shape in shapes.items():
        if other == modality:
            continue
        zeros = ops.reshape(ops.repeat(zeros_column, _size(shape), axis=1), (-1, *shape))
        fusion_inputs[safe_name(other)] = parts.missing(other)(zeros, absent)
        if present(other) in read_by_fusion:
            fusion_inputs[present(other)] = absent
    return keras.Model(inputs, parts.fusion(fusion_inputs), name="fusion")


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size
