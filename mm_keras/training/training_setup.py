"""Describes a training, to tell whether a checkpoint belongs to it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import google_crc32c
import keras
import numpy as np

from mm_keras.features import FeatureSpec, TokenText
from mm_keras.training.checkpoint import CheckpointError, listed
from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.checksums import read_json
from tfrecords_tools.dataset.folder import Split

# Keys whose values differ from one process to the next for the same training, or repeat other values.
_LEFT_OUT = ("shared_object_id", "build_config", "module", "registered_name", "inbound_nodes", "input_layers", "output_layers")
_NUMBER = re.compile(r"_\d+$")  # Keras numbers the layers that a program has made so far


def describe_training(model: keras.Model, trained: keras.Model, splits: Sequence[Split], **settings) -> dict[str, object]:
    """Everything that two trainings must share for one to go on where the other stopped, as name -> JSON value.

    Args:
        model: the whole model.
        trained: the compiled part that is trained. The weights of the rest are described by a checksum, since checkpoints do
            not contain them.
        splits: the splits that are used; their folder may have moved.
        **settings: other values that the steps depend on.
    """
    trained_ids = {id(variable) for variable in trained.variables}
    frozen = 0
    for variable in model.variables:
        if id(variable) not in trained_ids:
            frozen = google_crc32c.extend(frozen, np.asarray(keras.ops.convert_to_numpy(variable)).tobytes())
    described = settings | {
        "dataset": {split.name: [shard.sha256 for shard in split.shards] for split in splits},
        "frozen_weights": f"{frozen:08x}",
        "model": json.loads(model.to_json())["config"],
        "training": trained.get_compile_config(),
    }
    return dict(_flat("", json.loads(json.dumps(described, default=str))))


def describe_features(features: FeatureSpec) -> dict[str, object]:
    """Describes what a model takes in and answers; vocabularies and labels are given by checksums."""

    def digest(value) -> str:
        return f"{google_crc32c.value(repr(value).encode()):08x}"

    return {
        "image": dataclasses.asdict(features.image) if features.image else None,
        "texts": [
            {
                "name": text.field,
                "inputs": text.inputs(),
                "tokenizer": digest(text.tokenizer) if isinstance(text, TokenText) else None,
            }
            for text in features.texts
        ],
        "labels": digest(features.labels),
        "multi_label": features.multi_label,
    }


def save_setup(path: Path, setup: Mapping[str, object]) -> None:
    write_text(path, json.dumps(setup, indent=0, ensure_ascii=False) + "\n")


def check_setup(path: Path, setup: Mapping[str, object]) -> None:
    """Compares a training with the description that `save_setup` has written.

    Raises:
        CheckpointError: it lists the differences.
        DamagedFileError: if the description is not what was written.
    """
    saved = read_json(path)
    differences = [
        f"{name}: {_shown(saved, name)} in the run, {_shown(setup, name)} now"
        for name in {**saved, **setup}
        if _shown(saved, name) != _shown(setup, name)
    ]
    if differences:
        raise CheckpointError(
            f"the run in {path.parent.parent} can not go on with another model, configuration or dataset:"
            + listed(differences)
            + "\nresume it with what it was started with, or choose another --workdir"
        )


def _shown(setup: Mapping[str, object], name: str) -> str:
    return json.dumps(setup[name], ensure_ascii=False) if name in setup else "nothing"


def _flat(path: str, value):
    """Yields (dotted path, leaf) of nested dicts and lists; items of a list that have a name are identified by it."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in _LEFT_OUT:
                yield from _flat(f"{path}.{key}" if path else key, item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            name = item.get("name") if isinstance(item, dict) else None
            yield from _flat(f"{path}[{index}{' ' + _NUMBER.sub('', name) if name else ''}]", item)
    else:
        yield path, _NUMBER.sub("", value) if isinstance(value, str) else value
