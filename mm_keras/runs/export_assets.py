"""What an export carries beside its SavedModel, in assets.extra: what it takes in, its labels, and requests to it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import tensorflow as tf

from mm_keras.features import IMAGE, FeatureSpec, safe_name
from mm_keras.runs.serving import DEFAULT, TENSORS, signature_names
from mm_keras.runs.warm_up import write_warm_up
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.dataset.schema import decode_example
from tfrecords_tools.dataset.shards import iter_records

EXTRA = "assets.extra"
OPERATIONS_FILE = "operations.json"
_WARM_UP_BATCH = 8  # beside requests of one example: several pictures are read in another way than one


def write_assets(
    folder: Path,
    name: str,
    features: FeatureSpec,
    raw: Mapping[str, Sequence[bytes]],
    signatures: Iterable[str],
    first: Mapping[str, tf.Tensor] | None = None,
    operations: Sequence[str] = (),
) -> None:
    """Writes what the model takes in, its labels and operations, warm-up requests, and the body of a request to try it with.

    Args:
        folder: the folder assets.extra, which exists.
        name: what the model is called.
        features: what it takes in.
        raw: for each input by its `safe_name`, the bytes of some examples.
        signatures: the signatures that are warmed up.
        first: the first example as the signature `tensors` takes it, if that is one of `signatures`.
        operations: the model's operations that TensorFlow itself does not have.
    """
    features.save(folder, with_models=False)
    LabelVocabulary(list(features.labels)).save(folder / "labels.txt")
    facts = {"tensorflow": tf.__version__, "other_operations": list(operations)}
    (folder / OPERATIONS_FILE).write_text(json.dumps(facts))
    keys = [safe_name(modality) for modality in features.modalities]
    sets = signature_names(features.modalities)
    requests = [(DEFAULT, {key: list(raw[key])[:_WARM_UP_BATCH] for key in keys})]
    for signature in signatures:
        inputs = {key: list(raw[key])[:1] for key in sets.get(signature, keys)}
        requests.append((signature, {key: value.numpy() for key, value in first.items()} if signature == TENSORS else inputs))
    write_warm_up(folder, name, requests)
    example = {key: raw[key][0].decode("utf-8", "replace") for key in keys}
    if features.image:
        example[IMAGE] = {"b64": base64.b64encode(raw[IMAGE][0]).decode()}
    (folder / "sample_request.json").write_text(json.dumps({"instances": [example]}, ensure_ascii=False), encoding="utf-8")


def first_records(split: Split, features: FeatureSpec, num_records: int) -> dict[str, list[bytes]]:
    """What a client would send for the first labelled records, by the names of the inputs, in the order of evaluation."""
    raw: dict[str, list[bytes]] = {safe_name(modality): [] for modality in features.modalities}
    num_found = 0
    for file in split.files:
        for record in map(decode_example, iter_records(file)):
            if num_found == num_records:
                return raw
            if not record.label_ids and not features.multi_label:
                continue
            num_found += 1
            if features.image:
                raw[IMAGE].append(record.image)
            for text in features.texts:
                raw[text.key].append((record.texts.get(text.field) or ("",))[0].encode())
    return raw
