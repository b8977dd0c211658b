"""`/classify`, the answers of an export, limits, metrics, the log, and what happens while models come and go."""

import asyncio
import base64
import json
import logging
import shutil
import time

import httpx
import numpy as np
import pytest

from mm_keras.serve.app import Server, make_app, make_batcher_of
from mm_keras.serve.models import Models, ModelSource, load_warm
from mm_keras.serve.observing import Metrics
from mm_keras.serve.options import ServerOptions

KEY = "review_text_42d93221"


@pytest.fixture
def instances(exported):
    raw = exported[2]
    return [
        {"image": {"b64": base64.b64encode(image).decode()}, KEY: text.decode()}
        for image, text in zip(raw["image"], raw[KEY], strict=True)
    ]


def _classify(server, image=None, **fields):
    files = {"image": ("photo.jpg", image)} if image is not None else None
    return server.post("/classify?model=reviews", files=files, data=fields)


def test_a_form_is_answered_as_predict_answers(server, exported, instances):
    predicted = server.post("/v1/models/reviews:predict", json={"instances": instances[:1]}).json()["predictions"][0]
    answer = _classify(server, exported[2]["image"][0], **{"Review Text": "oak mug"})
    assert answer.status_code == 200
    content = answer.json()
    assert [each["label"] for each in content["labels"]] == predicted["labels"]
    np.testing.assert_allclose([each["probability"] for each in content["labels"]], predicted["probabilities"], atol=1e-6)
    assert (content["model"], content["version"]) == ("reviews", 1)
    by_json = server.post("/classify?model=reviews&top=1", json={"image": instances[0]["image"], KEY: "oak mug"}).json()
    assert by_json["labels"] == content["labels"][:1]


def test_what_is_left_out_counts_as_missing(server, exported, instances):
    alone = _classify(server, **{"Review Text": "oak mug"}).json()["labels"]
    body = {"signature_name": KEY, "instances": ["oak mug"]}
    predicted = server.post("/v1/models/reviews:predict", json=body).json()["predictions"][0]
    assert [each["label"] for each in alone] == predicted["labels"]


@pytest.mark.parametrize(
    ("image", "fields", "told"),
    [
        (None, {"Review Text": " "}, "the example has none of the inputs"),
        (b"no picture", {}, "the picture is no JPEG, PNG, GIF, WebP or BMP"),
        (None, {"nope": "x"}, "the model has no input 'nope'; its inputs are ['Review Text', 'image']"),
    ],
)
def test_a_bad_example_is_told_of(server, image, fields, told):
    answer = _classify(server, image, **fields)
    assert answer.status_code == 400
    assert told in answer.json()["error"]


def test_a_damaged_picture_is_told_of_alone_and_among_others(server, exported, instances):
    damaged = exported[2]["image"][0][:200]
    answer = _classify(server, damaged, **{"Review Text": "oak"})
    assert (answer.status_code, answer.json()) == (400, {"error": "the picture is damaged or cut off"})
    broken = {"image": {"b64": base64.b64encode(damaged).decode()}, KEY: "oak"}
    both = server.post("/v1/models/reviews:predict", json={"instances": [broken, instances[1]]}).json()["predictions"]
    alone = server.post("/v1/models/reviews:predict", json={"instances": [instances[1]]}).json()["predictions"][0]
    assert both[0]["error"] == "the picture is damaged or cut off"
    assert both[0]["scores"] == [0.0] * 4 and both[1]["labels"] == alone["labels"]


def test_forms_that_are_none_are_errors(server):
    for options in (
        {"content": b"x"},
        {"content": b"--a\r\nbroken", "headers": {"Content-Type": "multipart/form-data; boundary=a"}},
        {"json": {"image": 5}},
        {"content": b"{", "headers": {"Content-Type": "application/json"}},
    ):
        answer = server.post("/classify?model=reviews", **options)
        assert answer.status_code == 400, options
        assert answer.json()["error"]


@pytest.mark.ci
def test_limits_on_bodies_and_texts(start, exported):
    with start(ModelSource("reviews", exported[0]), max_body_mb=0.01, max_text=10) as client:
        long = client.post("/classify", json={"Review Text": "é" * 11})
        assert (long.status_code, long.json()["error"]) == (
            400,
            f"input {KEY!r} has a text of more than 10 characters: shorten it",
        )
        assert client.post("/classify", json={"Review Text": "é" * 10}).status_code == 200
        large = client.post("/classify", json={"Review Text": "x" * 20_000})
        assert (large.status_code, "0 MB" in large.json()["error"]) == (413, True)
        parts = (b"x" * 1000 for _ in range(20))  # without a Content-Length
        chunked = client.post("/classify", content=parts, headers={"Content-Type": "application/json"})
        assert chunked.status_code == 413


def test_the_log_says_what_was_asked_and_nothing_of_what_it_held(server, caplog):
    with caplog.at_level(logging.INFO, "mm_keras.serve.access"):
        logging.getLogger("mm_keras.serve").propagate = True
        _classify(server, **{"Review Text": "a secret"})
    (line,) = [json.loads(record.message) for record in caplog.records if record.name == "mm_keras.serve.access"]
    assert line | {"time": 0, "ms": 0, "bytes_in": 0, "bytes_out": 0} == {
        "time": 0,
        "client": "testclient",
        "request": "POST /classify",
        "ms": 0,
        "status": 200,
        "bytes_in": 0,
        "bytes_out": 0,
        "method": "classify",
        "model": "reviews",
        "version": 1,
        "rows": 1,
    }
    assert line["bytes_in"] > 0 and line["bytes_out"] > 0 and "secret" not in json.dumps(line)


def test_metrics_count_requests(server):
    server.post("/v1/models/nope:predict", json={})
    text = server.get("/monitoring/prometheus/metrics").text
    assert 'mm_keras_requests_total{method="predict",status="404"}' in text
    assert 'mm_keras_model_version{model="half"} 3.0' in text
    assert "mm_keras_batch_rows_bucket" in text
    assert server.get("/metrics").text.startswith("# HELP")


@pytest.mark.ci
def test_the_description_names_the_models_inputs(start, exported):
    with start(ModelSource("reviews", exported[0])) as client:
        api = client.get("/openapi.json").json()
        form = api["paths"]["/classify"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
        assert set(form) == {"image", "Review Text"}
        assert "http://" not in client.get("/docs").text.replace("http://127", "")


def _make(sources, load=load_warm, **options):
    options, metrics = ServerOptions(poll=0, **options), Metrics()
    server = Server(Models(sources, make_batcher_of(options, metrics), load), options, metrics)
    transport = httpx.ASGITransport(make_app(server))
    return server, httpx.AsyncClient(transport=transport, base_url="http://server")


def test_requests_wait_with_503_until_the_model_is_warm(half):
    async def ask():
        began, may_end = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def load(*arguments):
            loop.call_soon_threadsafe(began.set)
            asyncio.run_coroutine_threadsafe(may_end.wait(), loop).result(10)
            return load_warm(*arguments)

        server, client = _make([ModelSource("half", half)], load)
        async with client:
            task = asyncio.create_task(server.models.refresh())
            await began.wait()
            paths = ("/v2/health/live", "/v2/health/ready")
            assert [(await client.get(path)).status_code for path in paths] == [200, 503]
            refused = await client.post("/v1/models/half:predict", json={"instances": [1]})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            states = (await client.get("/v1/models/half")).json()["model_version_status"]
            assert [state["state"] for state in states] == ["LOADING"]
            may_end.set()
            await task
            assert (await client.get("/v2/health/ready")).json() == {"ready": True}

    asyncio.run(ask())


def test_a_new_version_takes_the_place_of_the_old_one_without_a_failed_request(half, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(half / "1", folder / "1")

    async def ask():
        server, client = _make([ModelSource("half", folder)])
        async with client:
            await server.models.refresh()
            answers, done = [], asyncio.Event()

            async def load_it():
                while not done.is_set():
                    answers.append(await client.post("/v1/models/half:predict", json={"instances": [1]}))
                    await asyncio.sleep(0)

            clients = [asyncio.create_task(load_it()) for _ in range(4)]
            await asyncio.sleep(0.2)
            shutil.copytree(half / "3", folder / "unfinished")
            (folder / "unfinished").rename(folder / "2")
            await server.models.refresh()
            await asyncio.sleep(0.2)
            done.set()
            await asyncio.gather(*clients)
            assert {answer.status_code for answer in answers} == {200}
            values = [answer.json()["predictions"][0] for answer in answers]
            assert values == sorted(values) and (values[0], values[-1]) == (2.5, 3.5)
            assert server.models.numbers("half") == [2]
            states = (await client.get("/v1/models/half")).json()["model_version_status"]
            assert [(each["version"], each["state"]) for each in states] == [("2", "AVAILABLE"), ("1", "END")]

    asyncio.run(ask())


def test_a_version_that_cannot_be_loaded_leaves_the_old_one(half, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(half / "1", folder / "1")

    async def ask():
        server, client = _make([ModelSource("half", folder)])
        async with client:
            await server.models.refresh()
            (folder / "2").mkdir()
            (folder / "2" / "saved_model.pb").write_bytes(b"no model")
            await server.models.refresh()
            await server.models.refresh()
            assert (await client.post("/v1/models/half:predict", json={"instances": [1]})).json() == {"predictions": [2.5]}
            states = (await client.get("/v1/models/half")).json()["model_version_status"]
            assert [each["state"] for each in states] == ["END", "AVAILABLE"]
            assert states[0]["status"]["error_message"]

    asyncio.run(ask())


def test_a_slow_answer_is_given_up(half):
    class Slow:
        name, number, features = "half", 1, None

        def __init__(self, fast):
            self.signatures = fast.signatures

        def check(self, signature, inputs):
            pass

        def run(self, signature, inputs):
            time.sleep(0.3)
            return {"y": inputs["x"]}

    async def ask():
        server, client = _make([ModelSource("half", half)], lambda *arguments: Slow(load_warm(*arguments)), timeout=0.05)
        async with client:
            await server.models.refresh()
            answer = await client.post("/v1/models/half:predict", json={"instances": [1]})
            assert (answer.status_code, answer.json()["error"]) == (504, "no answer within 0.05 s: try again later")
            many = [client.post("/v1/models/half:predict", json={"instances": [1] * 200}) for _ in range(6)]
            assert 429 in {answer.status_code for answer in await asyncio.gather(*many)}

    asyncio.run(ask())


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_malformed_requests_leave_the_server_as_it_is(server, count):
    rng = np.random.default_rng(0)
    good = json.dumps({"instances": [1, 2]}).encode()
    paths = ["/v1/models/half:predict", "/v2/models/half/infer", "/classify?model=reviews", "/v1/models/half:classify"]
    for number in range(count):
        body = bytearray(good)
        for place in rng.integers(0, len(body), rng.integers(1, 4)):
            body[place] = rng.integers(0, 256)
        kind = ["application/json", "multipart/form-data; boundary=x", "text/plain"][number % 3]
        answer = server.post(paths[number % 4], content=bytes(body), headers={"Content-Type": kind})
        assert answer.status_code in (200, 400), (bytes(body), answer.text)
        if number % 100 == 0:
            assert server.post("/v1/models/half:predict", content=good).json() == {"predictions": [3.5, 4.0]}
