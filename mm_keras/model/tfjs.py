"""Reads the weights of a TensorFlow.js layers model: a folder with model.json and the binary shards that it names."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

_DTYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "uint8": "u1", "uint16": "<u2", "bool": "?"}


def read_tfjs_layers(folder: str | Path) -> dict[str, np.ndarray]:
    """The weights by name, such as "conv1/kernel"; those that were quantised are float32 again.

    The manifest in model.json lists groups of weights. The shards of a group, joined, hold its weights one after another. A
    quantised weight is stored as a float16, or as integers: it is `stored * scale + min`.

    Raises:
        ValueError: if model.json is no layers model, a shard is missing, or the shards hold more or less than it describes.
    """
    folder = Path(folder)
    path = folder / "model.json"
    try:
        model = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(model, dict) or "weightsManifest" not in model or model.get("format", "layers-model") != "layers-model":
        received = model.get("format") if isinstance(model, dict) else type(model).__name__
        raise ValueError(
            f"{path} is no layers model of TensorFlow.js (format 'layers-model', with a weightsManifest). Received: "
            f"{received!r}; a graph model has lost the names of the layers"
        )
    arrays = {}
    for group in model["weightsManifest"]:
        content = b"".join(_read_shard(folder, name) for name in group["paths"])
        start = 0
        for entry in group["weights"]:
            array = _decode(entry, content, start, path)
            start += array.nbytes
            arrays[entry["name"]] = _dequantise(array, entry)
        if start != len(content):
            raise ValueError(f"{path} describes {start} bytes, but {group['paths']} hold {len(content)}")
    return arrays


def _read_shard(folder: Path, name: str) -> bytes:
    shard = folder / name
    if Path(name).name != name:
        raise ValueError(f"{folder / 'model.json'} names the shard {name!r}, which is not in its folder")
    if not shard.is_file():
        raise ValueError(f"{folder / 'model.json'} names the shard {name}, which is not there; fetch all of the folder")
    return shard.read_bytes()


def _decode(entry: dict, content: bytes, start: int, path: Path) -> np.ndarray:
    name, shape = entry["name"], entry["shape"]
    dtype = entry.get("quantization", entry)["dtype"]
    if dtype not in _DTYPES:
        raise ValueError(f"{path}: weight {name} is stored as {dtype!r}; known are {sorted(_DTYPES)}")
    numel = math.prod(shape)
    end = start + numel * np.dtype(_DTYPES[dtype]).itemsize
    if end > len(content):
        raise ValueError(f"{path}: the shards end within weight {name} {tuple(shape)}; fetch them again")
    return np.frombuffer(content[start:end], _DTYPES[dtype]).reshape(shape)


def _dequantise(array: np.ndarray, entry: dict) -> np.ndarray:
    quantization = entry.get("quantization")
    if not quantization:
        return array
    if quantization["dtype"] == "float16":
        return array.astype("float32")
    return (array * np.float64(quantization["scale"]) + quantization["min"]).astype("float32")
