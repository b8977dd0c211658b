"""Assigns the arrays of a weights file to the variables of a model, or says what does not fit."""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np

_SHOWN = 6


class Target(NamedTuple):
    """The variable that an array of a file is assigned to, after it was transposed and reshaped.

    Attributes:
        variable: a variable of the model; or several, among which the array is first split along its first axis.
        file_shape: the shape of the array in the file; None where it is that of the variable.
        axes: the order of axes that the array is transposed to; None leaves it as it is.
    """

    variable: keras.Variable | tuple[keras.Variable, ...]
    file_shape: tuple[int, ...] | None = None
    axes: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.variable.shape) if self.file_shape is None else self.file_shape


def assign(targets: dict[str, Target], arrays: dict[str, np.ndarray], what: str) -> None:
    """Assigns each array to its target, if all of them fit.

    Raises:
        ValueError: if an array is missing, left over, or of another shape; nothing is assigned then. The message begins with
            `what`.
    """
    check_fit(
        {name: target.shape for name, target in targets.items()}, {name: array.shape for name, array in arrays.items()}, what
    )
    for name, target in targets.items():
        variables = target.variable if isinstance(target.variable, tuple) else (target.variable,)
        for variable, array in zip(variables, np.split(arrays[name], len(variables)), strict=True):
            array = array if target.axes is None else array.transpose(target.axes)
            variable.assign(array.reshape(variable.shape).astype("float32", copy=False))


def check_fit(wanted: dict[str, tuple], in_file: dict[str, tuple], what: str) -> None:
    """Compares names and shapes of a model's weights with a file's.

    Raises:
        ValueError: if they differ. The message begins with `what`, and lists the differences.
    """
    missing, extra = [name for name in wanted if name not in in_file], [name for name in in_file if name not in wanted]
    differing = [
        f"{name} {_shape(in_file[name])} instead of {_shape(shape)}"
        for name, shape in wanted.items()
        if name in in_file and tuple(in_file[name]) != tuple(shape)
    ]
    if missing or extra or differing:
        kinds = {"missing from the file": missing, "left over in the file": extra, "of another shape in the file": differing}
        lines = [f"{len(names)} of {len(wanted)} {kind}: {_first(names)}" for kind, names in kinds.items() if names]
        raise ValueError("\n  ".join([f"{what}:", *lines]))


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
