"""Loads weight files of several formats. A file is loaded completely or not at all; an error lists what does not fit.

| format | how it is recognised |
| --- | --- |
| Keras | `.weights.h5`; the `.h5` of Keras 2 and of keras.applications' downloads |
| safetensors | `.safetensors`; a Hugging Face folder with model.safetensors, in one file or several with an index |
| PyTorch | `.pth`, `.pt`, `.bin`, read without running what is pickled in it |
| TensorFlow.js | a folder with model.json, of a layers model |
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import keras
import ml_dtypes  # noqa: F401  teaches NumPy the name "bfloat16", which safetensors uses
import numpy as np

from mm_keras.model.keras_files import keras_variables, load_keras_file, name_by_layer, read_keras2_file
from mm_keras.model.tfjs import read_tfjs_layers
from mm_keras.model.torch_file import read_torch_file
from mm_keras.model.weight_targets import Target, assign

_TORCH = (".bin", ".pt", ".pth")
_TORCH_HUB = re.compile(r"-(?P<digest>[0-9a-f]{8,64})\.(pth|pt)")  # torch.hub's names hold the start of their sha256


def load_weights(
    model: keras.Model,
    path: str | Path,
    torch_variables: Callable[[keras.Model], dict[str, Target]] | None = None,
    rename: Callable[[str], str | None] | None = None,
    sha256: str | None = None,
) -> None:
    """Loads a file or folder of weights into a model, completely or not at all.

    Args:
        model: a model whose layers have names of their own.
        path: a file or folder of one of the formats in the table above.
        torch_variables: `(model) -> the target of each name in a state dict`. None is for a model that PyTorch does not have.
        rename: the name in the file -> the name of its target, or None for an array that is left out. In a Keras `.h5` file
            and in TensorFlow.js these are names of layers, in the other formats names of tensors.
        sha256: the hexadecimal sha256 of the file, which is verified before anything is read. Without one, the digits in
            a name like those of torch.hub ("resnet34-b627a593.pth") are compared with the sha256 of the file.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ValueError: for a file with another sha256, of an unknown format, or of another model. The message then lists the
            weights that are missing, left over, or of another shape, and the model has not changed.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"weights file {path} does not exist")
    check_sha256(path, sha256)
    if path.name.endswith(".weights.h5"):
        load_keras_file(model, path)
        return
    if path.suffix == ".h5" or (path / "model.json").is_file():
        targets = keras_variables(model)
        arrays = name_by_layer(read_tfjs_layers(path) if path.is_dir() else read_keras2_file(path), targets, rename)
    else:
        tensors = read_state_dict(path)
        if torch_variables is None:
            raise ValueError(
                f"{path} is of PyTorch, but {model.name!r} is an architecture of Keras alone, whose padding and epsilons are "
                "others; give a .weights.h5, a .h5 or a TensorFlow.js layers folder"
            )
        targets = torch_variables(model)
        arrays = {(rename or str)(name): tensor for name, tensor in tensors.items()}
        arrays.pop(None, None)
    assign(targets, arrays, f"{path} does not fit {model.name!r}")


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors by name of a safetensors or PyTorch file, or of a Hugging Face folder.

    Raises:
        ValueError: if it is none of these, or damaged.
    """
    import safetensors
    import safetensors.numpy

    if path.is_dir():
        index = path / "model.safetensors.index.json"
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values()) if index.is_file() else {"model.safetensors"}
        if not index.is_file() and not (path / "model.safetensors").is_file():
            names = {"pytorch_model.bin"}
        missing = sorted(name for name in names if not (path / name).is_file())
        if missing:
            names_there = sorted(file.name for file in path.iterdir())
            raise ValueError(
                f"folder {path} holds no weights: it needs model.json and its shards (TensorFlow.js), model.safetensors, or "
                f"pytorch_model.bin. Missing: {missing[0]}; found: {names_there}"
            )
        return {name: array for file in sorted(names) for name, array in read_state_dict(path / file).items()}
    if path.suffix == ".safetensors":
        try:
            return safetensors.numpy.load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file, or damaged: {error}") from error
    if path.suffix in _TORCH:
        return read_torch_file(path)
    raise ValueError(
        f"weights are a .weights.h5, .h5, .safetensors, .pth, .pt or .bin file, or a folder of TensorFlow.js or Hugging Face. "
        f"Received: {path}"
    )


def check_sha256(path: Path, sha256: str | None = None) -> None:
    """Compares the sha256 of a file with the one that it should have.

    Args:
        path: the file.
        sha256: hexadecimal. None compares with the first digits of a sha256 that torch.hub puts into a file's name, if any.

    Raises:
        ValueError: if they differ, or `path` is a folder.
    """
    in_name = _TORCH_HUB.search(path.name)
    if sha256 is None and not in_name:
        return
    if path.is_dir():
        raise ValueError(f"a sha256 is of a file. Received the folder {path}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is not None and digest != sha256.lower():
        raise ValueError(f"{path} has the sha256 {digest}, not {sha256}: it is another file, or damaged")
    if sha256 is None and not digest.startswith(in_name["digest"]):
        raise ValueError(
            f"{path} has the sha256 {digest}, but by its name it should start with {in_name['digest']}: it is damaged; fetch "
            "it again, or rename it if the digits mean something else"
        )
