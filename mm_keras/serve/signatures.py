"""What a model's signatures take and give, read from its saved_model.pb."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class TensorType:
    """The type of an input or an output.

    Attributes:
        dtype: the name that protobuf gives it: "DT_STRING", "DT_FLOAT".
        shape: the length of each axis; None: any.
    """

    dtype: str
    shape: tuple[int | None, ...]

    @property
    def numpy(self) -> np.dtype:
        """The type of NumPy's arrays; strings are objects."""
        return np.dtype({"DT_STRING": object, "DT_FLOAT": "float32", "DT_DOUBLE": "float64"}.get(self.dtype) or self._plain())

    def _plain(self) -> str:
        return self.dtype.removeprefix("DT_").lower()


STRING = TensorType("DT_STRING", ())


@dataclasses.dataclass(frozen=True)
class Signature:
    """A signature: its inputs and outputs by name, and all of it as JSON, as TensorFlow Serving's metadata tell it."""

    inputs: dict[str, TensorType]
    outputs: dict[str, TensorType]
    metadata: dict[str, Any]


def read_signatures(folder: Path) -> dict[str, Signature]:
    """The signatures of the SavedModel in a folder, by name."""
    from google.protobuf.json_format import MessageToDict
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved_model = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    signatures = {}
    for name, definition in saved_model.meta_graphs[0].signature_def.items():
        content = MessageToDict(definition, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        signatures[name] = Signature(_types(content["inputs"]), _types(content["outputs"]), content)
    return signatures


def _types(tensors: dict[str, Any]) -> dict[str, TensorType]:
    types = {}
    for name, tensor in tensors.items():
        sides = [int(side["size"]) for side in tensor.get("tensor_shape", {}).get("dim", [])]
        types[name] = TensorType(tensor["dtype"], tuple(None if side < 0 else side for side in sides))
    return types
