"""The Open Inference Protocol v2 (KServe's): request bodies become tensors, and answers JSON.

Strings and bytes are the datatype BYTES. The protocol does not say how bytes stand in JSON. Here they are UTF-8 text, unless
the tensor has the parameter {"content_type": "base64"}; pictures need it. A request names its signature by the parameter
"signature_name"; without it, the signature is used that takes the request's inputs: `title` for a title alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mm_keras.serve.errors import RequestError
from mm_keras.serve.signatures import Signature, TensorType
from mm_keras.serve.tensor_json import parse_object, to_array, to_json
from mm_keras.serve.tf_serving import DEFAULT_SIGNATURE, find_signature

_DATATYPES = {
    "DT_STRING": "BYTES",
    "DT_BOOL": "BOOL",
    "DT_HALF": "FP16",
    "DT_FLOAT": "FP32",
    "DT_DOUBLE": "FP64",
    **{f"DT_{kind}{bits}": f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)},
}


class InferRequest(NamedTuple):
    """What a body of `infer` asks for: a signature, its inputs, the outputs wanted (none: all), and the request's id."""

    signature: str
    inputs: dict[str, np.ndarray]
    outputs: list[str]
    id: str | None


def read_infer(body: bytes, signatures: Mapping[str, Signature]) -> InferRequest:
    """Reads the body of an `infer`.

    Raises:
        RequestError: if it is not what a signature takes; the text names the tensor.
    """
    content = parse_object(body)
    tensors = content.get("inputs")
    if not isinstance(tensors, list) or not tensors or not all(isinstance(tensor, dict) for tensor in tensors):
        raise RequestError('\'inputs\' must be a list of tensors: [{"name", "shape", "datatype", "data"}]')
    by_name = {str(tensor.get("name")): tensor for tensor in tensors}
    name = _signature_name(content, signatures, set(by_name))
    types = find_signature(signatures, name).inputs
    if set(by_name) != set(types):
        raise RequestError(f"signature {name!r} takes the inputs {sorted(types)}. Received: {sorted(by_name)}")
    outputs = content.get("outputs") or []
    if not isinstance(outputs, list) or not all(
        isinstance(output, dict) and isinstance(output.get("name"), str) for output in outputs
    ):
        raise RequestError("'outputs' must be a list of objects with a name")
    names = [output["name"] for output in outputs]
    unknown = [output for output in names if output not in signatures[name].outputs]
    if unknown:
        raise RequestError(f"signature {name!r} has no output {unknown[0]!r}; it has {sorted(signatures[name].outputs)}")
    request_id = content.get("id")
    if not isinstance(request_id, str | None):
        raise RequestError("'id' must be a string")
    return InferRequest(name, {key: _read_tensor(by_name[key], types[key]) for key in types}, names, request_id)


def _signature_name(content: Mapping[str, Any], signatures: Mapping[str, Signature], input_names: set[str]) -> str:
    parameters = content.get("parameters") or {}
    name = parameters.get("signature_name") if isinstance(parameters, dict) else None
    if name is not None:
        return str(name)
    default = signatures.get(DEFAULT_SIGNATURE)
    if default is not None and set(default.inputs) == input_names:
        return DEFAULT_SIGNATURE
    fitting = [name for name, signature in signatures.items() if set(signature.inputs) == input_names]
    return fitting[0] if fitting else DEFAULT_SIGNATURE


def _read_tensor(tensor: Mapping[str, Any], kind: TensorType) -> np.ndarray:
    name, shape, data = (tensor.get(key) for key in ("name", "shape", "data"))
    expected = _DATATYPES.get(kind.dtype, kind.dtype)
    if tensor.get("datatype") != expected:
        raise RequestError(f"input {name!r} has the datatype {expected!r}. Received: {tensor.get('datatype')!r}")
    if not isinstance(shape, list) or not all(isinstance(side, int) and side >= 0 for side in shape):
        raise RequestError(f"the shape of input {name!r} must be a list of whole numbers. Received: {shape!r}")
    if not isinstance(data, list):
        raise RequestError(f"the data of input {name!r} must be a list")
    parameters = tensor.get("parameters") or {}
    content_type = parameters.get("content_type") if isinstance(parameters, dict) else None
    flat = _flatten(data)
    if expected == "BYTES" and content_type == "base64":
        flat = [{"b64": value} if isinstance(value, str) else value for value in flat]
    if len(flat) != math.prod(shape):
        raise RequestError(f"input {name!r} has {len(flat)} values, and its shape {shape} asks for {math.prod(shape)}")
    try:
        return to_array(flat, TensorType(kind.dtype, (None,))).reshape(shape)
    except RequestError as error:
        raise RequestError(f"input {name!r}: {error}") from error


def _flatten(data: list) -> list:
    flat = []
    for value in data:
        flat += _flatten(value) if isinstance(value, list) else [value]
    return flat


def write_infer(name: str, version: int, request: InferRequest, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The answer to an `infer`."""
    wanted = request.outputs or sorted(outputs)
    answer = {"model_name": name, "model_version": str(version)} | ({} if request.id is None else {"id": request.id})
    return answer | {
        "outputs": [
            {
                "name": output,
                "shape": list(outputs[output].shape),
                "datatype": _datatype(outputs[output]),
                "data": to_json(outputs[output].reshape(-1), output),
            }
            for output in wanted
        ]
    }


def _datatype(array: np.ndarray) -> str:
    if array.dtype.kind in "OSU":
        return "BYTES"
    if array.dtype.kind == "f":
        return f"FP{8 * array.dtype.itemsize}"
    return array.dtype.name.upper()


def model_metadata(name: str, versions: list[int], signatures: Mapping[str, Signature]) -> dict[str, Any]:
    """The answer to a GET of a model: what its default signature takes and gives, and the names of the others."""
    default = find_signature(signatures, DEFAULT_SIGNATURE)

    def tensors(types: Mapping[str, TensorType]) -> list[dict[str, Any]]:
        return [
            {
                "name": key,
                "datatype": _DATATYPES.get(kind.dtype, kind.dtype),
                "shape": [-1 if side is None else side for side in kind.shape],
            }
            for key, kind in sorted(types.items())
        ]

    return {
        "name": name,
        "versions": [str(version) for version in versions],
        "platform": "tensorflow_savedmodel",
        "inputs": tensors(default.inputs),
        "outputs": tensors(default.outputs),
        "parameters": {"signature_names": sorted(key for key in signatures if not key.startswith("__"))},
    }
