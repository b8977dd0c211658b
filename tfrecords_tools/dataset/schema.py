"""The record contract: `encode_example` writes a record, `decode_example` and `parse_example` read it.

A record is a serialised `tf.train.Example` with these features. Their types are declared here and never guessed from values:

    id              bytes, 1      unique in the dataset
    image/encoded   bytes, 1      an upright JPEG, 8-bit grey or RGB; empty where the record has no image
    image/height    int64, 1      pixels; 0 where the record has no image
    image/width     int64, 1      pixels; 0 where the record has no image
    text/<field>    bytes, 0..n   UTF-8; a title is one text, captions are several; none where the text is missing
    label/ids       int64, 0..n   indices into labels.txt, from 0; none where the record is unlabelled
    weight          float, 1      weight of the example, by default 1.0

Writing and checking records needs no TensorFlow, which would cost each packing worker seconds and hundreds of MB. Only
`parse_example`, which runs in a tf.data graph, imports it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

SCHEMA_VERSION = 1
TEXT_PREFIX = "text/"
_SCALARS = {"id": "bytes", "image/encoded": "bytes", "image/height": "int64", "image/width": "int64", "weight": "float"}
MAX_PIXELS = 50_000_000
"""The largest picture that is decoded where nothing else is said, in pixels: by packing, prediction and exported models."""


class SchemaError(ValueError):
    """A record that breaks the contract. The message names the feature, the type that is expected, and the type it has."""


@dataclasses.dataclass(frozen=True)
class Record:
    """One decoded record. `image` is an encoded JPEG; without an image it is b"", and `height` and `width` are 0 pixels."""

    id: str
    image: bytes = b""
    height: int = 0
    width: int = 0
    texts: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    label_ids: tuple[int, ...] = ()
    weight: float = 1.0


def encode_example(record: Record) -> bytes:
    """Serialises a record as a `tf.train.Example`. Equal records give equal bytes."""
    example = _example_class()()
    feature = example.features.feature
    feature["id"].bytes_list.value.append(record.id.encode())
    feature["image/encoded"].bytes_list.value.append(record.image)
    feature["image/height"].int64_list.value.append(record.height)
    feature["image/width"].int64_list.value.append(record.width)
    for field, texts in record.texts.items():
        values = feature[TEXT_PREFIX + field].bytes_list.value
        values.extend(text.encode("utf-8", "replace") for text in texts)
        if not texts:  # an empty list declares its type as well
            feature[TEXT_PREFIX + field].bytes_list.SetInParent()
    feature["label/ids"].int64_list.value.extend(record.label_ids)
    feature["label/ids"].int64_list.SetInParent()
    feature["weight"].float_list.value.append(record.weight)
    return example.SerializeToString(deterministic=True)


def decode_example(serialized: bytes) -> Record:
    """Parses one record without TensorFlow and checks every declared type.

    Raises:
        SchemaError: if the bytes are no Example, or a feature is missing, of another type or of another length.
    """
    try:
        feature = _example_class().FromString(serialized).features.feature
    except DecodeError as error:
        raise SchemaError(f"not a tf.train.Example: {error}") from error
    scalar = {key: _values(feature, key, kind, length=1)[0] for key, kind in _SCALARS.items()}
    texts = {
        key.removeprefix(TEXT_PREFIX): tuple(_utf8(key, value) for value in _values(feature, key, "bytes"))
        for key in sorted(feature)
        if key.startswith(TEXT_PREFIX)
    }
    return Record(
        id=_utf8("id", scalar["id"]),
        image=scalar["image/encoded"],
        height=scalar["image/height"],
        width=scalar["image/width"],
        texts=texts,
        label_ids=tuple(_values(feature, "label/ids", "int64")),
        weight=scalar["weight"],
    )


def parse_example(serialized, text_fields: Iterable[str]) -> dict:
    """Parses one record in a TensorFlow graph.

    Args:
        serialized: scalar string tensor.
        text_fields: the text fields to read; others are skipped.

    Returns:
        a dict of tensors: `id` string [], `image` string [] (a JPEG; "" where there is none), `text/<field>` string [n] for
        each field, `label_ids` int64 [k], `weight` float32 [].
    """
    import tensorflow as tf

    spec = {
        "id": tf.io.FixedLenFeature([], tf.string),
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "label/ids": tf.io.RaggedFeature(tf.int64),
        "weight": tf.io.FixedLenFeature([], tf.float32),
    }
    spec.update({TEXT_PREFIX + field: tf.io.RaggedFeature(tf.string) for field in text_fields})
    parsed = tf.io.parse_single_example(serialized, spec)
    parsed["image"] = parsed.pop("image/encoded")
    parsed["label_ids"] = parsed.pop("label/ids")
    return parsed


def _values(feature, key: str, kind: str, length: int | None = None) -> list:
    if key not in feature:
        raise SchemaError(f"feature {key!r} is missing; expected a {kind} list")
    stored = feature[key].WhichOneof("kind")
    if stored != f"{kind}_list":
        raise SchemaError(f"feature {key!r}: expected a {kind} list, found {stored or 'nothing'}")
    values = list(getattr(feature[key], stored).value)
    if length is not None and len(values) != length:
        raise SchemaError(f"feature {key!r}: expected {length} value(s), found {len(values)}")
    return values


def _utf8(key: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise SchemaError(f"feature {key!r}: not UTF-8: {error}") from error


@functools.cache
def _example_class() -> type[Message]:
    """The tf.train.Example message. A descriptor pool of its own keeps it apart from TensorFlow's declaration of it."""
    proto = descriptor_pb2.FileDescriptorProto(name="record.proto", package="record", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(name: str, *fields: tuple[str, int, int, int, str | None]) -> descriptor_pb2.DescriptorProto:
        added = proto.message_type.add(name=name)
        for field_name, number, label, kind, type_name in fields:
            added.field.add(name=field_name, number=number, label=label, type=kind, type_name=type_name)
        return added

    for name, kind in (("BytesList", kinds.TYPE_BYTES), ("FloatList", kinds.TYPE_FLOAT), ("Int64List", kinds.TYPE_INT64)):
        message(name, ("value", 1, kinds.LABEL_REPEATED, kind, None))
    one_of = [("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List")]
    feature = message(
        "Feature",
        *[
            (name, number, kinds.LABEL_OPTIONAL, kinds.TYPE_MESSAGE, f".record.{type_name}")
            for number, (name, type_name) in enumerate(one_of, start=1)
        ],
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = message("Features", ("feature", 1, kinds.LABEL_REPEATED, kinds.TYPE_MESSAGE, ".record.Features.FeatureEntry"))
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_STRING)
    entry.field.add(name="value", number=2, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_MESSAGE, type_name=".record.Feature")
    message("Example", ("features", 1, kinds.LABEL_OPTIONAL, kinds.TYPE_MESSAGE, ".record.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("record.Example"))
