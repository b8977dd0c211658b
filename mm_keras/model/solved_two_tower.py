"""Builds a two-tower model around a solved head, from the encoders of another one. Pure Keras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from mm_keras.features import FeatureSpec, TextSpec, TokenText
from mm_keras.model.solved_head import UnitBlocks, WeightedBag, build_blocks_fusion
from mm_keras.model.text_encoder import token_inputs
from mm_keras.model.two_tower import build_two_tower
from mm_keras.model.two_tower_parts import SHARED_TEXT_ENCODER, TwoTowerParts, part_name


def embedding_widths(encoder: keras.Model) -> list[int]:
    """The widths of the blocks of an encoder's output: the parts of the concatenation that it ends in, or the whole output.

    Args:
        encoder: a model with the output [B, D], such as average and maximum pooling side by side.

    Example:
        >>> embedding_widths(build_image_tower(spec, "mobilenet_v2", pooling="avg_max"))
        [1280, 1280]
    """
    last = encoder.layers[-1]
    if isinstance(last, keras.layers.Concatenate) and last.output is encoder.output:
        return [tensor.shape[-1] for tensor in last.input]
    return [encoder.output.shape[-1]]


def build_solved_two_tower(
    model: keras.Model,
    features: FeatureSpec,
    words: Mapping[str, tuple[np.ndarray, np.ndarray]],
    head: keras.Model,
) -> keras.Model:
    """The two-tower model around a solved head. It shares the encoders of another model.

    Args:
        model: a model that `build_two_tower` built, all of whose encoders give vectors.
        features: the features that the model was built for.
        words: text field -> (column of each token int32 [V], rarity of each column float32 [C]) of its weighted bag of words;
            fields that the model sees as vectors have none.
        head: the head, by `build_solved_head`. Its blocks are those of each modality's encoder, followed by its bag of words.

    Returns:
        model "two_tower": the inputs of `features.inputs()` by name -> logits float32 [B, num_labels].
    """
    parts = TwoTowerParts(model.layers)
    fields = [text.name for text in features.texts]
    shared = bool(fields) and all(parts.encoder(field).name == SHARED_TEXT_ENCODER for field in fields)
    widths = {part_name(modality, "tuning"): embedding_widths(parts.encoder(modality)) for modality in features.modalities}

    def build_words(text: TextSpec, name: str) -> keras.Model:
        assert isinstance(text, TokenText)  # a field of vectors has no lexical encoder
        column_of, rarity = words[text.name]
        inputs = token_inputs(text)
        bag = WeightedBag(len(column_of), len(rarity), name="bag")
        encoder = keras.Model(inputs, bag(inputs["token_ids"], inputs["padding_mask"]), name=name)
        bag.column_of.assign(column_of)
        bag.rarity.assign(rarity)
        return encoder

    solved = build_two_tower(
        features,
        image_tower=lambda spec: parts.encoder("image"),
        text_encoder=lambda text, name: parts.encoder(text.name),
        tuning_dnn=lambda width, name: _unit_blocks(widths[name], name),
        fusion=build_blocks_fusion,
        head=lambda width, num_labels: head,
        lexical_encoder=build_words,
        normalize=False,
        share_text_encoder=shared,
        modality_dropout=0.0,
    )
    solved.trainable = False
    return solved


def _unit_blocks(widths: Sequence[int], name: str) -> keras.Model:
    embedding = keras.Input((sum(widths),), name="embedding")
    return keras.Model(embedding, UnitBlocks(widths, name="unit")(embedding), name=name)
