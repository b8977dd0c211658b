"""Requests that TensorFlow Serving sends to a model while it loads it, so that no client waits for the slow first request.

assets.extra/tf_serving_warmup_requests is a TFRecord file of `tensorflow.serving.PredictionLog` messages. TensorFlow does not
have that message. The package tensorflow-serving-api has it, but is not needed, since only these fields are filled in:

    PredictionLog   6  predict_log  = PredictLog   1  request = PredictRequest
    PredictRequest  1  model_spec   = ModelSpec    1  name, 3  signature_name
                    2  inputs       = map entries  1  name, 2  TensorProto

Each is written as its number and type in one byte, a length, and the content (protobuf's wire format for such fields).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

from tfrecords_tools.dataset.shards import ShardWriter, iter_records

WARM_UP_FILE = "tf_serving_warmup_requests"


def write_warm_up(folder: Path, model_name: str, requests: Sequence[tuple[str, Mapping[str, Sequence[bytes] | np.ndarray]]]):
    """Writes the file into assets.extra.

    Args:
        folder: the folder assets.extra of a SavedModel.
        model_name: what the model is called; TensorFlow Serving does not look at it.
        requests: (signature, its inputs by name), at most 1,000.
    """
    writer = ShardWriter(folder / WARM_UP_FILE)
    for signature, inputs in requests:
        writer.write(predict_log(model_name, signature, inputs))
    writer.close()


def predict_log(model_name: str, signature: str, inputs: Mapping[str, Sequence[bytes] | np.ndarray]) -> bytes:
    """A serialised PredictionLog with a PredictRequest."""
    spec = _field(1, model_name.encode()) + _field(3, signature.encode())
    request = _field(1, spec)
    for name, values in sorted(inputs.items()):
        tensor = tf.make_tensor_proto(values).SerializeToString(deterministic=True)
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))
    return _field(6, _field(1, request))


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*octets, value])


def read_warm_up(path: Path) -> list[tuple[str, dict[str, np.ndarray]]]:
    """What `write_warm_up` wrote: (signature, its inputs by name), strings as arrays of bytes.

    Raises:
        ValueError: for a file that holds anything else.
    """
    return [_request_of(log, path) for log in iter_records(path)]


def _request_of(log: bytes, path: Path) -> tuple[str, dict[str, np.ndarray]]:
    try:
        request = dict(_fields(dict(_fields(log))[6]))[1]
        signature = dict(_fields(dict(_fields(request))[1])).get(3, b"").decode()
        inputs = {}
        for number, entry in _fields(request):
            if number == 2:
                name, tensor = (dict(_fields(entry))[field] for field in (1, 2))
                inputs[name.decode()] = tf.make_ndarray(TensorProto.FromString(tensor))
        return signature, inputs
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"{path} holds a request that this version does not read: {error}") from error


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message that all have a length: (number, content)."""
    position = 0
    while position < len(message):
        tag = message[position]
        if tag & 7 != 2:
            raise ValueError(f"a field of wire type {tag & 7}")
        length, position, shift = 0, position + 1, 0
        while True:
            octet = message[position]
            length, position, shift = length | (octet & 0x7F) << shift, position + 1, shift + 7
            if octet < 0x80:
                break
        yield tag >> 3, message[position : position + length]
        position += length
