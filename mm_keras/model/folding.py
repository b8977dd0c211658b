"""Folds frozen batch normalisations into the convolutions before them. Pure Keras."""

from __future__ import annotations

import collections

import keras
import numpy as np

from mm_keras.model.cut_tower import tensors_in, tensors_out


def fold_frozen(model: keras.Model) -> keras.Model:
    """Folds each frozen batch normalisation into the frozen convolution before it; this computes the same in less time.

    With moving statistics, a normalisation multiplies each channel and adds to it, as the kernel and bias of the convolution
    can do as well (Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", 2018, section 3.2). On a CPU, MobileNetV2 spends a third of its time in normalisations.

    Args:
        model: a functional model of layers that are called once. Convolutions whose output something else reads, too, and
            normalisations behind anything else stay as they are.

    Returns:
        a model with the same name, input and output, and with copies of all other layers under their names; or the model
        itself, where there is nothing to fold.

    Example:
        >>> backbone = keras.applications.MobileNetV2(include_top=False)
        >>> backbone.trainable = False
        >>> len(backbone.layers), len(fold_frozen(backbone).layers)
        (154, 102)
    """
    norm_of = _foldable(model)
    if not norm_of:
        return model
    norms = {norm.name for norm in norm_of.values()}

    def copy(layer: keras.Layer) -> keras.Layer:
        return type(layer).from_config(layer.get_config() | ({"use_bias": True} if layer.name in norm_of else {}))

    def call(layer: keras.Layer, *args, **kwargs):
        return args[0] if layer.name in norms else layer(*args, **kwargs)

    folded = keras.models.clone_model(model, clone_function=copy, call_function=call)
    for layer in folded.layers:
        if layer.weights:
            original, norm = model.get_layer(layer.name), norm_of.get(layer.name)
            layer.set_weights(_folded_weights(original, norm) if norm else original.get_weights())
    return folded


def _foldable(model: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    """The name of each convolution -> the normalisation that becomes a part of it."""
    readers = collections.Counter(id(tensor) for operation in model.operations for tensor in tensors_in(operation))
    readers.update(id(tensor) for tensor in keras.tree.flatten(model.output))
    producers = {id(tensor): operation for operation in model.operations for tensor in tensors_out(operation)}
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


def _folded_weights(convolution: keras.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """[kernel, bias] of the convolution that computes what the two layers did."""
    kernel, *bias = (np.asarray(weight, "float64") for weight in convolution.get_weights())
    mean, variance = (np.asarray(statistic, "float64") for statistic in (norm.moving_mean, norm.moving_variance))
    scale = (np.asarray(norm.gamma, "float64") if norm.scale else 1.0) / np.sqrt(variance + norm.epsilon)
    offset = np.asarray(norm.beta, "float64") if norm.center else 0.0
    depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)  # kernel [h, w, channels, multiplier]
    by_channel = scale.reshape(kernel.shape[-2:]) if depthwise else scale
    return [kernel * by_channel, offset + ((bias[0] if bias else 0.0) - mean) * scale]
