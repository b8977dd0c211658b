"""Weights files of Keras: .weights.h5, and the .h5 of Keras 2, which name the layers that their arrays belong to."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py
import keras
import numpy as np

from mm_keras.model.unpacking import check_unpacked
from mm_keras.model.weight_targets import Target, check_fit

HEADS = ("predictions", "fc1000")  # names of the layers that keras.applications puts on top


def load_keras_file(model: keras.Model, path: Path) -> None:
    """Loads a `.weights.h5` file.

    Keras silently loads a part of a larger model's file. So the numbers of arrays are compared first.

    Raises:
        ValueError: for a file of another model; the message lists the differences, and the model has not changed.
    """
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path} is no HDF5 file, or damaged")
    what = f"{path} does not fit {model.name!r}"
    in_file = _keras_file_shapes(path)
    before = model.get_weights()
    try:
        if len(in_file) != len(model.weights):
            raise ValueError("their numbers differ")
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras only warns of layers for which the file has nothing
            model.load_weights(path)
    except (ValueError, KeyError, UserWarning) as error:
        model.set_weights(before)
        with tempfile.TemporaryDirectory() as folder:
            of_model = Path(folder) / "model.weights.h5"
            model.save_weights(of_model)
            check_fit(_keras_file_shapes(of_model), in_file, what)
        raise ValueError(f"{what}: {error}") from error


def _keras_file_shapes(path: Path) -> dict[str, tuple]:
    """The shapes of all arrays but those of a head or an optimizer, by the layer's name and the array's number in it."""
    shapes = {}
    with h5py.File(path) as file:

        def note(item_path: str, item: h5py.Dataset | h5py.Group) -> None:
            if isinstance(item, h5py.Dataset) and not item_path.startswith("optimizer/"):
                group, _, index = item_path.rpartition("/")
                layer = _text(item.parent.attrs.get("name", ""))
                if layer not in HEADS:
                    group = group.removeprefix("layers/").removesuffix("/vars")
                    automatic = re.sub(r"_\d+$", "", layer) == re.sub(r"_\d+$", "", group.rpartition("/")[2])
                    nested = "/" in group  # the names of layers may repeat in nested models
                    shapes[f"{group if automatic or nested or not layer else layer}/{index}"] = item.shape

        file.visititems(note)
    return shapes


def read_keras2_file(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a Keras 2 file, of weights or of a whole model, by their names "layer/weight"."""
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path} is no HDF5 file, or damaged")
    with h5py.File(path) as file:
        root = file.get("model_weights", file)
        if "layer_names" not in root.attrs:
            raise ValueError(f"{path} is no weights file of Keras 2; Keras 3's end in .weights.h5. It holds {sorted(file)}")
        names = [
            (_text(layer), _text(weight)) for layer in root.attrs["layer_names"] for weight in root[layer].attrs["weight_names"]
        ]
        check_unpacked(path, sum(root[layer][weight].nbytes for layer, weight in names))
        return {weight: np.asarray(root[layer][weight]) for layer, weight in names}


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def keras_variables(model: keras.Model) -> dict[str, Target]:
    """The targets of the arrays of a Keras 2 or TensorFlow.js file, by names such as "conv1/kernel"."""
    pairs = [(layer.name, variable) for layer in _leaves(model) for variable in layer.weights]
    return _canonical((f"{layer}/{variable.name}", Target(variable)) for layer, variable in pairs)


def name_by_layer(
    arrays: dict[str, np.ndarray], targets: dict[str, Target], rename: Callable[[str], str] | None = None
) -> dict[str, np.ndarray]:
    """Names the arrays of a Keras 2 or TensorFlow.js file as `keras_variables` does.

    Heads that the model does not have are left out: keras.applications' own, and dense layers without a name, as
    fine-tuning adds them.

    Args:
        arrays: the weights by "layer/weight", perhaps with the names of nested models before it and ":0" after it.
        targets: what `keras_variables` returns.
        rename: the name of a layer in the file -> its name in the model.
    """
    pairs = []
    for name, array in arrays.items():
        layer, weight = name.removesuffix(":0").split("/")[-2:]
        pairs.append((f"{(rename or str)(layer)}/{weight}", array))
    used = {_layer(name) for name in targets}
    named = _canonical(pairs)
    heads = {layer for layer in map(_layer, named) if layer in HEADS or _automatic(layer)[0] == "dense"} - used
    return {name: array for name, array in named.items() if _layer(name) not in heads}


def _canonical(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    """Renames arrays so that the same array has the same name in every file.

    Keras numbers the layers that were given no name through a whole program, so conv2d_94 becomes conv2d_0 if it is the first
    of its kind. Depthwise kernels had another name in Keras 2. The only weight of a layer gets the name of the layer.
    """
    pairs = [(*name.split("/"), value) for name, value in pairs]
    numbers_of_kind: dict[str, set[int]] = {}
    for layer, _, _ in pairs:
        kind, number = _automatic(layer)
        if kind:
            numbers_of_kind.setdefault(kind, set()).add(number)
    ranks = {kind: {number: rank for rank, number in enumerate(sorted(numbers))} for kind, numbers in numbers_of_kind.items()}
    layers: dict[str, dict[str, object]] = {}
    for layer, weight, value in pairs:
        kind, number = _automatic(layer)
        layer = f"{kind}_{ranks[kind][number]}" if kind else layer
        layers.setdefault(layer, {})[weight.replace("depthwise_kernel", "kernel")] = value
    return {
        layer if len(weights) == 1 else f"{layer}/{weight}": value
        for layer, weights in layers.items()
        for weight, value in weights.items()
    }


def _automatic(layer: str) -> tuple[str | None, int]:
    """The class and number of a name that Keras chose: "conv2d_7" -> ("conv2d", 7); (None, 0) of any other."""
    match = re.fullmatch(r"(conv2d|depthwise_conv2d|batch_normalization|layer_normalization|dense)(?:_(\d+))?", layer)
    return (match[1], int(match[2] or 0)) if match else (None, 0)


def _leaves(model: keras.Model) -> Iterable[keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer


def _layer(name: str) -> str:
    return name.partition("/")[0]
