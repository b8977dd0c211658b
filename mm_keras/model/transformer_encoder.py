"""Pretrained transformers of keras_hub as text encoders: token ids and padding mask -> embedding. Pure Keras."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Literal, get_args

import keras
from keras import ops

from mm_keras.configurable import PositiveInt, checked_early, configurable
from mm_keras.downloads import check_preset, fetching_preset
from mm_keras.features import TextSpec
from mm_keras.keras_internals import preset_class_and_config, set_feedforward_activation
from mm_keras.model.layers import MaskedMaxPooling, MaskedMeanPooling, ZeroPadding
from mm_keras.model.text_encoder import token_inputs

Pooling = Literal["mean", "max", "cls", "native", "none"]


@configurable
@checked_early(check_preset)
def build_transformer_encoder(
    spec: TextSpec,
    source: str,
    pooling: Pooling = "mean",
    trainable: bool = False,
    freeze_up_to: str | None = None,
    windows: PositiveInt = 1,
    name: str = "text_encoder",
) -> keras.Model:
    """A BERT, RoBERTa, XLM-RoBERTa, DistilBERT, ALBERT, DeBERTa-v3, or the text part of a CLIP or SigLIP, pooled.

    The activation of a Hugging Face folder is the one that its config.json names. keras_hub by itself computes BERT's erf-GELU
    as tanh-GELU, which changes embeddings by 2e-4.

    Args:
        spec: the text field, with the encoder's own tokenizer (`make_pretrained_tokenizer` of the same source).
        source: a keras_hub preset name, a local preset, or a local Hugging Face folder (needs `safetensors`).
        pooling: how the states of the tokens become one embedding. "mean" and "max" are taken over the real tokens, start and
            end token among them. "cls" is the state of the first token. "native" is how CLIP and SigLIP themselves summarise a
            text, in the space of their image embeddings: CLIP by the state after the last token, SigLIP by its head. "none"
            keeps all states, with zeros at the padding, for a fusion that attends to them.
        trainable: whether the encoder is fine-tuned. A frozen encoder has no dropout.
        freeze_up_to: the last layer that is not trained, such as "transformer_layer_3" of six layers: only what follows is
            fine-tuned, without dropout. `train` then computes the states behind that layer once a text, where
            `train.cache_frozen` allows it.
        windows: in how many windows a text is read, for texts that are longer than the encoder's maximum. Each window has a
            start and an end token, and ceil((max_tokens - 2) / windows) tokens between them. The embeddings of the windows are
            averaged, weighted by their numbers of tokens; with "max" the maximum is taken. The time per token stays the same.
        name: the model's name.

    Returns:
        model: {"token_ids" int32 [B, T], "padding_mask" bool [B, T]} -> [B, D], where D is the hidden size, or the size of the
        projection for "native". With "none" the output is [B, T, D], in which windows follow each other. T is `max_tokens`
        where there are several windows, and any number otherwise.

    Raises:
        DownloadError: for a preset that cannot be fetched.
        ValueError: for another kind of model, an unknown pooling, activation or layer, another vocabulary than the
            tokenizer's, or too many tokens.

    Reference: ImageNet-Captions study (Fang et al.), eq. 1, for "mean".
    """
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling is one of {sorted(get_args(Pooling))}. Received: {pooling!r}")
    if windows < 1:
        raise ValueError(f"windows must be at least 1. Received: {windows}")
    inputs = token_inputs(spec, spec.max_tokens if windows > 1 else None)
    backbone = _load_backbone(source, trainable or freeze_up_to is not None, dropout=freeze_up_to is None)
    text_part = getattr(backbone, "text_encoder", backbone)  # of CLIP and SigLIP
    _check(spec, source, text_part, windows)
    encode = _make_encode(spec, source, backbone, text_part, pooling)
    if freeze_up_to is not None:
        _freeze(text_part, freeze_up_to)
    token_ids, padding_mask = inputs["token_ids"], inputs["padding_mask"]
    if windows == 1:
        return keras.Model(inputs, encode(token_ids, padding_mask), name=name)
    window = SplitInWindows(spec.max_tokens, windows, spec.tokenizer.start_id, spec.tokenizer.end_id, name="windows")
    token_ids, padding_mask = window(token_ids, padding_mask)
    counts = ops.sum(ops.cast(padding_mask, "float32"), axis=1)
    embeddings = encode(token_ids, padding_mask)
    if pooling == "none":
        return keras.Model(inputs, ops.reshape(embeddings, (-1, windows * embeddings.shape[1], embeddings.shape[2])), name=name)
    embeddings = ops.reshape(embeddings, (-1, windows, embeddings.shape[-1]))
    counts = ops.reshape(counts, (-1, windows))
    if pooling == "max":
        pooled = MaskedMaxPooling(name="pool_windows")(embeddings, counts > 0)
    else:
        weights = ops.expand_dims(ops.cast(counts, embeddings.dtype), -1)
        pooled = ops.sum(embeddings * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1)
    return keras.Model(inputs, pooled, name=name)


@keras.saving.register_keras_serializable(package="mm_keras")
class SplitInWindows(keras.layers.Layer):
    """Token ids and padding mask [B, T] -> token ids and padding mask [B * windows, W].

    Each window has a start and an end token: [CLS] a b c d e [SEP] in 2 windows is [CLS] a b c [SEP] and [CLS] d e [SEP]. A
    window without tokens consists of padding.

    Args:
        max_tokens: T.
        windows: how many windows a text is split into.
        start_id, end_id: the ids of the tokens around a text; None where there is no such token.
    """

    def __init__(self, max_tokens: int, windows: int, start_id: int | None, end_id: int | None, **kwargs):
        super().__init__(**kwargs)
        self.max_tokens, self.windows, self.start_id, self.end_id = max_tokens, windows, start_id, end_id
        self._inner = window_length(max_tokens, windows, start_id, end_id) - _num_ends(start_id, end_id)

    def call(self, token_ids, padding_mask):
        starts, ends = int(self.start_id is not None), int(self.end_id is not None)
        lengths = ops.sum(ops.cast(padding_mask, "int32"), axis=1, keepdims=True) - starts - ends  # without start and end token
        num_padding = self.windows * self._inner - (self.max_tokens - starts - ends)
        inner = ops.pad(token_ids[:, starts : self.max_tokens - ends], [[0, 0], [0, num_padding]])
        inner = ops.reshape(inner, (-1, self._inner))
        first = ops.expand_dims(ops.arange(self.windows, dtype="int32") * self._inner, 0)
        lengths = ops.reshape(ops.clip(lengths - first, 0, self._inner), (-1, 1))
        ids = ops.pad(inner, [[0, 0], [starts, ends]], constant_values=self.start_id or 0)
        position = ops.expand_dims(ops.arange(self._inner + starts + ends, dtype="int32"), 0)
        if ends:
            ids = ops.where(position == lengths + starts, self.end_id, ids)
        return ids, ops.logical_and(position < lengths + starts + ends, lengths > 0)

    def compute_output_spec(self, token_ids, padding_mask):
        shape = (None, self._inner + _num_ends(self.start_id, self.end_id))
        return keras.KerasTensor(shape, "int32"), keras.KerasTensor(shape, "bool")

    def get_config(self):
        names = ("max_tokens", "windows", "start_id", "end_id")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def window_length(max_tokens: int, windows: int, start_id: int | None, end_id: int | None) -> int:
    """How many tokens a window has, with its start and end token."""
    ends = _num_ends(start_id, end_id)
    return -(-(max_tokens - ends) // windows) + ends


def _num_ends(start_id: int | None, end_id: int | None) -> int:
    return (start_id is not None) + (end_id is not None)


def _load_backbone(source: str, trainable: bool, dropout: bool) -> keras.Model:
    import keras_hub

    models = keras_hub.models
    known_classes = (  # XLMRobertaBackbone is a RobertaBackbone
        models.AlbertBackbone,
        models.BertBackbone,
        models.CLIPBackbone,
        models.CLIPTextEncoder,
        models.DebertaV3Backbone,
        models.DistilBertBackbone,
        models.RobertaBackbone,
        models.SigLIPBackbone,
        models.SigLIPTextEncoder,
    )
    with fetching_preset(source):
        backbone_class, config = preset_class_and_config(source)
    if not issubclass(backbone_class, known_classes):
        names = sorted(known_class.__name__ for known_class in known_classes)
        raise ValueError(f"{source!r} is a {backbone_class.__name__}; text encoders are {names}")
    # A frozen encoder gives a text the same embedding in training as elsewhere.
    drops = trainable and dropout
    no_dropout = {"dropout": 0.0} if not drops and "dropout" in inspect.signature(backbone_class.__init__).parameters else {}
    with fetching_preset(source):
        backbone = backbone_class.from_preset(source, **no_dropout)
    # A Hugging Face config names the original's activation (DistilBERT's as "activation"); a preset of keras_hub has its own.
    if "model_type" in config:
        _set_activation(backbone, config.get("hidden_act", config.get("activation", "gelu")), source)
    backbone.trainable = trainable
    return backbone


def _set_activation(backbone: keras.Model, activation: str, source: str) -> None:
    import keras_hub

    gelu_approximate = keras.saving.get_registered_object("keras_hub>gelu_approximate")  # its name in saved Keras files
    functions = {
        "gelu": keras.activations.gelu,
        "gelu_new": gelu_approximate,
        "gelu_pytorch_tanh": gelu_approximate,
        "relu": keras.activations.relu,
    }
    if activation not in functions:
        raise ValueError(f"config.json of {source!r} asks for the activation {activation!r}; known are {sorted(functions)}")
    for layer in backbone.layers:
        if isinstance(layer, keras_hub.layers.TransformerEncoder):
            set_feedforward_activation(layer, functions[activation])


def _freeze(text_part: keras.Model, up_to: str) -> None:
    """Freezes the layers up to and including one, in the order in which they run."""
    layers = [layer for layer in text_part.layers if layer.weights]
    names = [layer.name for layer in layers]
    if up_to not in names:
        raise ValueError(f"freeze_up_to is one of {names}. Received: {up_to!r}")
    for layer in layers[: names.index(up_to) + 1]:
        layer.trainable = False


def _check(spec: TextSpec, source: str, text_part: keras.Model, windows: int) -> None:
    """Raises ValueError if the encoder has another vocabulary than the tokenizer, or cannot take as many tokens."""
    tokenizer = spec.tokenizer
    unused = text_part.vocabulary_size - len(tokenizer.vocabulary)  # DeBERTa's number of embeddings was rounded up
    if unused < 0 or (unused > 0 and tokenizer.family != "DebertaV3Tokenizer"):
        raise ValueError(
            f"encoder {source!r} knows {text_part.vocabulary_size} tokens, the tokenizer of field {spec.field!r} "
            f"{len(tokenizer.vocabulary)}: give make_pretrained_tokenizer.source and build_transformer_encoder.source one value"
        )
    length = window_length(spec.max_tokens, windows, tokenizer.start_id, tokenizer.end_id)
    if length > text_part.max_sequence_length:
        raise ValueError(
            f"field {spec.field!r} keeps {spec.max_tokens} tokens" + f" in {windows} windows of {length}" * (windows > 1) + ", "
            f"encoder {source!r} takes {text_part.max_sequence_length}: lower make_features.max_tokens, or read the text in "
            "more windows (build_transformer_encoder.windows)"
        )


def _make_encode(
    spec: TextSpec, source: str, backbone: keras.Model, text_part: keras.Model, pooling: str
) -> Callable[[keras.KerasTensor, keras.KerasTensor], keras.KerasTensor]:
    """Makes a function: token ids and padding mask [B, T] -> embedding [B, D], or states [B, T, D] for the pooling "none"."""
    import keras_hub

    is_clip = isinstance(text_part, keras_hub.models.CLIPTextEncoder)
    is_siglip = isinstance(text_part, keras_hub.models.SigLIPTextEncoder)
    if pooling == "native" and not (is_clip or is_siglip):
        raise ValueError(
            f"pooling 'native' is of CLIP and SigLIP; {source!r} is a {type(text_part).__name__}: 'mean', 'max', 'cls'"
        )
    if pooling == "cls" and is_clip:
        raise ValueError(
            f"{source!r} reads from left to right: its first state knows no word. Use pooling 'native', 'mean', 'max'"
        )
    if is_siglip and pooling != "native":
        part = keras.Model(text_part.input, text_part.post_layer_norm.output, name=text_part.name)
    elif isinstance(text_part.output, dict):  # without BERT's pooled output, which nothing here reads
        part = keras.Model(text_part.input, text_part.output["sequence_output"], name=text_part.name)
    else:
        part = text_part
    part.trainable = text_part.trainable
    length, pad_id = text_part.max_sequence_length, spec.tokenizer.end_id

    def encode(token_ids, padding_mask):
        part_inputs = {"token_ids": token_ids, "padding_mask": padding_mask, "segment_ids": ops.zeros_like(token_ids)}
        if is_siglip:  # it was trained on texts filled up with end tokens, which it attends to
            filled = ops.where(padding_mask, token_ids, pad_id)
            part_inputs["token_ids"] = ops.pad(filled, [[0, 0], [0, length]], constant_values=pad_id)[:, :length]
            padding_mask = ops.pad(padding_mask, [[0, 0], [0, length]], constant_values=False)[:, :length]
        states = part({key: part_inputs[key] for key in text_part.input})
        if pooling == "native" and is_siglip:
            return states
        if pooling == "native":
            last = ops.maximum(ops.sum(ops.cast(padding_mask, "int32"), axis=1) - 1, 0)
            states = ops.squeeze(ops.take_along_axis(states, last[:, None, None], axis=1), axis=1)
            return backbone.text_projection(states) if backbone is not text_part else states
        if pooling == "cls":
            return states[:, 0]
        if pooling == "none":
            return ZeroPadding(name="states")(states, padding_mask)
        pool = {"mean": MaskedMeanPooling, "max": MaskedMaxPooling}[pooling]
        return pool(name="pool")(states, padding_mask)

    return encode
