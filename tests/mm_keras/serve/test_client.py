"""The client against a server on a port, and what it needs: Python alone."""

import asyncio
import socket
import threading

import pytest
import uvicorn

from mm_keras.serve.app import Server, make_app, make_batcher_of
from mm_keras.serve.client import Client, ServerError
from mm_keras.serve.models import Models, ModelSource
from mm_keras.serve.observing import Metrics
from mm_keras.serve.options import ServerOptions
from mm_keras.serve.run_server import find_source, listen


@pytest.fixture(scope="module")
def address(exported):
    options, metrics = ServerOptions(poll=0), Metrics()
    models = Models([ModelSource("reviews", exported[0])], make_batcher_of(options, metrics))
    running = uvicorn.Server(uvicorn.Config(make_app(Server(models, options, metrics)), log_config=None))
    listening = listen("127.0.0.1", 0)
    thread = threading.Thread(target=running.run, args=([listening],))
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    running.should_exit = True
    thread.join(20)
    listening.close()


@pytest.mark.ci
def test_client_asks_in_all_ways(address, exported, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(exported[2]["image"][0])
    with Client(address, model="reviews") as client:
        client.wait(30)
        answer = client.classify(image=tmp_path / "photo.jpg", **{"Review Text": "oak mug"})
        assert answer == client.classify(image=str(tmp_path / "photo.jpg"), review_text_42d93221="oak mug")
        (row,) = client.predict([{"image": exported[2]["image"][0], "review_text_42d93221": "oak mug"}])
        assert row["labels"] == [each["label"] for each in answer["labels"]]
        (text,) = client.predict([{"review_text_42d93221": "oak"}], signature="review_text_42d93221", version=1)
        assert text["labels"] == [each["label"] for each in client.classify(**{"Review Text": "oak"})["labels"]]
        assert set(client.metadata()["image"]["inputs"]) == {"image"}
        assert client.status()[0]["state"] == "AVAILABLE"


def test_answers_are_sent_without_waiting_for_acknowledgements():
    async def has_no_delay() -> int:
        option = asyncio.get_running_loop().create_future()

        def accepted(reader, writer):
            option.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(accepted, sock=listen("127.0.0.1", 0)) as server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.close()
            return await option

    assert asyncio.run(has_no_delay())


def test_client_tells_of_errors(address):
    with Client(address, tries=1) as client:
        client.wait(30)
        with pytest.raises(ServerError, match=r"the model has no input 'nope'; .* \(HTTP 400\)") as caught:
            client.classify(nope="x")
        assert caught.value.status == 400
        with pytest.raises(ServerError, match="Servable not found"):
            client.predict([{"x": 1}], model="nope")
        with pytest.raises(ValueError, match="name a model"):
            client.predict([{"x": 1}])
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:9: "):
        Client("http://127.0.0.1:9", tries=2).status("x")
    with pytest.raises(ValueError, match="an address is"):
        Client("ftp://x")
    assert not Client("http://127.0.0.1:9").is_ready()


def test_client_needs_neither_tensorflow_nor_another_package(run_python):
    script = """
import sys
import mm_keras.serve.client
foreign = {"tensorflow", "keras", "numpy", "httpx", "fastapi", "google"} & {name.partition(".")[0] for name in sys.modules}
assert not foreign, foreign
"""
    run_python(script)


def test_sources_are_runs_exports_and_versions(half, exported, tmp_path):
    assert find_source(str(half)) == ModelSource("half", half)
    assert find_source(f"other={half}").name == "other"
    version = find_source(str(half / "1"))
    assert (version.name, version.versions, list(version.wanted())) == ("half", (1,), [1])
    labelled = find_source(str(half), ["stable=1"])
    assert (labelled.versions, labelled.labels) == ((1, 3), {"stable": 1})
    with pytest.raises(FileNotFoundError, match="does not exist: give a run folder"):
        find_source("nowhere")
    with pytest.raises(FileNotFoundError, match="holds no versions of an exported model"):
        find_source(str(tmp_path))
    with pytest.raises(ValueError, match="LABEL=VERSION"):
        find_source(str(half), ["stable"])
