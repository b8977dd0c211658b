"""How fast an exported model answers: called in this process, and behind `mm-keras serve`. One JSON line per measurement.

    python bench/serve.py runs/products [--seconds=30] [--clients=1,8,32]

- One example at a time, and batches of 64: the export (strings and encoded pictures), and beside it the Keras model on ready
  tensors, without any preprocessing. The ways take turns; medians and 99th percentiles.
- The server, asked by so many clients at the same time, each of which sends its next example when the last one is answered:
  with batching across requests, and without (`--max_batch=1`). Memory of the server before and behind.

The examples are the first of the dataset's test split. The run is exported if it has no export.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from measure import report

from mm_keras.data.preprocess import Preprocessor
from mm_keras.runs.export import export
from mm_keras.runs.export_assets import first_records
from mm_keras.runs.run_folder import RunFolder
from mm_keras.serve.client import Client, ServerError

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="the folder of a trained run, whose dataset is there")
    parser.add_argument("--seconds", type=float, default=30, help="for which each number of clients asks (default: 30)")
    parser.add_argument("--clients", default="1,8,32", help="numbers of clients (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=100, help="calls of each way in this process (default: 100)")
    options = parser.parse_args()
    versions = [path for path in options.run_folder.glob("export/*/") if path.name.isdecimal()]
    folder = max(versions, key=lambda path: int(path.name), default=None) or export(options.run_folder)
    model, features = RunFolder(options.run_folder).load_model()
    found = first_records(RunFolder(options.run_folder).dataset(None).split("test"), features, BATCH)
    raw = {name: list(itertools.islice(itertools.cycle(values), BATCH)) for name, values in found.items()}
    measure_calls(folder, model, features, raw, options.rounds)
    examples = [dict(zip(raw, values, strict=True)) for values in zip(*raw.values(), strict=True)]
    for what, more in (("batching", []), ("no batching", ["--max_batch=1"])):
        measure_server(folder.parent, what, more, examples, [int(each) for each in options.clients.split(",")], options.seconds)


def measure_calls(folder: Path, model, features, raw: dict[str, list[bytes]], rounds: int) -> None:
    """The export and the Keras model, called one example at a time and in batches."""
    served = tf.saved_model.load(str(folder)).signatures["serving_default"]
    keras_call = tf.function(lambda inputs: model(inputs, training=False))
    preprocess = Preprocessor(features)
    for size, count in ((1, rounds), (BATCH, max(3, rounds // 20))):
        parts = [{name: tf.constant(values[row : row + size]) for name, values in raw.items()} for row in range(0, BATCH, size)]
        tensors = [preprocess.raw(part) for part in parts]
        ways = {"export": [lambda part=part: served(**part) for part in parts]}
        ways["Keras, ready tensors"] = [lambda part=part: keras_call(part) for part in tensors]
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(-2, count):
            for name, calls in ways.items():
                began = time.perf_counter()
                calls[number % len(calls)]()
                if number >= 0:
                    times[name].append(time.perf_counter() - began)
        for name, seconds in times.items():
            facts = {"examples": size, **_percentiles(seconds), "per_second": round(size / float(np.median(seconds)), 1)}
            report("serve", name, **facts)


def measure_server(
    base: Path, what: str, more: list[str], examples: list[dict[str, bytes]], numbers: list[int], seconds: float
) -> None:
    """Starts a server, and asks it by several numbers of clients."""
    command = [sys.executable, "-m", "mm_keras.cli.main", "serve", f"bench={base}", "--port=0", *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            address = next(line for line in server.stdout if "http" in line).split()[-1]
            Client(address).wait(120)
            before = _memory(server.pid)
            for clients in numbers:
                times, errors = _load(address, examples, clients, seconds)
                facts = {"clients": clients, **_percentiles(times), "per_second": round(len(times) / seconds, 1)}
                report("serve", f"server, {what}", **facts, errors=errors)
            report("serve", f"server, {what}", memory_mb_before=before, memory_mb_behind=_memory(server.pid))
        finally:
            server.terminate()
            server.wait(60)


def _load(address: str, examples: list[dict[str, bytes]], clients: int, seconds: float) -> tuple[list[float], int]:
    times: list[float] = []
    errors = []
    ends = time.perf_counter() + seconds

    def ask(first: int) -> None:
        with Client(address, model="bench", tries=1) as client:
            for example in itertools.islice(itertools.cycle(examples), first, None):
                began = time.perf_counter()
                if began > ends:
                    return
                try:
                    client.predict([example])
                    times.append(time.perf_counter() - began)
                except ServerError as error:
                    errors.append(error)

    _together([lambda first=first: ask(first) for first in range(clients)])
    return times, len(errors)


def _together(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _percentiles(seconds: list[float]) -> dict[str, float]:
    middle, high = np.percentile(seconds, [50, 99]) if seconds else (float("nan"),) * 2
    return {"p50_ms": round(1000 * float(middle), 2), "p99_ms": round(1000 * float(high), 2)}


def _memory(pid: int) -> int | None:
    """MB of a process, where the system says so."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS")), None)


if __name__ == "__main__":
    main()
