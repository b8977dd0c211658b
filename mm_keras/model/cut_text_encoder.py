"""Cuts a text encoder in two where the frozen layers of its transformer end. Pure Keras."""

from __future__ import annotations

import keras

from mm_keras.model.cut_tower import last_cut, tensors_in, tensors_out
from mm_keras.model.layers import MaskedMaxPooling, MaskedMeanPooling, ZeroPadding


def cut_text_encoder(encoder: keras.Model) -> tuple[keras.Model, keras.Model] | None:
    """Cuts a text encoder in two: embeddings and first layers, which are frozen, and the layers that are trained.

    Args:
        encoder: {"token_ids" int32 [B, T], "padding_mask" bool [B, T]} -> embedding [B, D], around one transformer.

    Returns:
        (the encoder's inputs -> states [B, T, W]; {"hidden_states" [B, T, W], "padding_mask" bool [B, T]} -> embedding, a
        model with the encoder's name). Both share their layers with the encoder, so that training the second one trains the
        encoder. None where nothing is frozen, where everything is, where texts are read in windows or pooled by their first
        token, or where a layer behind the cut takes more than states and mask (DeBERTa) or runs several times (ALBERT).
    """
    mask = encoder.input.get("padding_mask") if isinstance(encoder.input, dict) else None
    nested = [layer for layer in encoder.operations if isinstance(layer, keras.Model) and layer.trainable_weights]
    if mask is None or len(nested) != 1 or not isinstance(nested[0].input, dict):
        return None
    backbone = nested[0]
    feeds = dict(zip(sorted(backbone.input), tensors_in(backbone), strict=True))
    pooling = encoder.operations[encoder.operations.index(backbone) + 1 :]
    if feeds.get("padding_mask") is not mask or not _is_pooling(pooling):
        return None
    cut, _ = last_cut(backbone, [backbone.input["padding_mask"]])
    layers = _layers_behind(backbone, cut)
    if not layers:
        return None
    frozen_part = keras.Model(encoder.input, keras.Model(backbone.input, cut, name="frozen_layers")(feeds), name="frozen_part")
    states = keras.Input(cut.shape[1:], dtype=cut.dtype, name="hidden_states")
    padding_mask = keras.Input(mask.shape[1:], dtype="bool", name="padding_mask")
    # The layers are called anew on these inputs: Keras mixes up the graph of a new model that begins both at a tensor within
    # another model and at that model's inputs.
    embedding = states
    for layer in layers:
        embedding = layer(embedding, padding_mask=padding_mask)
    for layer in pooling:
        embedding = layer(embedding, padding_mask)
    return frozen_part, keras.Model({"hidden_states": states, "padding_mask": padding_mask}, embedding, name=encoder.name)


def _is_pooling(operations: list[keras.Operation]) -> bool:
    return not operations or (
        len(operations) == 1 and isinstance(operations[0], MaskedMeanPooling | MaskedMaxPooling | ZeroPadding)
    )


def _layers_behind(backbone: keras.Model, cut: keras.KerasTensor) -> list[keras.Layer]:
    """The layers between the tensor `cut` and the backbone's output, in their order.

    It is empty unless each is a TransformerEncoder of keras_hub that takes the states of the layer before and the padding mask.
    """
    import keras_hub

    mask, layers = backbone.input["padding_mask"], []
    if cut is backbone.input or any(cut is tensor for tensor in backbone.inputs):
        return []
    while cut is not backbone.output:
        following = [layer for layer in backbone.operations if any(tensor is cut for tensor in tensors_in(layer))]
        allowed = {id(cut), id(mask)}
        if len(following) != 1 or {id(tensor) for tensor in tensors_in(following[0])} - allowed or following[0] in layers:
            return []
        if not isinstance(following[0], keras_hub.layers.TransformerEncoder):
            return []
        layers.append(following[0])
        cut = tensors_out(following[0])[0]
    return layers
