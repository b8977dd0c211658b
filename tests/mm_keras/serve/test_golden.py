"""The server answers as TensorFlow Serving and the Open Inference Protocol say."""

import gzip
import json

import pytest

from tests.mm_keras.serve.golden_requests import GOLDEN, HALF


@pytest.mark.parametrize(
    ("_", "request_line", "body", "status", "expected"), GOLDEN, ids=[f"{each[0]}-{each[3]}" for each in GOLDEN]
)
def test_golden_request(server, _, request_line, body, status, expected):
    method, path = request_line.split()
    content = body if isinstance(body, str) else None if body is None else json.dumps(body)
    answer = server.request(method, path, content=content)
    assert (answer.status_code, answer.json()) == (status, expected)
    assert answer.headers["content-type"] == "application/json"


def test_there_are_at_least_forty():
    assert len(GOLDEN) >= 40
    assert len({(line, json.dumps(body)) for _, line, body, _, _ in GOLDEN}) == len(GOLDEN)


def test_numbers_that_are_none_have_their_tokens(server):
    answer = server.post(f"{HALF}:predict", content='{"instances": [NaN, Infinity, -Infinity]}')
    assert answer.text == '{"predictions":[NaN,Infinity,-Infinity]}'


def test_bodies_may_be_compressed(server):
    body = gzip.compress(json.dumps({"instances": [1] * 1000}).encode())
    answer = server.post(f"{HALF}:predict", content=body, headers={"Content-Encoding": "gzip", "Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json() == {"predictions": [3.5] * 1000}
    broken = server.post(f"{HALF}:predict", content=b"no gzip", headers={"Content-Encoding": "gzip"})
    assert (broken.status_code, broken.json()["error"].startswith("the body is no gzip")) == (400, True)


def test_metadata_are_those_of_the_signatures(server):
    answer = server.get(f"{HALF}/metadata").json()
    assert answer["model_spec"] == {"name": "half", "signature_name": "", "version": "3"}
    words = answer["metadata"]["signature_def"]["signature_def"]["words"]
    assert words["method_name"] == "tensorflow/serving/predict"
    assert words["inputs"]["times"]["dtype"] == "DT_INT64"
    assert words["inputs"]["times"]["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}


def test_both_protocols_agree(server):
    rows = server.post(f"{HALF}:predict", json={"inputs": [0.1, 0.2, 3]}).json()["outputs"]
    tensor = {"name": "x", "shape": [3], "datatype": "FP32", "data": [0.1, 0.2, 3]}
    assert server.post("/v2/models/half/infer", json={"inputs": [tensor]}).json()["outputs"][0]["data"] == rows
