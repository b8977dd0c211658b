"""TensorFlow Serving's REST: request bodies become tensors and answers JSON, with its error texts.

Its API and texts: tensorflow_serving/g3doc/api_rest.md, util/json_tensor.cc, model_servers/http_rest_api_handler.cc.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mm_keras.serve.errors import RequestError
from mm_keras.serve.signatures import Signature
from mm_keras.serve.tensor_json import is_b64, parse_object, shown, to_array, to_json

DEFAULT_SIGNATURE = "serving_default"


class PredictRequest(NamedTuple):
    """What a body of `:predict` asks for.

    Attributes:
        signature: the name of the signature.
        inputs: an array for each of its inputs.
        by_row: True: the request and its answer are in rows ("instances"); False: in columns ("inputs").
    """

    signature: str
    inputs: dict[str, np.ndarray]
    by_row: bool


def read_predict(body: bytes, signatures: Mapping[str, Signature]) -> PredictRequest:
    """Reads the body of a `:predict`.

    Raises:
        RequestError: if it is not what a signature takes.
    """
    content = parse_object(body)
    name = read_signature_name(content)
    types = find_signature(signatures, name).inputs
    rows, columns = content.get("instances"), content.get("inputs")
    if "instances" in content and "inputs" in content:
        raise RequestError(
            f"JSON Value: {shown(content)} Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        )
    if "instances" in content:
        if not isinstance(rows, list):
            raise RequestError(f"JSON Value: {shown(content)} Excepting 'instances' to be an list/array")
        if not rows:
            raise RequestError(f"JSON Value: {shown(content)} No values in 'instances' array")
        return PredictRequest(name, _from_rows(rows, types), True)
    if "inputs" in content:
        return PredictRequest(name, _from_columns(columns, types), False)
    raise RequestError("Missing 'inputs' or 'instances' key")


def read_signature_name(content: Mapping[str, Any]) -> str:
    """The name of the signature that a body asks for."""
    name = content.get("signature_name", "")
    if not isinstance(name, str):
        raise RequestError(
            f"JSON Value: {shown(dict(content))} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name or DEFAULT_SIGNATURE


def find_signature(signatures: Mapping[str, Signature], name: str) -> Signature:
    """The signature of a name; RequestError if there is none."""
    if name not in signatures:
        raise RequestError(f'Serving signature name: "{name}" not found in signature def')
    return signatures[name]


def _from_rows(rows: list, types: Mapping) -> dict[str, np.ndarray]:
    names = sorted(types)
    if not isinstance(rows[0], dict) and len(types) > 1:
        raise RequestError(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map"
        )
    by_name = _is_named(rows[0])
    arrays: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for number, row in enumerate(rows):
        where = f"Failed to process element: {number}"
        if by_name and not _is_named(row):
            raise RequestError(f"Expecting object but got list at item {number} of input list")
        if not by_name and _is_named(row):
            raise RequestError(f"Expecting value/list but got object at item {number} of input list")
        for name, value in (row if by_name else {names[0]: row}).items():
            key = f" key: {name}" if by_name else ""
            try:
                if name not in types:
                    raise RequestError(f"JSON object: does not have named input: {name}")
                array = to_array(value, types[name])
                _check_alike(arrays[name][:1], array)
            except RequestError as error:
                raise RequestError(f"{where}{key} of 'instances' list. Error: INVALID_ARGUMENT: {error}") from error
            arrays[name].append(array)
        if by_name and set(row) != set(names):
            raise RequestError(
                f"{where} of 'instances' list. JSON object: {shown(row)} keys must be equal to: {','.join(names)}"
            )
    return {name: np.stack(values) for name, values in arrays.items()}


def _check_alike(first: list[np.ndarray], array: np.ndarray) -> None:
    if first and first[0].size != array.size:
        raise RequestError(f"Expecting tensor size: {first[0].size} but got: {array.size}")
    if first and first[0].shape != array.shape:
        shapes = ["[" + ",".join(map(str, value.shape)) + "]" for value in (first[0], array)]
        raise RequestError(f"Expecting shape {shapes[0]} but got: {shapes[1]}")


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_b64(value)


def _from_columns(columns: Any, types: Mapping) -> dict[str, np.ndarray]:
    if not _is_named(columns):
        if len(types) > 1:
            raise RequestError(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map"
            )
        ((name, kind),) = types.items()
        return {name: to_array(columns, kind)}
    arrays = {}
    for name, kind in sorted(types.items()):
        if name not in columns:
            raise RequestError(f"Missing named input: {name} in 'inputs' object.")
        arrays[name] = to_array(columns[name], kind)
    return arrays


def write_predict(outputs: Mapping[str, np.ndarray], by_row: bool) -> dict[str, Any]:
    """The answer to a `:predict`; a single output is not named."""
    if by_row:
        columns = {name: to_json(value, name) for name, value in sorted(outputs.items())}
        if len(columns) == 1:
            return {"predictions": next(iter(columns.values()))}
        return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}
    columns = {name: to_json(value, name) for name, value in sorted(outputs.items())}
    return {"outputs": next(iter(columns.values())) if len(columns) == 1 else columns}


def refuse_examples(body: bytes, signatures: Mapping[str, Signature], method: str) -> None:
    """Refuses `:classify` and `:regress`, with TensorFlow Serving's errors: all signatures here are made for `:predict`.

    Raises:
        RequestError: always.
    """
    content = parse_object(body)
    name = read_signature_name(content)
    examples = content.get("examples")
    if "examples" not in content:
        raise RequestError(
            f"JSON Value: {shown(content)} When method is classify, key 'examples' is expected and was not found"
        )
    if not isinstance(examples, list):
        raise RequestError(f"JSON Value: {shown(content)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise RequestError(f"JSON Value: {shown(content)} 'examples' value is an empty array")
    if name not in signatures:
        raise RequestError(f"No signature was found with the name: {name}")
    kind = {"classify": "classification", "regress": "regression"}[method]
    method_name = signatures[name].metadata["method_name"]
    raise RequestError(
        f"Expected {kind} signature method_name to be tensorflow/serving/{method}. Was: {method_name}", "INVALID_ARGUMENT"
    )


def metadata(name: str, version: int, signatures: Mapping[str, Signature]) -> dict[str, Any]:
    """The answer to a GET of …/metadata."""
    definitions = {signature: content.metadata for signature, content in signatures.items()}
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": definitions}},
    }


def version_status(version: int, state: str, message: str = "") -> dict[str, Any]:
    """An entry of the answer to a GET of a model's status."""
    status = {"error_code": "UNKNOWN" if message else "OK", "error_message": message}
    return {"version": str(version), "state": state, "status": status}


def rows_of(inputs: Mapping[str, np.ndarray]) -> int:
    """How many examples a request has.

    Raises:
        RequestError: if its inputs have different numbers of them, or none has a first axis.
    """
    sizes = {name: value.shape[0] if value.ndim else None for name, value in inputs.items()}
    if None in sizes.values():
        raise RequestError("Batching Run() input tensors must have at least one dimension.")
    if len(set(sizes.values())) != 1:
        raise RequestError(f"Batching Run() input tensors must have equal 0th-dimension size. Received: {sizes}")
    return next(iter(sizes.values()))
