"""Text encoders: token ids [B, T] and padding mask [B, T] -> embedding [B, D]. Pure Keras."""

from __future__ import annotations

from typing import Literal

import keras

from mm_keras.configurable import PositiveInt, Rate, configurable
from mm_keras.features import EmbeddedText, StringText, TextSpec, TokenText
from mm_keras.model.layers import MaskedMeanPooling, ZeroPadding


@configurable
def build_small_text_encoder(
    spec: TextSpec,
    width: PositiveInt = 64,
    kernel_size: PositiveInt = 3,
    name: str = "text_encoder",
) -> keras.Model:
    """Word embeddings and a convolution over neighbours, each averaged over the text. It learns from scratch.

    Args:
        spec: the text field, which must be seen as tokens. Its vocabulary sizes the embedding table.
        width: the width of the word embeddings, and the number of the convolution's filters.
        kernel_size: how many words the convolution sees at a time.
        name: the model's name.

    Returns:
        model: {"token_ids" int32 [B, T], "padding_mask" bool [B, T]} -> [B, 2 * width]; zeros for a text without tokens.

    Raises:
        ValueError: for a field that a SavedModel embeds.
    """
    inputs = token_inputs(spec)
    words = keras.layers.Embedding(len(spec.tokenizer.vocabulary), width, name="word_embedding")(inputs["token_ids"])
    words = ZeroPadding(name="zero_padding")(words, inputs["padding_mask"])
    phrases = keras.layers.Conv1D(width, kernel_size, padding="same", activation="relu", name="phrases")(words)
    pooled = [
        MaskedMeanPooling(name=f"pool_{kind}")(states, inputs["padding_mask"])
        for kind, states in (("words", words), ("phrases", phrases))
    ]
    return keras.Model(inputs, keras.layers.Concatenate(name="embedding")(pooled), name=name)


@configurable
def build_recurrent_encoder(
    spec: TextSpec,
    cell: Literal["lstm", "gru"] = "lstm",
    embedding_width: PositiveInt = 128,
    width: PositiveInt = 256,
    num_layers: PositiveInt = 1,
    bidirectional: bool = False,
    dropout: Rate = 0.0,
    name: str = "text_encoder",
) -> keras.Model:
    """Word embeddings and an LSTM or GRU that learn from scratch; the state after the last word is the embedding.

    Args:
        spec: the text field, which must be seen as tokens. Its vocabulary sizes the embedding table.
        cell: "lstm" or "gru".
        embedding_width: the width of the word embeddings.
        width: the width of the state of each layer and direction.
        num_layers: how many layers there are, at least 1; each reads the states of the one below.
        bidirectional: whether the text is also read from its end. The state of that direction after the first word is then
            joined to the state after the last word.
        dropout: rate, within [0, 1), of the dropout of the word embeddings and of the states between layers.
        name: the model's name.

    Returns:
        model: {"token_ids" int32 [B, T], "padding_mask" bool [B, T], padded at the end} -> [B, width], or [B, 2 * width] if
        bidirectional; zeros for a text without tokens.

    Raises:
        ValueError: for an unknown cell, no layer, or a field that a SavedModel embeds.
    """
    cells = {"gru": keras.layers.GRU, "lstm": keras.layers.LSTM}
    if cell not in cells:
        raise ValueError(f"recurrent cells are {sorted(cells)}. Received: {cell!r}")
    if num_layers < 1:
        raise ValueError(f"num_layers must be at least 1. Received: {num_layers}")
    inputs = token_inputs(spec)
    # cuDNN refuses a sequence without any token. So the first place is always read, and the state is set to zero below.
    first = keras.ops.ones_like(inputs["padding_mask"][:, :1])
    mask = keras.ops.concatenate([first, inputs["padding_mask"][:, 1:]], axis=1)
    x = keras.layers.Embedding(len(spec.tokenizer.vocabulary), embedding_width, name="word_embedding")(inputs["token_ids"])
    for index in range(num_layers):
        x = keras.layers.Dropout(dropout, name=f"dropout_{index}")(x)
        layer = cells[cell](width, return_sequences=index < num_layers - 1, name=f"{cell}_{index}")
        if bidirectional:
            layer = keras.layers.Bidirectional(layer, name=f"bidirectional_{index}")
        x = layer(x, mask=mask)
    has_tokens = keras.ops.any(inputs["padding_mask"], axis=1, keepdims=True)
    return keras.Model(inputs, keras.ops.where(has_tokens, x, keras.ops.zeros_like(x)), name=name)


@configurable
def build_embedding_encoder(spec: TextSpec, name: str = "text_encoder") -> keras.Model:
    """Passes on the vector that a frozen SavedModel has made of the text in the input pipeline.

    Args:
        spec: the text field, an `EmbeddedText`.
        name: the model's name.

    Returns:
        model: {"embedding" float32 [B, D]} -> the same [B, D].

    Raises:
        ValueError: for a field that is seen as tokens or as a string.
    """
    if isinstance(spec, StringText):
        raise ValueError(
            f"field {spec.field!r} comes as a string for a SavedModel that is trained: bind build_two_tower.text_encoder = "
            "@build_saved_model_encoder, or make_saved_model_embedder.trainable = False"
        )
    if not isinstance(spec, EmbeddedText):
        raise ValueError(
            f"field {spec.field!r} comes as tokens, build_embedding_encoder takes vectors: bind make_features.make_embedder, "
            "or another build_two_tower.text_encoder"
        )
    inputs = {"embedding": keras.Input((spec.embedder.width,), name="embedding")}
    return keras.Model(inputs, keras.layers.Identity(name="identity")(inputs["embedding"]), name=name)


def token_inputs(spec: TextSpec, max_tokens: int | None = None) -> dict[str, keras.KerasTensor]:
    """The Keras inputs of an encoder of tokens: "token_ids" int32 and "padding_mask" bool, [B, max_tokens] each.

    Args:
        spec: the text field.
        max_tokens: the length of the inputs; None takes texts of any length.

    Raises:
        ValueError: for a field that a SavedModel embeds.
    """
    if not isinstance(spec, TokenText):
        builder = "build_saved_model_encoder" if isinstance(spec, StringText) else "build_embedding_encoder"
        raise ValueError(
            f"field {spec.field!r} is for the SavedModel {spec.embedder.path}: bind build_two_tower.text_encoder = @{builder}"
        )
    return {
        "token_ids": keras.Input((max_tokens,), dtype="int32", name="token_ids"),
        "padding_mask": keras.Input((max_tokens,), dtype="bool", name="padding_mask"),
    }
