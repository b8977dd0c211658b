"""The two-tower model: image tower and text encoders with tuning DNNs -> fusion -> head. Pure Keras."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import keras
import numpy as np

from mm_keras.configurable import Rate, configurable
from mm_keras.features import IMAGE, FeatureSpec, present
from mm_keras.model.fusion import build_concatenation
from mm_keras.model.head import build_head
from mm_keras.model.image_tower import build_image_tower
from mm_keras.model.layers import MissingEmbedding, ModalityDropout
from mm_keras.model.lexical_encoder import build_lexical_encoder
from mm_keras.model.text_encoder import build_small_text_encoder
from mm_keras.model.tuning_dnn import build_tuning_dnn


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
        features: what goes in and comes out.
        image_tower: `(ImageSpec) -> model`.
        text_encoder: `(TextSpec, name=) -> model`.
        tuning_dnn: `(width, name=) -> model`, one a modality (the image only with `tune_image`).
        fusion: `(shapes by modality) -> model`. Sequences, of encoders whose pooling is "none", come to it without tuning.
        head: `(width, num_labels) -> model`.
        lexical_encoder: `(TextSpec, name=) -> model`, "<field>_words", for each text field whose tokens are known and whose
            encoder gives a vector: it joins the tuned one. For what a sentence encoder blurs: brands, models, materials. None:
            without, as in the papers, and for encoders that learn their words from scratch.
        tune_image: give the image a tuning DNN too; False: as in the papers.
        normalize: scale each embedding to a root mean square of 1 (times learned factors) before it is fused, so that no
            modality is louder than another; False: as in the papers. What is missing is not scaled: its learned
            embedding starts at zero, where a normalisation's gradient explodes.
        share_text_encoder: one encoder for all fields (the tuning DNNs are always their own), or one each.
        modality_dropout: probability, 0–1, of hiding a modality in training; never all.
        class_embeddings: float [num_labels, C], given to a head that compares with them.

    Returns:
        model "two_tower": the inputs of `features.inputs()`, by name -> logits [B, num_labels].
    """
    inputs = {name: keras.Input(shape, dtype=dtype, name=name) for name, (shape, dtype) in features.inputs().items()}
    embeddings = {}
    if features.image:
        embeddings[IMAGE] = image_tower(features.image)(inputs[IMAGE])
    encoders: dict[str, keras.Model] = {}
    for text in features.texts:
        name = "text_encoder" if share_text_encoder else f"{text.field}_encoder"
        if name not in encoders:
            encoders[name] = text_encoder(text, name=name)
        embeddings[text.field] = encoders[name]({part: inputs[f"{text.field}_{part}"] for part in text.inputs()})

    parts: dict[str, keras.Layer] = {"modality_dropout": ModalityDropout(modality_dropout, name="modality_dropout")}
    shapes = {}
    for modality, embedding in embeddings.items():
        embeddings[modality] = keras.layers.Identity(name=f"{modality}_encoded")(embedding)  # where `split_at_frozen` cuts
        shapes[modality] = embedding.shape[1:]
        if len(shapes[modality]) == 1 and (modality != IMAGE or tune_image):
            parts[f"{modality}_tuning"] = tuning_dnn(embedding.shape[-1], name=f"{modality}_tuning")
            shapes[modality] = parts[f"{modality}_tuning"].compute_output_shape(embedding.shape)[1:]
        if normalize:
            parts[f"{modality}_norm"] = keras.layers.RMSNormalization(name=f"{modality}_norm")
        parts[f"{modality}_missing"] = MissingEmbedding(name=f"{modality}_missing")
    for text in features.texts if lexical_encoder else ():
        if text.tokenizer and len(shapes[text.field]) == 1:
            parts[f"{text.field}_words"] = lexical_encoder(text, name=f"{text.field}_words")
            parts[f"{text.field}_and_words"] = keras.layers.Concatenate(name=f"{text.field}_and_words")
            shapes[text.field] = (shapes[text.field][0] + parts[f"{text.field}_words"].output.shape[-1],)
    given = {} if class_embeddings is None else {"class_embeddings": class_embeddings}
    if given and "class_embeddings" not in inspect.signature(head).parameters:
        raise ValueError(
            "class embeddings are for a head that takes them: bind build_two_tower.head = @build_class_embedding_head"
        )
    parts["fusion"] = fusion(shapes)
    parts["head"] = head(parts["fusion"].output.shape[-1], len(features.labels), **given)
    logits, _ = answer(parts, embeddings, inputs)
    return keras.Model(inputs, logits, name="two_tower")


def answer(
    parts: Mapping[str, keras.Layer], embeddings: dict[str, keras.KerasTensor], inputs: dict[str, keras.KerasTensor]
) -> tuple[keras.KerasTensor, dict[str, keras.KerasTensor]]:
    """All that stands behind the encoders: tuning, presence, fusion, head.

    Args:
        parts: layers by their names in the model.
        embeddings: modality -> [B, D], what its encoder says.
        inputs: presence flags by name; and the tokens of fields that have a lexical encoder.

    Returns:
        (logits [B, num_labels], modality -> its tuned embedding).
    """
    flags = keras.ops.stack([inputs[present(modality)] for modality in embeddings], axis=-1)
    flags = parts["modality_dropout"](flags)
    tuned, known, shown = {}, {}, {}
    for index, (modality, embedding) in enumerate(embeddings.items()):
        for name in (f"{modality}_tuning", f"{modality}_norm"):
            embedding = parts[name](embedding) if name in parts else embedding
        if f"{modality}_words" in parts:
            words = parts[f"{modality}_words"]({part: inputs[f"{modality}_{part}"] for part in ("token_ids", "padding_mask")})
            embedding = parts[f"{modality}_and_words"]([embedding, words])
        tuned[modality] = embedding
        shown[modality] = flags[:, index]
        known[modality] = parts[f"{modality}_missing"](embedding, shown[modality])
    return parts["head"](parts["fusion"](known | _flags_for(parts["fusion"], shown))), tuned


def split_at_embeddings(model: keras.Model, modalities: tuple[str, ...]) -> tuple[keras.Model, keras.Model]:
    """Cuts a two-tower model in two, so that its towers need to run only once where presence is varied.

    Args:
        model: of `build_two_tower`.
        modalities: of its features.

    Returns:
        (encoders: the model's inputs -> {"<modality>_embedding": [B, D]}, and the tokens of fields that have a lexical encoder:
        they take less room than its bags;
        fusion and head: those and {"<modality>_present": bool [B]} -> logits [B, num_labels]).
    """
    names = {modality: f"{modality}_embedding" for modality in modalities}
    parts = {layer.name: layer for layer in model.layers}
    encoded, tokens = {}, {}
    for modality, name in names.items():
        words = parts.get(f"{modality}_and_words")
        encoded[name] = (words or parts[f"{modality}_missing"]).input[0]  # [B, T, D] of a sequence
        if words:
            tokens[modality] = {part: model.input[f"{modality}_{part}"] for part in parts[f"{modality}_words"].input}
            encoded |= {f"{modality}_{part}": tensor for part, tensor in tokens[modality].items()}
    encoders = keras.Model(model.input, encoded, name="encoders")
    inputs = {name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name) for name, tensor in encoded.items()}
    flags = {present(modality): keras.Input((), dtype="bool", name=present(modality)) for modality in modalities}
    known = {}
    for modality, name in names.items():
        embedding = inputs[name]
        if modality in tokens:
            words = parts[f"{modality}_words"]({part: inputs[f"{modality}_{part}"] for part in tokens[modality]})
            embedding = parts[f"{modality}_and_words"]([embedding, words])
        known[modality] = parts[f"{modality}_missing"](embedding, flags[present(modality)])
    by_modality = {modality: flags[present(modality)] for modality in modalities}
    logits = parts["head"](parts["fusion"](known | _flags_for(parts["fusion"], by_modality)))
    return encoders, keras.Model(inputs | flags, logits, name="fusion_and_head")


def _flags_for(fusion: keras.Model, flags: dict[str, keras.KerasTensor]) -> dict[str, keras.KerasTensor]:
    """The presence flags by the names of the fusion's inputs; none where it takes none."""
    taken = {tensor.name for tensor in fusion.inputs}
    return {present(modality): flag for modality, flag in flags.items() if present(modality) in taken}
