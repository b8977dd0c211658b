"""Fusions: the embeddings of all modalities -> one embedding. Pure Keras.

The inputs of a fusion are the embeddings, by the `safe_name` of their modalities. A fusion may have the presence flags
`<modality>_present` as inputs, too; `build_two_tower` connects those that it has. The embedding of a missing modality is a
learned vector, see `MissingEmbedding`.

An embedding is a vector of shape (D,). `build_cross_attention_fusion` also takes sequences of patches or tokens, of shape
(T, D).
"""

from __future__ import annotations

import keras
from keras import ops

from mm_keras.configurable import PositiveInt, Rate, configurable
from mm_keras.features import present, safe_name
from mm_keras.model.layers import MaskedMeanPooling

Shapes = dict[str, tuple[int | None, ...]]


@configurable
def build_concatenation(shapes: Shapes) -> keras.Model:
    """Concatenates the modalities' embeddings.

    Args:
        shapes: modality -> (D,) of its embedding.

    Returns:
        model "fusion": {modality: [B, D]} -> [B, sum of D].
    """
    inputs = _vector_inputs(shapes)
    parts = list(inputs.values())
    fused = keras.layers.Concatenate(name="concatenated_embeddings")(parts) if len(parts) > 1 else parts[0]
    return keras.Model(inputs, fused, name="fusion")


@configurable
def build_gated_fusion(shapes: Shapes, width: PositiveInt = 256) -> keras.Model:
    """A weighted sum of the modalities, whose weights depend on all of them: h = sum_m z_m * tanh(W_m x_m).

    A linear function of all embeddings and presence flags gives a score for each modality and each of the `width` units. The
    gates z are the softmax of these scores over the modalities that are present. A missing modality has a weight of exactly 0.

    Reference: Arevalo et al., "Gated Multimodal Units for Information Fusion" (2017), section 3.1. Their gates are sigmoids;
    here they are a softmax, so that the weights add up to 1 whichever modality is missing.

    Args:
        shapes: modality -> (D,) of its embedding.
        width: the width of the fused embedding.

    Returns:
        model "fusion": {modality: [B, D], "<modality>_present": bool [B]} -> [B, width].
    """
    inputs, flags = _vector_inputs(shapes), _presence_inputs(shapes)
    presence = ops.stack(list(flags.values()), axis=-1)  # [B, M]
    hidden = [keras.layers.Dense(width, activation="tanh", name=f"{name}_hidden")(x) for name, x in inputs.items()]
    gate_inputs = keras.layers.Concatenate(name="gate_inputs")([*inputs.values(), ops.cast(presence, hidden[0].dtype)])
    scores = keras.layers.Dense(width * len(shapes), name="gate_scores")(gate_inputs)
    scores = ops.reshape(scores, (-1, len(shapes), width))
    gates = MaskedSoftmax(name="gates")(scores, presence)
    fused = ops.sum(gates * ops.stack(hidden, axis=1), axis=1)
    return keras.Model(inputs | flags, fused, name="fusion")


@configurable
def build_bilinear_fusion(shapes: Shapes, width: PositiveInt = 256, rank: PositiveInt = 4) -> keras.Model:
    """Low-rank products of all modalities, joined to the embeddings themselves: h = sum_r prod_m (W_mr x_m + b_mr).

    The factor of a missing modality is 1, so that h is the product of the other factors.

    Reference: Liu et al., "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors" (2018), equation 8 (the bias is
    its appended 1); with two modalities and rank 1 it is Kim et al., "Hadamard Product for Low-rank Bilinear Pooling" (2017).

    Args:
        shapes: modality -> (D,) of its embedding.
        width: the width of h.
        rank: how many products are summed.

    Returns:
        model "fusion": {modality: [B, D], "<modality>_present": bool [B]} -> [B, sum of D + width].
    """
    inputs, flags = _vector_inputs(shapes), _presence_inputs(shapes)
    product = None
    for name, x in inputs.items():
        factor = keras.layers.Dense(rank * width, bias_initializer="ones", name=f"{name}_factor")(x)
        factor = ops.where(ops.expand_dims(flags[present(name)], -1), factor, ops.ones_like(factor))
        product = factor if product is None else product * factor
    joint = ops.sum(ops.reshape(product, (-1, rank, width)), axis=1)
    joint = keras.layers.LayerNormalization(name="joint_norm")(joint)
    fused = keras.layers.Concatenate(name="embeddings_and_products")([*inputs.values(), joint])
    return keras.Model(inputs | flags, fused, name="fusion")


@configurable
def build_cross_attention_fusion(
    shapes: Shapes,
    width: PositiveInt = 256,
    num_heads: PositiveInt = 4,
    num_blocks: PositiveInt = 1,
    dropout: Rate = 0.1,
) -> keras.Model:
    """Patches attend to words and words to patches; then each modality is averaged over its patches or words.

    A block consists, for every modality, of attention to all patches or words of the others and of a feed-forward layer, both
    with a residual connection and a normalisation. A missing modality is not attended to, and its average is zero.

    Reference: Lu et al., "ViLBERT" (2019), section 3.1. There, self-attention precedes each co-attentional layer; here the
    towers have done that.

    Args:
        shapes: modality -> (T, D) of its sequence, in which a vector of zeros is padding; or (D,) of a vector.
        width: the width of all states, a multiple of `num_heads`.
        num_heads: how many heads the attention has.
        num_blocks: how many blocks there are, at least 1.
        dropout: rate, within [0, 1), of the dropout of attention weights and of the output of feed-forward layers.

    Returns:
        model "fusion": {modality: [B, T, D] or [B, D], "<modality>_present": bool [B]} -> [B, width * number of modalities].

    Raises:
        ValueError: for a width that is no multiple of `num_heads`, or for fewer blocks than one.
    """
    if width % num_heads or num_blocks < 1:
        raise ValueError(
            f"width must be a multiple of num_heads, and num_blocks at least 1. Received: width={width}, "
            f"num_heads={num_heads}, num_blocks={num_blocks}"
        )
    inputs, flags = _embedding_inputs(shapes), _presence_inputs(shapes)
    states, masks = {}, {}
    for modality, x in inputs.items():
        x = x if len(x.shape) == 3 else ops.expand_dims(x, 1)
        masks[modality] = ops.logical_and(ops.any(x != 0, axis=-1), ops.expand_dims(flags[present(modality)], -1))
        states[modality] = keras.layers.Dense(width, name=f"{modality}_projection")(x)
    for block in range(num_blocks):
        attended = {}
        for modality, x in states.items():
            name = f"{modality}_{block}"
            others = [other for other in states if other != modality]
            if others:
                zero_state = ops.zeros_like(x[:, :1])  # something to attend to where all other modalities are missing
                other_states = ops.concatenate([zero_state, *(states[other] for other in others)], axis=1)
                mask = [ops.ones_like(masks[modality][:, :1]), *(masks[other] for other in others)]
                mask = ops.expand_dims(ops.concatenate(mask, axis=1), 1)
                attention = keras.layers.MultiHeadAttention(
                    num_heads, width // num_heads, dropout=dropout, name=f"{name}_attention"
                )
                x = x + attention(x, other_states, attention_mask=mask)
                x = keras.layers.LayerNormalization(name=f"{name}_attention_norm")(x)
            feed_forward = keras.layers.Dense(2 * width, activation="gelu", name=f"{name}_inner")(x)
            feed_forward = keras.layers.Dropout(dropout, name=f"{name}_dropout")(
                keras.layers.Dense(width, name=f"{name}_outer")(feed_forward)
            )
            attended[modality] = keras.layers.LayerNormalization(name=f"{name}_norm")(x + feed_forward)
        states = attended
    pooled = [MaskedMeanPooling(name=f"{modality}_pool")(x, masks[modality]) for modality, x in states.items()]
    fused = keras.layers.Concatenate(name="pooled_states")(pooled) if len(pooled) > 1 else pooled[0]
    return keras.Model(inputs | flags, fused, name="fusion")


@keras.saving.register_keras_serializable(package="mm_keras")
class MaskedSoftmax(keras.layers.Layer):
    """[B, M, D] scores and [B, M] flags -> [B, M, D]: a softmax over those of the M modalities whose flag is True.

    The output is zero where the flag is False, and so it is zero everywhere if all flags of an example are False.
    """

    def call(self, scores, flags):
        flags = ops.expand_dims(flags, -1)
        lowest = ops.full_like(scores, -1e4)  # within the range of float16, too
        weights = ops.softmax(ops.where(flags, scores, lowest), axis=1)
        return ops.where(flags, weights, ops.zeros_like(weights))

    def compute_output_shape(self, scores_shape, flags_shape):
        return scores_shape


def _embedding_inputs(shapes: Shapes) -> dict[str, keras.KerasTensor]:
    return {safe_name(modality): keras.Input(shape, name=safe_name(modality)) for modality, shape in shapes.items()}


def _vector_inputs(shapes: Shapes) -> dict[str, keras.KerasTensor]:
    for modality, shape in shapes.items():
        if len(shape) != 1:
            raise ValueError(
                f"this fusion takes a vector a modality, and {modality!r} comes as a sequence {shape}: bind its encoder's "
                "pooling to another than 'none', or build_two_tower.fusion = @build_cross_attention_fusion"
            )
    return _embedding_inputs(shapes)


def _presence_inputs(shapes: Shapes) -> dict[str, keras.KerasTensor]:
    return {present(modality): keras.Input((), dtype="bool", name=present(modality)) for modality in shapes}
