"""Builds the two-tower model: image tower and text encoders with tuning DNNs -> fusion -> head. Pure Keras."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import keras
import numpy as np

from mm_keras.configurable import Rate, configurable
from mm_keras.features import IMAGE, FeatureSpec, TokenText
from mm_keras.model.fusion import build_concatenation
from mm_keras.model.head import build_head
from mm_keras.model.image_tower import build_image_tower
from mm_keras.model.layers import MissingEmbedding, ModalityDropout
from mm_keras.model.lexical_encoder import build_lexical_encoder
from mm_keras.model.text_encoder import build_small_text_encoder
from mm_keras.model.tuning_dnn import build_tuning_dnn
from mm_keras.model.two_tower_parts import MODALITY_DROPOUT, SHARED_TEXT_ENCODER, TwoTowerParts, part_name


@configurable
def build_two_tower(
    features: FeatureSpec,
    image_tower: Callable[..., keras.Model] = build_image_tower,
    text_encoder: Callable[..., keras.Model] = build_small_text_encoder,
    tuning_dnn: Callable[..., keras.Model] = build_tuning_dnn,
    fusion: Callable[..., keras.Model] = build_concatenation,
    head: Callable[..., keras.Model] = build_head,
    lexical_encoder: Callable[..., keras.Model] | None = build_lexical_encoder,
    tune_image: bool = True,
    normalize: bool = True,
    share_text_encoder: bool = True,
    modality_dropout: Rate = 0.1,
    class_embeddings: np.ndarray | None = None,
) -> keras.Model:
    """Builds the model that `features` describes.

    The parts are nested models that keep their names and can be taken out by them: "image_tower", "text_encoder" (or
    "<field>_encoder"), "<modality>_tuning", "fusion", "head".

    Args:
        features: the inputs and the labels.
        image_tower: `(ImageSpec) -> model`.
        text_encoder: `(TextSpec, name=) -> model`.
        tuning_dnn: `(width, name=) -> model`; it is called for every text field, and for the image where `tune_image` is True.
            Sequences, which come from encoders whose pooling is "none", are not tuned.
        fusion: `(shapes by modality) -> model`.
        head: `(width, num_labels) -> model`.
        lexical_encoder: `(TextSpec, name=) -> model`; it is called for every text field that is seen as tokens and whose
            encoder gives a vector, and its bag of words is joined to the tuned embedding. It tells apart what a sentence
            encoder blurs: brands, models, materials. None builds the models of the papers, and suits encoders that learn
            their words from scratch.
        tune_image: whether the image has a tuning DNN, too; the papers' models have none.
        normalize: whether each embedding is scaled to a root mean square of 1, times learned factors, before it is fused, so
            that no modality is louder than another; the papers' models are not normalised. The embedding of a missing modality
            is never scaled: it starts at zero, where a normalisation's gradient explodes.
        share_text_encoder: whether all fields share one encoder. Each field has a tuning DNN of its own in any case.
        modality_dropout: probability, within [0, 1), of hiding a modality in training; all are never hidden together.
        class_embeddings: float [num_labels, C], passed on to a head that compares the fused embedding with them.

    Returns:
        model "two_tower": the inputs of `features.inputs()` by name -> logits float32 [B, num_labels].

    Raises:
        ValueError: for class embeddings that the head does not take, and what the parts themselves refuse.

    Example:
        >>> model = build_two_tower(features, image_tower=build_small_cnn)
        >>> model.get_layer("title_tuning")
    """
    inputs = {name: keras.Input(shape, dtype=dtype, name=name) for name, (shape, dtype) in features.inputs().items()}
    parts = TwoTowerParts()
    parts.add(ModalityDropout(modality_dropout, name=MODALITY_DROPOUT))
    embeddings = _encode(parts, features, inputs, image_tower, text_encoder, share_text_encoder)
    for modality, embedding in embeddings.items():
        if len(embedding.shape) == 2 and (modality != IMAGE or tune_image):
            parts.add(tuning_dnn(embedding.shape[-1], name=part_name(modality, "tuning")))
        if normalize:
            parts.add(keras.layers.RMSNormalization(name=part_name(modality, "norm")))
        parts.add(MissingEmbedding(name=part_name(modality, "missing")))
        embeddings[modality] = parts.tune(modality, embedding)
    for text in features.texts if lexical_encoder else ():
        if isinstance(text, TokenText) and len(embeddings[text.name].shape) == 2:
            parts.add(lexical_encoder(text, name=part_name(text.name, "words")))
            parts.add(keras.layers.Concatenate(name=part_name(text.name, "and_words")))
            embeddings[text.name] = parts.join_words(text.name, embeddings[text.name], inputs)
    fused = parts.add(fusion({modality: embedding.shape[1:] for modality, embedding in embeddings.items()}))
    parts.add(_build_head(head, fused.output.shape[-1], len(features.labels), class_embeddings))
    return keras.Model(inputs, parts.classify(embeddings, inputs), name="two_tower")


def _encode(
    parts: TwoTowerParts,
    features: FeatureSpec,
    inputs: dict[str, keras.KerasTensor],
    image_tower: Callable[..., keras.Model],
    text_encoder: Callable[..., keras.Model],
    share_text_encoder: bool,
) -> dict[str, keras.KerasTensor]:
    """Runs the towers. Returns modality -> embedding [B, D], or [B, T, D] of a sequence.

    The identity layer behind each tower, which marks where the tower ends, is added to the parts.
    """
    encoded = {}
    if features.image:
        encoded[IMAGE] = image_tower(features.image)(inputs[IMAGE])
    encoders: dict[str, keras.Model] = {}
    for text in features.texts:
        name = SHARED_TEXT_ENCODER if share_text_encoder else part_name(text.name, "encoder")
        if name not in encoders:
            encoders[name] = text_encoder(text, name=name)
        encoded[text.name] = encoders[name]({part: inputs[input_name] for part, input_name in text.batch_names().items()})
    for modality, embedding in encoded.items():
        encoded[modality] = parts.add(keras.layers.Identity(name=part_name(modality, "encoded")))(embedding)
    return encoded


def _build_head(
    head: Callable[..., keras.Model], width: int, num_labels: int, class_embeddings: np.ndarray | None
) -> keras.Model:
    """Calls `head`, with the class embeddings where there are some.

    Raises:
        ValueError: for class embeddings, where the head takes none.
    """
    if class_embeddings is None:
        return head(width, num_labels)
    if "class_embeddings" not in inspect.signature(head).parameters:
        raise ValueError(
            "class embeddings are for a head that takes them: bind build_two_tower.head = @build_class_embedding_head"
        )
    return head(width, num_labels, class_embeddings=class_embeddings)
