"""`mm-keras serve` as a process: it says where it is, and ends in order when it is asked to."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from mm_keras.serve.client import Client, ServerError
from tests.mm_keras.conftest import REPOSITORY

pytestmark = pytest.mark.slow


@pytest.fixture
def serve():
    """A function: (arguments) -> the running process and the server's address."""
    running = []

    def start(*arguments):
        command = [sys.executable, "-m", "mm_keras.cli.main", "serve", *map(str, arguments), "--port=0"]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        running.append(process)
        return process, process.stdout.readline().split()[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_it_answers_what_was_asked_and_exits_with_0(serve, half, number):
    process, address = serve(f"numbers={half}")
    with Client(address) as client:
        client.wait(90)
    answers, errors = [], []

    def ask():
        with Client(address, model="numbers", tries=1) as client:
            while True:
                try:
                    answers.append(client.predict([{"x": 1}]))
                except ServerError as error:
                    errors.append(error)
                    return

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    process.send_signal(number)
    _, log = process.communicate(timeout=60)
    for thread in threads:
        thread.join(30)
    assert process.returncode == 0
    assert len(answers) > 20 and {tuple(answer) for answer in answers} == {(3.5,)}
    assert {error.status for error in errors} == {0}  # the connection was closed: no request was answered with an error
    assert "Traceback" not in log and '"status": 200' in log


def test_a_port_that_is_taken_is_one_clear_error(serve, half):
    _, address = serve(half)
    port = address.rpartition(":")[2]
    command = [sys.executable, "-m", "mm_keras.cli.main", "serve", str(half), f"--port={port}"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert f"Address already in use: give another --port: '127.0.0.1:{port}'" in done.stderr


def test_the_bench_measures_calls_and_the_server(trained_run, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    command = [sys.executable, REPOSITORY / "bench" / "serve.py", run, "--seconds=1", "--clients=1,2", "--rounds=3"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert not done.returncode, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    calls = {(line["what"], line["examples"]) for line in lines if "examples" in line}
    assert calls == {(what, size) for what in ("export", "Keras, ready tensors") for size in (1, 64)}
    served = [line for line in lines if "clients" in line]
    ways = [f"server, {what}" for what in ("batching", "no batching")]
    assert [(line["what"], line["clients"]) for line in served] == [(way, clients) for way in ways for clients in (1, 2)]
    assert all(line["errors"] == 0 and line["per_second"] > 0 for line in served)
