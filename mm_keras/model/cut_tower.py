"""Cuts a tower in two where its frozen first layers end. Pure Keras."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras


def cut_tower(tower: keras.Model) -> tuple[keras.Model, keras.Model] | None:
    """Cuts a tower in two: a first part, which is frozen, and a second part with all layers that are trained.

    The cut is behind the last tensor that depends on no trained weight and that all later layers get their input through. In a
    residual network that is the end of a block. A vision transformer is one layer, and is not cut.

    Args:
        tower: pixels [B, H, W, 3] -> embedding [B, D].

    Returns:
        (pixels -> activations; activations -> embedding, a model with the tower's name). Both share their layers with the
        tower, so that training the second one trains the tower. None where no layer with weights stands before a cut.
    """
    cut, backbone = last_cut(tower)
    backbone_parts = cut_tower(backbone) if backbone else None
    if backbone_parts:
        frozen_part, trained_part = backbone_parts
        activations = keras.Input(trained_part.input.shape[1:], dtype=trained_part.input.dtype, name="activations")
        features, output = tensors_out(backbone)[0], trained_part(activations)
        if features is not tower.output:
            output = keras.Model(features, tower.output, name="pooling")(output)
        return keras.Model(tower.input, frozen_part(cut), name="frozen_part"), keras.Model(activations, output, name=tower.name)
    frozen_part = keras.Model(tower.input, cut, name="frozen_part")
    return (frozen_part, keras.Model(cut, tower.output, name=tower.name)) if frozen_part.weights else None


def multiply_adds(model: keras.Model) -> int:
    """About how many multiply-adds a model takes for one example. Only convolutions and dense layers are counted."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += multiply_adds(layer)
        else:
            places = math.prod(layer.output.shape[1:-1]) if layer.weights else 0
            total += places * sum(math.prod(weight.shape) for weight in layer.weights if len(weight.shape) > 1)
    return total


def last_cut(model: keras.Model, read_behind: Sequence[keras.KerasTensor] = ()) -> tuple[keras.KerasTensor, keras.Model | None]:
    """Finds the last tensor behind which a model can be cut, see `cut_tower`.

    Args:
        model: the model to cut.
        read_behind: inputs of the model that layers behind the cut may read, too.

    Returns:
        (the tensor; the nested model that begins at this tensor and has trained weights, or None).
    """
    allowed = {id(tensor) for tensor in read_behind}
    operations = model.operations  # in an order in which every operation comes after those that it depends on
    last_use = {id(tensor): index for index, operation in enumerate(operations) for tensor in tensors_in(operation)}
    cut, used_later = model.input, set()
    for index, operation in enumerate(operations):
        if not _is_fixed(operation):
            starts_here = isinstance(operation, keras.Model) and tensors_in(operation)[0] is cut and used_later == {id(cut)}
            return cut, operation if starts_here else None
        used_later |= {id(tensor) for tensor in tensors_out(operation)}
        used_later = {tensor for tensor in used_later if last_use.get(tensor, len(operations)) > index}
        first_output = tensors_out(operation)[0]
        if used_later - allowed == {id(first_output)}:
            cut = first_output
    return cut, None


def tensors_in(operation: keras.Operation) -> list[keras.KerasTensor]:
    """The tensors of the outer model that the operation was first called with; none for an input."""
    # A nested `keras.Model` overrides `input` and `output` with its own tensors; those of `keras.Operation` are the tensors of
    # the outer model that it was called with.
    return keras.tree.flatten(keras.Operation.input.fget(operation))


def tensors_out(operation: keras.Operation) -> list[keras.KerasTensor]:
    """The tensors of the outer model that the operation's first call returned."""
    return keras.tree.flatten(keras.Operation.output.fget(operation))


def _is_fixed(operation: keras.Operation) -> bool:
    """Whether an operation gives the same output however long the model is trained.

    That holds for a layer without variables, and for a frozen one: dropout, which draws random numbers, has a variable.
    """
    return not isinstance(operation, keras.Layer) or not operation.trainable or not operation.variables
