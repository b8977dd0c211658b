"""Requests and the answers that TensorFlow Serving's sources and the Open Inference Protocol promise, as one table.

The model `half` has two versions: 1 answers y = x / 2 + 2, 3 answers y = x / 2 + 3; "stable" is a label of version 1. Its
signatures:

    serving_default   x float [B]                       -> y float [B]
    words             name string [B], times int64 [B]  -> upper string [B], total int64 [B], copy_bytes string [B]
    pairs             pair float [B, 2]                 -> sum float [B]
"""

from __future__ import annotations

from tests.mm_keras.serve.golden_errors import ERRORS, HALF, WORDS, error


def _infer(data, shape, datatype="FP32", **more):
    return {"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}], **more}


def _inferred(data, version="3", **more):
    return {
        "model_name": "half",
        "model_version": version,
        **more,
        "outputs": [{"name": "y", "shape": [len(data)], "datatype": "FP32", "data": data}],
    }


# What is asked: (name, verb and path, body: a JSON value, or text as it is) -> status, answer
PREDICT = [
    ("rows of a single input", f"POST {HALF}:predict", {"instances": [1, 2.5]}, 200, {"predictions": [3.5, 4.25]}),
    ("columns of a single input", f"POST {HALF}:predict", {"inputs": [1, 2]}, 200, {"outputs": [3.5, 4.0]}),
    ("columns by name", f"POST {HALF}:predict", {"inputs": {"x": [0]}}, 200, {"outputs": [3.0]}),
    ("rows by name", f"POST {HALF}:predict", {"instances": [{"x": 4}]}, 200, {"predictions": [5.0]}),
    ("extra columns are ignored", f"POST {HALF}:predict", {"inputs": {"x": [0], "z": [1]}}, 200, {"outputs": [3.0]}),
    ("a version", f"POST {HALF}/versions/1:predict", {"instances": [1]}, 200, {"predictions": [2.5]}),
    ("a label", f"POST {HALF}/labels/stable:predict", {"instances": [1]}, 200, {"predictions": [2.5]}),
    ("paths of any case", "POST /V1/Models/half:Predict", {"instances": [1]}, 200, {"predictions": [3.5]}),
    ("an empty signature name", f"POST {HALF}:predict", {"signature_name": "", "instances": [1]}, 200, {"predictions": [3.5]}),
    ("short floats", f"POST {HALF}:predict", {"instances": [0.4]}, 200, {"predictions": [3.2]}),
    (
        "nested rows",
        f"POST {HALF}:predict",
        {"signature_name": "pairs", "instances": [[1, 2], [3, 4]]},
        200,
        {"predictions": [3.0, 7.0]},
    ),
    (
        "several inputs and outputs, in rows",
        f"POST {HALF}:predict",
        {**WORDS, "instances": [{"name": "ab", "times": 2}, {"name": {"b64": "w6k="}, "times": 3}]},
        200,
        {
            "predictions": [
                {"copy_bytes": {"b64": "YWI="}, "total": 4, "upper": "AB"},
                {"copy_bytes": {"b64": "w6k="}, "total": 6, "upper": "É"},
            ]
        },
    ),
    (
        "several inputs and outputs, in columns",
        f"POST {HALF}:predict",
        {**WORDS, "inputs": {"name": ["ab"], "times": [5]}},
        200,
        {"outputs": {"copy_bytes": [{"b64": "YWI="}], "total": [10], "upper": ["AB"]}},
    ),
    (
        "base64 of URLs, without padding",
        f"POST {HALF}:predict",
        {**WORDS, "inputs": {"name": [{"b64": "_-A"}], "times": [1]}},
        200,
        {"outputs": {"copy_bytes": [{"b64": "/+A="}], "total": [2], "upper": ["��"]}},
    ),
]

_AVAILABLE = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
STATUS = [
    (
        "the status of a model",
        f"GET {HALF}",
        None,
        200,
        {"model_version_status": [{"version": "3", **_AVAILABLE}, {"version": "1", **_AVAILABLE}]},
    ),
    ("of a version", f"GET {HALF}/versions/1", None, 200, {"model_version_status": [{"version": "1", **_AVAILABLE}]}),
    ("of a label", f"GET {HALF}/labels/stable", None, 200, {"model_version_status": [{"version": "1", **_AVAILABLE}]}),
    ("of no version", f"GET {HALF}/versions/9", None, 404, error("Could not find version 9 of model half")),
    ("of no model", "GET /v1/models/nope", None, 404, error("Could not find any versions of model nope")),
]

OPEN_INFERENCE = [
    ("the server lives", "GET /v2/health/live", None, 200, {"live": True}),
    ("the server is ready", "GET /v2/health/ready", None, 200, {"ready": True}),
    ("a model is ready", "GET /v2/models/half/ready", None, 200, {"name": "half", "ready": True}),
    ("a version is ready", "GET /v2/models/half/versions/1/ready", None, 200, {"name": "half", "ready": True}),
    ("an unknown model", "GET /v2/models/nope/ready", None, 404, error("Servable not found for request: Latest(nope)")),
    (
        "what a model takes and gives",
        "GET /v2/models/half",
        None,
        200,
        {
            "name": "half",
            "versions": ["1", "3"],
            "platform": "tensorflow_savedmodel",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
            "parameters": {"signature_names": ["pairs", "serving_default", "words"]},
        },
    ),
    ("infer", "POST /v2/models/half/infer", _infer([1, 2], [2]), 200, _inferred([3.5, 4.0])),
    ("infer with an id", "POST /v2/models/half/infer", _infer([1], [1], id="a"), 200, _inferred([3.5], id="a")),
    ("infer of a version", "POST /v2/models/half/versions/1/infer", _infer([1], [1]), 200, _inferred([2.5], "1")),
    (
        "infer finds the signature by its inputs",
        "POST /v2/models/half/infer",
        {
            "inputs": [
                {"name": "times", "shape": [1], "datatype": "INT64", "data": [2]},
                {"name": "name", "shape": [1], "datatype": "BYTES", "data": ["YWI="], "parameters": {"content_type": "base64"}},
            ],
            "outputs": [{"name": "upper"}],
        },
        200,
        {
            "model_name": "half",
            "model_version": "3",
            "outputs": [{"name": "upper", "shape": [1], "datatype": "BYTES", "data": ["AB"]}],
        },
    ),
    (
        "another datatype",
        "POST /v2/models/half/infer",
        _infer([1], [1], "INT64"),
        400,
        error("input 'x' has the datatype 'FP32'. Received: 'INT64'"),
    ),
    (
        "another shape",
        "POST /v2/models/half/infer",
        _infer([1], [2]),
        400,
        error("input 'x' has 1 values, and its shape [2] asks for 2"),
    ),
    (
        "an unknown output",
        "POST /v2/models/half/infer",
        _infer([1], [1], outputs=[{"name": "z"}]),
        400,
        error("signature 'serving_default' has no output 'z'; it has ['y']"),
    ),
    (
        "no inputs",
        "POST /v2/models/half/infer",
        {},
        400,
        error('\'inputs\' must be a list of tensors: [{"name", "shape", "datatype", "data"}]'),
    ),
]

GOLDEN = [*PREDICT, *ERRORS, *STATUS, *OPEN_INFERENCE]
