"""Requests and the answers that TensorFlow Serving's sources and the Open Inference Protocol promise, as one table.

The model `half` has two versions: 1 answers y = x / 2 + 2, 3 answers y = x / 2 + 3; "stable" is a label of version 1. Its
signatures:

    serving_default   x float [B]                       -> y float [B]
    words             name string [B], times int64 [B]  -> upper string [B], total int64 [B], copy_bytes string [B]
    pairs             pair float [B, 2]                 -> sum float [B]
"""

from __future__ import annotations

HALF = "/v1/models/half"
_WORDS = {"signature_name": "words"}


def _error(text):
    return {"error": text}


def _element(number, key, text):
    return _error(f"Failed to process element: {number} key: {key} of 'instances' list. Error: INVALID_ARGUMENT: {text}")


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
        {**_WORDS, "instances": [{"name": "ab", "times": 2}, {"name": {"b64": "w6k="}, "times": 3}]},
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
        {**_WORDS, "inputs": {"name": ["ab"], "times": [5]}},
        200,
        {"outputs": {"copy_bytes": [{"b64": "YWI="}], "total": [10], "upper": ["AB"]}},
    ),
    (
        "base64 of URLs, without padding",
        f"POST {HALF}:predict",
        {**_WORDS, "inputs": {"name": [{"b64": "_-A"}], "times": [1]}},
        200,
        {"outputs": {"copy_bytes": [{"b64": "/+A="}], "total": [2], "upper": ["��"]}},
    ),
]

ERRORS = [
    ("an empty body", f"POST {HALF}:predict", "", 400, _error("JSON Parse error: The document is empty")),
    (
        "no JSON",
        f"POST {HALF}:predict",
        "{instances}",
        400,
        _error("JSON Parse error: Missing a name for object member. at offset: 1"),
    ),
    ("a cut body", f"POST {HALF}:predict", '{"instances": [1, ', 400, _error("JSON Parse error: Invalid value. at offset: 18")),
    (
        "a missing comma in an object",
        f"POST {HALF}:predict",
        '{"instances": [1] "x": 1}',
        400,
        _error("JSON Parse error: Missing a comma or } after an object member. at offset: 18"),
    ),
    (
        "a missing comma in an array",
        f"POST {HALF}:predict",
        '{"instances": [1 2]}',
        400,
        _error("JSON Parse error: Missing a comma or ] after an array element. at offset: 17"),
    ),
    (
        "two documents",
        f"POST {HALF}:predict",
        '{"instances": [1]} {}',
        400,
        _error("JSON Parse error: The document root must not be followed by other values. at offset: 19"),
    ),
    ("no object", f"POST {HALF}:predict", [1], 400, _error("JSON Value: [\n    1\n] Is not object")),
    ("neither rows nor columns", f"POST {HALF}:predict", {"x": 1}, 400, _error("Missing 'inputs' or 'instances' key")),
    (
        "rows and columns",
        f"POST {HALF}:predict",
        {"instances": [1], "inputs": [1]},
        400,
        _error(
            'JSON Value: {\n    "instances": [\n        1\n    ],\n    "inputs": [\n        1\n    ]\n} Not formatted '
            "correctly expecting only one of 'inputs' or 'instances' keys to exist "
        ),
    ),
    (
        "rows that are no list",
        f"POST {HALF}:predict",
        {"instances": 5},
        400,
        _error("JSON Value: {\n    \"instances\": 5\n} Excepting 'instances' to be an list/array"),
    ),
    (
        "no rows",
        f"POST {HALF}:predict",
        {"instances": []},
        400,
        _error("JSON Value: {\n    \"instances\": []\n} No values in 'instances' array"),
    ),
    (
        "a signature that is no text",
        f"POST {HALF}:predict",
        {"signature_name": 5},
        400,
        _error(
            "JSON Value: {\n    \"signature_name\": 5\n} not formatted correctly. 'signature_name' key must be a string value."
        ),
    ),
    (
        "an unknown signature",
        f"POST {HALF}:predict",
        {"signature_name": "nope", "instances": [1]},
        400,
        _error('Serving signature name: "nope" not found in signature def'),
    ),
    (
        "another type, in a plain row",
        f"POST {HALF}:predict",
        {"instances": ["a"]},
        400,
        _error(
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"a\" Type: String is not "
            "of expected type: float"
        ),
    ),
    (
        "null",
        f"POST {HALF}:predict",
        {"instances": [{"x": None}]},
        400,
        _element(0, "x", "JSON Value: null Type: Null is not of expected type: float"),
    ),
    (
        "true for a number",
        f"POST {HALF}:predict",
        {"inputs": [True]},
        400,
        _error("JSON Value: true Type: True is not of expected type: float"),
    ),
    (
        "a fraction for a whole number",
        f"POST {HALF}:predict",
        {**_WORDS, "instances": [{"name": "a", "times": 1.5}]},
        400,
        _element(0, "times", "JSON Value: 1.5 Type: Number is not of expected type: int64"),
    ),
    (
        "a whole number that a float cannot hold",
        f"POST {HALF}:predict",
        {"inputs": [16777217]},
        400,
        _error("Cannot convert JSON value: 16777217 to float without loss of precision."),
    ),
    (
        "rows of unequal shapes",
        f"POST {HALF}:predict",
        {"signature_name": "pairs", "instances": [[1, 2], [3]]},
        400,
        _error(
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 2 but got: 1"
        ),
    ),
    (
        "ragged columns",
        f"POST {HALF}:predict",
        {"signature_name": "pairs", "inputs": [[1, 2], [3]]},
        400,
        _error("Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
    ),
    (
        "a list among values",
        f"POST {HALF}:predict",
        {"inputs": [1, [2]]},
        400,
        _error("Encountered list at unexpected level: 1 expected < 1"),
    ),
    (
        "a value among lists",
        f"POST {HALF}:predict",
        {"signature_name": "pairs", "inputs": [[1, 2], 3]},
        400,
        _error("JSON Value: 3 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
    ),
    (
        "plain rows of several inputs",
        f"POST {HALF}:predict",
        {**_WORDS, "instances": ["a"]},
        400,
        _error(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map"
        ),
    ),
    (
        "a plain column of several inputs",
        f"POST {HALF}:predict",
        {**_WORDS, "inputs": ["a"]},
        400,
        _error(
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map"
        ),
    ),
    (
        "a row without an input",
        f"POST {HALF}:predict",
        {**_WORDS, "instances": [{"name": "a"}]},
        400,
        _error(
            'Failed to process element: 0 of \'instances\' list. JSON object: {\n    "name": "a"\n} keys must be equal to: '
            "name,times"
        ),
    ),
    (
        "an unknown input in a row",
        f"POST {HALF}:predict",
        {**_WORDS, "instances": [{"name": "a", "nope": 1}]},
        400,
        _element(0, "nope", "JSON object: does not have named input: nope"),
    ),
    (
        "a value behind objects",
        f"POST {HALF}:predict",
        {"instances": [{"x": 1}, 2]},
        400,
        _error("Expecting object but got list at item 1 of input list"),
    ),
    (
        "an object behind values",
        f"POST {HALF}:predict",
        {"instances": [1, {"x": 2}]},
        400,
        _error("Expecting value/list but got object at item 1 of input list"),
    ),
    (
        "a missing column",
        f"POST {HALF}:predict",
        {**_WORDS, "inputs": {"name": ["a"]}},
        400,
        _error("Missing named input: times in 'inputs' object."),
    ),
    (
        "bytes that are no base64",
        f"POST {HALF}:predict",
        {**_WORDS, "inputs": {"name": [{"b64": "%"}], "times": [1]}},
        400,
        _error("Unable to base64 decode"),
    ),
    (
        "an object beside base64",
        f"POST {HALF}:predict",
        {**_WORDS, "inputs": {"name": [{"b64": "", "x": 1}], "times": [1]}},
        400,
        _error('JSON Value: {\n    "b64": "",\n    "x": 1\n} not formatted correctly for base64 data'),
    ),
    (
        "half a pair of surrogates, and a byte that is no UTF-8",
        f"POST {HALF}:predict",
        '{"signature_name": "words", "inputs": {"name": ["\\ud800a", 5], "times": [1, 2]}}',
        400,
        _error("JSON Value: 5 Type: Number is not of expected type: string"),
    ),
    (
        "another shape",
        f"POST {HALF}:predict",
        {"inputs": [[1]]},
        400,
        _error("input 'x' of signature 'serving_default' has the shape [-1]. Received: [1, 1]"),
    ),
    (
        "no axis",
        f"POST {HALF}:predict",
        {"inputs": 1},
        400,
        _error("Batching Run() input tensors must have at least one dimension."),
    ),
    (
        "an unknown model",
        "POST /v1/models/nope:predict",
        {"instances": [1]},
        404,
        _error("Servable not found for request: Latest(nope)"),
    ),
    (
        "an unknown version",
        f"POST {HALF}/versions/2:predict",
        {"instances": [1]},
        404,
        _error("Servable not found for request: Specific(half, 2)"),
    ),
    (
        "an unknown label",
        f"POST {HALF}/labels/nope:predict",
        {"instances": [1]},
        400,
        _error("Unrecognized servable version label: nope"),
    ),
    ("a GET of :predict", f"GET {HALF}:predict", None, 400, _error("Malformed request: GET /v1/models/half:predict")),
    ("a POST of a status", f"POST {HALF}", {}, 400, _error("Malformed request: POST /v1/models/half")),
    ("an unknown path", "GET /v1/nope", None, 400, _error("Malformed request: GET /v1/nope")),
    ("no model", "GET /v1/models", None, 400, _error("Missing model name in request.")),
    (
        "classify of a model that predicts",
        f"POST {HALF}:classify",
        {"examples": [{"x": 1}]},
        400,
        _error(
            "Expected classification signature method_name to be tensorflow/serving/classify. Was: tensorflow/serving/predict"
        ),
    ),
    (
        "classify without examples",
        f"POST {HALF}:classify",
        {},
        400,
        _error("JSON Value: {} When method is classify, key 'examples' is expected and was not found"),
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
    ("of no version", f"GET {HALF}/versions/9", None, 404, _error("Could not find version 9 of model half")),
    ("of no model", "GET /v1/models/nope", None, 404, _error("Could not find any versions of model nope")),
]

OPEN_INFERENCE = [
    ("the server lives", "GET /v2/health/live", None, 200, {"live": True}),
    ("the server is ready", "GET /v2/health/ready", None, 200, {"ready": True}),
    ("a model is ready", "GET /v2/models/half/ready", None, 200, {"name": "half", "ready": True}),
    ("a version is ready", "GET /v2/models/half/versions/1/ready", None, 200, {"name": "half", "ready": True}),
    ("an unknown model", "GET /v2/models/nope/ready", None, 404, _error("Servable not found for request: Latest(nope)")),
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
        _error("input 'x' has the datatype 'FP32'. Received: 'INT64'"),
    ),
    (
        "another shape",
        "POST /v2/models/half/infer",
        _infer([1], [2]),
        400,
        _error("input 'x' has 1 values, and its shape [2] asks for 2"),
    ),
    (
        "an unknown output",
        "POST /v2/models/half/infer",
        _infer([1], [1], outputs=[{"name": "z"}]),
        400,
        _error("signature 'serving_default' has no output 'z'; it has ['y']"),
    ),
    (
        "no inputs",
        "POST /v2/models/half/infer",
        {},
        400,
        _error('\'inputs\' must be a list of tensors: [{"name", "shape", "datatype", "data"}]'),
    ),
]

GOLDEN = [*PREDICT, *ERRORS, *STATUS, *OPEN_INFERENCE]
