"""`POST /classify`: a picture and texts, as a form or as JSON, become labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mm_keras.features import IMAGE, FeatureSpec, safe_name
from mm_keras.input_names import column_name
from mm_keras.serve.errors import RequestError
from mm_keras.serve.model_version import ModelVersion
from mm_keras.serve.tf_serving import DEFAULT_SIGNATURE, find_signature


def input_names(version: ModelVersion) -> dict[str, str]:
    """Every name by which a client may call an input of a model -> the name of that input in the default signature."""
    inputs = find_signature(version.signatures, DEFAULT_SIGNATURE).inputs
    names = {name: name for name in inputs}
    for modality in version.features.modalities if version.features else ():
        names |= {modality: safe_name(modality)}
        names.setdefault(column_name(modality), safe_name(modality))
    return names


def as_inputs(version: ModelVersion, given: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    """One example as the inputs of the default signature; what is not given is empty.

    Raises:
        RequestError: for an input that the model does not have, or a model that `mm-keras export` did not write.
    """
    _check_exported(version)
    names = input_names(version)
    unknown = [name for name in given if name not in names]
    if unknown:
        raise RequestError(f"the model has no input {unknown[0]!r}; its inputs are {sorted(version.features.modalities)}")
    values = dict.fromkeys(find_signature(version.signatures, DEFAULT_SIGNATURE).inputs, b"")
    values |= {names[name]: value for name, value in given.items()}
    inputs = {}
    for name, value in values.items():
        inputs[name] = np.empty(1, object)
        inputs[name][0] = value
    return inputs


def _check_exported(version: ModelVersion) -> None:
    if version.features is None:
        raise RequestError(f"model {version.name} was not exported by `mm-keras export`: ask it by /v1/models/{version.name}")


def as_answer(version: ModelVersion, outputs: Mapping[str, np.ndarray], top: int, row: int = 0) -> dict[str, Any]:
    """What `/classify` answers: an export's outputs for one example, as its most probable labels.

    Raises:
        RequestError: if the model's output `error` says that the example could not be answered.
    """
    error = outputs["error"][row].decode()
    if error:
        raise RequestError(error)
    labels, scores = version.features.labels, outputs["scores"][row]
    order = np.argsort(-scores, kind="stable")[:top]
    answer = {
        "model": version.name,
        "version": version.number,
        "labels": [{"label": labels[index], "probability": round(float(scores[index]), 6)} for index in order],
    }
    if "predicted" in outputs:
        answer["predicted"] = [labels[index] for index in outputs["predicted"][row].nonzero()[0]]
    return answer


def describe_form(features: FeatureSpec | None) -> dict[str, Any]:
    """The form's fields as a schema of OpenAPI."""
    modalities = features.modalities if features else (IMAGE,)
    fields = {
        name: {"type": "string", "format": "binary", "description": "JPEG, PNG, GIF, WebP or BMP"}
        if name == IMAGE
        else {"type": "string", "description": f"the text field {column_name(name)!r}"}
        for name in modalities
    }
    return {"type": "object", "properties": fields}
