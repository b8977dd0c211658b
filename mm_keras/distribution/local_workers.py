"""Runs several workers on this machine, to try a training in several processes: `mm-keras train … --local_workers=2`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from mm_keras.distribution.preemption import EXIT_CODE, end_if_asked

_GRACE = 60  # seconds for the workers to end by themselves after one has failed or all were asked to end
_TAIL = 15  # last lines of a failed worker's output that are shown


def run_local_workers(command: Sequence[str], count: int) -> int:
    """Runs the same command as `count` workers that find each other through TF_CONFIG.

    The chief, worker 0, writes to the output of this process. Every other worker writes into a file, which is deleted if no
    worker fails. If one fails, the others are ended. SIGTERM to this process, and Ctrl-C, send SIGTERM to all workers.

    Args:
        command: program and arguments of a worker.
        count: number of workers.

    Returns:
        0 if all workers ended with 0; else the exit status of the worker that failed first, or 75 if a signal ended it, since
        its training can be resumed.
    """
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(count)]
    logs = Path(tempfile.mkdtemp(prefix="mm-keras-workers-"))
    workers: list[subprocess.Popen] = []

    def terminate(*_):
        for worker in workers:
            if worker.poll() is None:
                worker.terminate()

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        for index in range(count):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment = os.environ | {"TF_CONFIG": json.dumps(task)}
            with open(_log(logs, index), "wb") if index else contextlib.nullcontext() as log:
                # Ctrl-C would end the workers without saving; it does not reach the process group that is made here.
                workers.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, process_group=0))
        logging.warning(f"{count} workers; output of all but the first is in {logs}")
        failed = wait_for_workers(workers)
    finally:
        terminate()
        _kill_after_grace(workers)
        signal.signal(signal.SIGTERM, before)
    if failed is None:
        for path in logs.iterdir():
            path.unlink()
        logs.rmdir()
        return 0
    status = workers[failed].returncode
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
    logging.error(f"mm-keras: worker {failed} of {count} {how}, so all are ended")
    if failed:
        lines = _log(logs, failed).read_text("utf-8", "replace").splitlines()[-_TAIL:]
        logging.error("\n".join([f"its output, {_log(logs, failed)}, ends with", *(f"  {line}" for line in lines)]))
    if status < 0:
        logging.error("run the same command again with --resume to go on")
    return EXIT_CODE if status < 0 else status


def wait_for_workers(workers: list[subprocess.Popen]) -> int | None:
    """Waits until all workers have ended with 0, and returns None, or until one has failed, and returns its index.

    When a worker fails, the others fail soon after, since it is gone. So all that fail within half a second are compared. Of
    these, a worker that a signal killed is taken to be the first one; else one whose exit status is not 75, the status of a
    training that can be resumed, with which the others end.
    """
    while not any(worker.poll() for worker in workers):
        if all(worker.returncode == 0 for worker in workers):
            return None
        time.sleep(0.1)
        end_if_asked()
    time.sleep(0.5)
    failed = [index for index, worker in enumerate(workers) if worker.poll()]
    return min(failed, key=lambda index: (workers[index].returncode > 0, workers[index].returncode == EXIT_CODE, index))


def _kill_after_grace(workers: list[subprocess.Popen]) -> None:
    deadline = time.monotonic() + _GRACE
    for worker in workers:
        try:
            worker.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]
    finally:
        for listener in sockets:
            listener.close()


def _log(logs: Path, index: int) -> Path:
    return logs / f"worker-{index}.log"
