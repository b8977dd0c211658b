"""Requests that TensorFlow Serving refuses, with its status and words; the model is that of `golden_requests`."""

from __future__ import annotations

HALF = "/v1/models/half"
WORDS = {"signature_name": "words"}


def error(text):
    return {"error": text}


def _element(number, key, text):
    return error(f"Failed to process element: {number} key: {key} of 'instances' list. Error: INVALID_ARGUMENT: {text}")


ERRORS = [
    ("an empty body", f"POST {HALF}:predict", "", 400, error("JSON Parse error: The document is empty")),
    (
        "no JSON",
        f"POST {HALF}:predict",
        "{instances}",
        400,
        error("JSON Parse error: Missing a name for object member. at offset: 1"),
    ),
    ("a cut body", f"POST {HALF}:predict", '{"instances": [1, ', 400, error("JSON Parse error: Invalid value. at offset: 18")),
    (
        "a missing comma in an object",
        f"POST {HALF}:predict",
        '{"instances": [1] "x": 1}',
        400,
        error("JSON Parse error: Missing a comma or } after an object member. at offset: 18"),
    ),
    (
        "a missing comma in an array",
        f"POST {HALF}:predict",
        '{"instances": [1 2]}',
        400,
        error("JSON Parse error: Missing a comma or ] after an array element. at offset: 17"),
    ),
    (
        "two documents",
        f"POST {HALF}:predict",
        '{"instances": [1]} {}',
        400,
        error("JSON Parse error: The document root must not be followed by other values. at offset: 19"),
    ),
    ("no object", f"POST {HALF}:predict", [1], 400, error("JSON Value: [\n    1\n] Is not object")),
    ("neither rows nor columns", f"POST {HALF}:predict", {"x": 1}, 400, error("Missing 'inputs' or 'instances' key")),
    (
        "rows and columns",
        f"POST {HALF}:predict",
        {"instances": [1], "inputs": [1]},
        400,
        error(
            'JSON Value: {\n    "instances": [\n        1\n    ],\n    "inputs": [\n        1\n    ]\n} Not formatted '
            "correctly expecting only one of 'inputs' or 'instances' keys to exist "
        ),
    ),
    (
        "rows that are no list",
        f"POST {HALF}:predict",
        {"instances": 5},
        400,
        error("JSON Value: {\n    \"instances\": 5\n} Excepting 'instances' to be an list/array"),
    ),
    (
        "no rows",
        f"POST {HALF}:predict",
        {"instances": []},
        400,
        error("JSON Value: {\n    \"instances\": []\n} No values in 'instances' array"),
    ),
    (
        "a signature that is no text",
        f"POST {HALF}:predict",
        {"signature_name": 5},
        400,
        error(
            "JSON Value: {\n    \"signature_name\": 5\n} not formatted correctly. 'signature_name' key must be a string value."
        ),
    ),
    (
        "an unknown signature",
        f"POST {HALF}:predict",
        {"signature_name": "nope", "instances": [1]},
        400,
        error('Serving signature name: "nope" not found in signature def'),
    ),
    (
        "another type, in a plain row",
        f"POST {HALF}:predict",
        {"instances": ["a"]},
        400,
        error(
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
        error("JSON Value: true Type: True is not of expected type: float"),
    ),
    (
        "a fraction for a whole number",
        f"POST {HALF}:predict",
        {**WORDS, "instances": [{"name": "a", "times": 1.5}]},
        400,
        _element(0, "times", "JSON Value: 1.5 Type: Number is not of expected type: int64"),
    ),
    (
        "a whole number that a float cannot hold",
        f"POST {HALF}:predict",
        {"inputs": [16777217]},
        400,
        error("Cannot convert JSON value: 16777217 to float without loss of precision."),
    ),
    (
        "rows of unequal shapes",
        f"POST {HALF}:predict",
        {"signature_name": "pairs", "instances": [[1, 2], [3]]},
        400,
        error("Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 2 but got: 1"),
    ),
    (
        "ragged columns",
        f"POST {HALF}:predict",
        {"signature_name": "pairs", "inputs": [[1, 2], [3]]},
        400,
        error("Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
    ),
    (
        "a list among values",
        f"POST {HALF}:predict",
        {"inputs": [1, [2]]},
        400,
        error("Encountered list at unexpected level: 1 expected < 1"),
    ),
    (
        "a value among lists",
        f"POST {HALF}:predict",
        {"signature_name": "pairs", "inputs": [[1, 2], 3]},
        400,
        error("JSON Value: 3 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
    ),
    (
        "plain rows of several inputs",
        f"POST {HALF}:predict",
        {**WORDS, "instances": ["a"]},
        400,
        error(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map"
        ),
    ),
    (
        "a plain column of several inputs",
        f"POST {HALF}:predict",
        {**WORDS, "inputs": ["a"]},
        400,
        error("inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map"),
    ),
    (
        "a row without an input",
        f"POST {HALF}:predict",
        {**WORDS, "instances": [{"name": "a"}]},
        400,
        error(
            'Failed to process element: 0 of \'instances\' list. JSON object: {\n    "name": "a"\n} keys must be equal to: '
            "name,times"
        ),
    ),
    (
        "an unknown input in a row",
        f"POST {HALF}:predict",
        {**WORDS, "instances": [{"name": "a", "nope": 1}]},
        400,
        _element(0, "nope", "JSON object: does not have named input: nope"),
    ),
    (
        "a value behind objects",
        f"POST {HALF}:predict",
        {"instances": [{"x": 1}, 2]},
        400,
        error("Expecting object but got list at item 1 of input list"),
    ),
    (
        "an object behind values",
        f"POST {HALF}:predict",
        {"instances": [1, {"x": 2}]},
        400,
        error("Expecting value/list but got object at item 1 of input list"),
    ),
    (
        "a missing column",
        f"POST {HALF}:predict",
        {**WORDS, "inputs": {"name": ["a"]}},
        400,
        error("Missing named input: times in 'inputs' object."),
    ),
    (
        "bytes that are no base64",
        f"POST {HALF}:predict",
        {**WORDS, "inputs": {"name": [{"b64": "%"}], "times": [1]}},
        400,
        error("Unable to base64 decode"),
    ),
    (
        "an object beside base64",
        f"POST {HALF}:predict",
        {**WORDS, "inputs": {"name": [{"b64": "", "x": 1}], "times": [1]}},
        400,
        error('JSON Value: {\n    "b64": "",\n    "x": 1\n} not formatted correctly for base64 data'),
    ),
    (
        "half a pair of surrogates, and a byte that is no UTF-8",
        f"POST {HALF}:predict",
        '{"signature_name": "words", "inputs": {"name": ["\\ud800a", 5], "times": [1, 2]}}',
        400,
        error("JSON Value: 5 Type: Number is not of expected type: string"),
    ),
    (
        "another shape",
        f"POST {HALF}:predict",
        {"inputs": [[1]]},
        400,
        error("input 'x' of signature 'serving_default' has the shape [-1]. Received: [1, 1]"),
    ),
    (
        "no axis",
        f"POST {HALF}:predict",
        {"inputs": 1},
        400,
        error("Batching Run() input tensors must have at least one dimension."),
    ),
    (
        "an unknown model",
        "POST /v1/models/nope:predict",
        {"instances": [1]},
        404,
        error("Servable not found for request: Latest(nope)"),
    ),
    (
        "an unknown version",
        f"POST {HALF}/versions/2:predict",
        {"instances": [1]},
        404,
        error("Servable not found for request: Specific(half, 2)"),
    ),
    (
        "an unknown label",
        f"POST {HALF}/labels/nope:predict",
        {"instances": [1]},
        400,
        error("Unrecognized servable version label: nope"),
    ),
    ("a GET of :predict", f"GET {HALF}:predict", None, 400, error("Malformed request: GET /v1/models/half:predict")),
    ("a POST of a status", f"POST {HALF}", {}, 400, error("Malformed request: POST /v1/models/half")),
    ("an unknown path", "GET /v1/nope", None, 400, error("Malformed request: GET /v1/nope")),
    ("no model", "GET /v1/models", None, 400, error("Missing model name in request.")),
    (
        "classify of a model that predicts",
        f"POST {HALF}:classify",
        {"examples": [{"x": 1}]},
        400,
        error(
            "Expected classification signature method_name to be tensorflow/serving/classify. Was: tensorflow/serving/predict"
        ),
    ),
    (
        "classify without examples",
        f"POST {HALF}:classify",
        {},
        400,
        error("JSON Value: {} When method is classify, key 'examples' is expected and was not found"),
    ),
]
