"""JSON values become arrays and back, by TensorFlow Serving's rules, with its error texts."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from mm_keras.serve.errors import RequestError
from mm_keras.serve.signatures import TensorType

_MOST_SHOWN = 1000  # characters of a value in an error text
_NAMES = {"DT_FLOAT": "float", "DT_DOUBLE": "double", "DT_STRING": "string", "DT_BOOL": "bool"}
_JSON_TYPES = {type(None): "Null", dict: "Object", list: "Array", str: "String", int: "Number", float: "Number"}
# What Python's parser says -> what TensorFlow Serving's says.
_PARSE_ERRORS = {
    "Expecting value": "Invalid value.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Illegal trailing comma before end of array": "Invalid value.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Extra data": "The document root must not be followed by other values.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid control character at": "Invalid encoding in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
}


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a request's body.

    Raises:
        RequestError: if the body is no JSON, or no object.
    """
    if not body:
        raise RequestError("JSON Parse error: The document is empty")
    try:
        content = json.loads(body.decode("utf-8", "surrogateescape"))
    except json.JSONDecodeError as error:
        raise RequestError(f"JSON Parse error: {_parse_error(error)} at offset: {error.pos}") from error
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise RequestError("JSON Parse error: Terminate parsing due to Handler error. at offset: 0") from error
    if not isinstance(content, dict):
        raise RequestError(f"JSON Value: {shown(content)} Is not object")
    return content


def _parse_error(error: json.JSONDecodeError) -> str:
    if error.msg.startswith("Expecting ',' delimiter"):
        before = json_brackets(error.doc[: error.pos])
        return (
            "Missing a comma or } after an object member." if before == "{" else "Missing a comma or ] after an array element."
        )
    return next((text for start, text in _PARSE_ERRORS.items() if error.msg.startswith(start)), "Invalid value.")


def json_brackets(text: str) -> str:
    """The innermost bracket that is open at the end of a text; "" if there is none."""
    opened, in_string, escaped = [], False, False
    for character in text:
        if in_string:
            escaped, in_string = character == "\\" and not escaped, character != '"' or escaped
        elif character == '"':
            in_string = True
        elif character in "{[":
            opened.append(character)
        elif character in "}]" and opened:
            opened.pop()
    return opened[-1] if opened else ""


def shown(value: Any) -> str:
    """A value in an error text, as TensorFlow Serving prints it, cut off where it is long."""
    text = json.dumps(value, indent=4, ensure_ascii=False)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def is_b64(value: Any) -> bool:
    """Whether a value is an object {"b64": "…"}."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def shape_of(value: Any) -> list[int]:
    """The sides of a nested list, as its first elements tell them."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def to_array(value: Any, kind: TensorType) -> np.ndarray:
    """A nested list, or a value, as an array of a type; strings are bytes.

    Raises:
        RequestError: for a value of another type, or lists of unequal lengths.
    """
    shape, values = shape_of(value), []
    _collect(value, 0, shape, kind.dtype, values)
    if kind.dtype == "DT_STRING":
        array = np.empty(len(values), object)
        array[:] = values
        return array.reshape(shape)
    return np.array(values, kind.numpy).reshape(shape)


def _collect(value: Any, level: int, shape: list[int], dtype: str, values: list) -> None:
    rank = len(shape)
    if not isinstance(value, list):
        if level != rank:
            raise RequestError(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON DOM. Expected at level: {rank}"
            )
        values.append(_value(value, dtype))
        return
    if level >= rank:
        raise RequestError(f"Encountered list at unexpected level: {level} expected < {rank}")
    if len(value) != shape[level]:
        raise RequestError(f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}")
    for element in value:
        _collect(element, level + 1, shape, dtype, values)


def _value(value: Any, dtype: str) -> Any:
    if dtype == "DT_STRING":
        if isinstance(value, str):
            return _encoded(value)
        if isinstance(value, dict):
            return _decode_b64(value)
    elif dtype == "DT_BOOL":
        if isinstance(value, bool):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if dtype in ("DT_FLOAT", "DT_DOUBLE"):
            return _decimal(value, dtype)
        limits = np.iinfo(TensorType(dtype, ()).numpy)
        if isinstance(value, int) and limits.min <= value <= limits.max:
            return value
    kind = ("True" if value else "False") if isinstance(value, bool) else _JSON_TYPES[type(value)]
    name = _NAMES.get(dtype, dtype.removeprefix("DT_").lower())
    raise RequestError(f"JSON Value: {shown(value)} Type: {kind} is not of expected type: {name}")


def _encoded(text: str) -> bytes:
    """The bytes that a text in the body stands for; half a surrogate pair, which has none, becomes "?"."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _decimal(value: int | float, dtype: str) -> float:
    kind, digits = (np.float32, 24) if dtype == "DT_FLOAT" else (np.float64, 53)
    lost = abs(value) > 2**digits - 1 if isinstance(value, int) else np.isfinite(value) and abs(value) > np.finfo(kind).max
    if lost:
        name = _NAMES[dtype]
        raise RequestError(f"Cannot convert JSON value: {shown(value)} to {name} without loss of precision.")
    return float(value)


def _decode_b64(value: dict) -> bytes:
    if not is_b64(value):
        raise RequestError(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    text = value["b64"].translate({ord("-"): "+", ord("_"): "/"})
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError("Unable to base64 decode") from error


def to_json(array: np.ndarray, name: str) -> Any:
    """An output as nested lists: strings as text, or as {"b64": …} if its name ends in "_bytes"; floats in few digits."""
    if array.dtype.kind in "OSU":
        convert = _encode_b64 if name.endswith("_bytes") else _text
    elif array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        convert = _shortest
    else:
        return array.tolist()
    return _nested(array.tolist() if array.dtype.name != "bfloat16" else array.astype("float32").tolist(), convert)


def _nested(values: Any, convert) -> Any:
    return [_nested(value, convert) for value in values] if isinstance(values, list) else convert(values)


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _encode_b64(value: bytes) -> Mapping[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _shortest(value: float) -> float:
    """A float32 that became a float64, with 6 digits if they tell it exactly, or else 9: 0.20000000298023224 -> 0.2."""
    short = float(f"{value:.6g}")
    return short if np.float32(short) == np.float32(value) or value != value else float(f"{value:.9g}")
