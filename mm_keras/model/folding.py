"""Folds frozen batch normalisations, and paddings, into convolutions. Pure Keras."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from mm_keras.model.cut_tower import tensors_in, tensors_out


def fold_frozen(model: keras.Model) -> keras.Model:
    """Folds each frozen batch normalisation into the frozen convolution before it; this computes the same in less time.

    With moving statistics, a normalisation multiplies each channel and adds to it, as the kernel and bias of the convolution
    can do as well (Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", 2018, section 3.2). On a CPU, MobileNetV2 spends a third of its time in normalisations. A layer that pads with
    zeros what such a convolution would pad in the same way by itself is left out, since it copies the largest tensors.

    Args:
        model: a functional model of layers that are called once. Convolutions whose output something else reads, too, and
            normalisations behind anything else stay as they are.

    Returns:
        a model with the same name, input and output, and with copies of all other layers under their names; or the model
        itself, where there is nothing to fold.

    Example:
        >>> backbone = keras.applications.MobileNetV2(input_shape=(224, 224, 3), include_top=False)
        >>> backbone.trainable = False
        >>> len(backbone.layers), len(fold_frozen(backbone).layers)
        (154, 98)
    """
    readers, producers = _count_readers(model), _producers(model)
    norm_of = _foldable(model, readers, producers)
    if not norm_of:
        return model
    padding_of = _needless_paddings([model.get_layer(name) for name in norm_of], readers, producers)
    left_out = {layer.name for layer in (*norm_of.values(), *padding_of.values())}

    def copy(layer: keras.Layer) -> keras.Layer:
        changes = {"use_bias": True} if layer.name in norm_of else {}
        changes |= {"padding": "same"} if layer.name in padding_of else {}
        return type(layer).from_config(layer.get_config() | changes)

    def call(layer: keras.Layer, *args, **kwargs):
        return args[0] if layer.name in left_out else layer(*args, **kwargs)

    folded = keras.models.clone_model(model, clone_function=copy, call_function=call)
    for layer in folded.layers:
        if layer.weights:
            original, norm = model.get_layer(layer.name), norm_of.get(layer.name)
            layer.set_weights(_folded_weights(original, norm) if norm else original.get_weights())
    return folded


def _foldable(
    model: keras.Model, readers: Mapping[int, int], producers: Mapping[int, keras.Operation]
) -> dict[str, keras.layers.BatchNormalization]:
    """The name of each convolution -> the normalisation that becomes a part of it."""
    norm_of = {}
    for norm in model.operations:
        if not isinstance(norm, keras.layers.BatchNormalization) or norm.trainable:
            continue
        (tensor,) = tensors_in(norm)
        convolution = producers[id(tensor)]
        if (
            type(convolution) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
            and not convolution.trainable
            and convolution.activation is keras.activations.linear
            and convolution.data_format == "channels_last"
            and norm.axis in (-1, 3)
            and readers[id(tensor)] == 1
        ):
            norm_of[convolution.name] = norm
    return norm_of


def _needless_paddings(
    convolutions: Sequence[keras.Layer], readers: Mapping[int, int], producers: Mapping[int, keras.Operation]
) -> dict[str, keras.layers.ZeroPadding2D]:
    """The name of a convolution, of some -> the layer before it that pads as the convolution does with padding "same"."""
    padding_of = {}
    for convolution in convolutions:
        (tensor,) = tensors_in(convolution)
        layer = producers[id(tensor)]
        if (
            isinstance(layer, keras.layers.ZeroPadding2D)
            and convolution.padding == "valid"
            and convolution.dilation_rate == (1, 1)
            and readers[id(tensor)] == 1
            and layer.padding == _same_padding(layer.input.shape[1:3], convolution)
        ):
            padding_of[convolution.name] = layer
    return padding_of


def _same_padding(size: tuple[int | None, int | None], convolution: keras.Layer) -> tuple[tuple[int, int], ...] | None:
    """((top, bottom), (left, right)) by which padding "same" pads a picture [H, W]; None if its size is not known."""
    if None in size:
        return None
    totals = [
        max((-(-length // stride) - 1) * stride + kernel - length, 0)
        for length, stride, kernel in zip(size, convolution.strides, convolution.kernel_size, strict=True)
    ]
    return tuple((total // 2, total - total // 2) for total in totals)


def _count_readers(model: keras.Model) -> collections.Counter[int]:
    """The id of each tensor -> how many operations, and outputs of the model, read it."""
    readers = collections.Counter(id(tensor) for operation in model.operations for tensor in tensors_in(operation))
    readers.update(id(tensor) for tensor in keras.tree.flatten(model.output))
    return readers


def _producers(model: keras.Model) -> dict[int, keras.Operation]:
    """The id of each tensor -> the operation that makes it."""
    return {id(tensor): operation for operation in model.operations for tensor in tensors_out(operation)}


def _folded_weights(convolution: keras.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """[kernel, bias] of the convolution that computes what the two layers did."""
    kernel, *bias = (np.asarray(weight, "float64") for weight in convolution.get_weights())
    mean, variance = (np.asarray(statistic, "float64") for statistic in (norm.moving_mean, norm.moving_variance))
    scale = (np.asarray(norm.gamma, "float64") if norm.scale else 1.0) / np.sqrt(variance + norm.epsilon)
    offset = np.asarray(norm.beta, "float64") if norm.center else 0.0
    depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)  # kernel [h, w, channels, multiplier]
    by_channel = scale.reshape(kernel.shape[-2:]) if depthwise else scale
    return [kernel * by_channel, offset + ((bias[0] if bias else 0.0) - mean) * scale]
