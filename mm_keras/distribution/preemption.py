"""SIGTERM, as machines get it that are taken away: the step is finished and saved, and the program says that it can go on."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: run the same again, later


class Preempted(RuntimeError):  # noqa: N818  nothing is wrong
    """The training stopped because the process was asked to end; the message says from where it can go on."""


class Preemption:
    """Inside of its block, SIGTERM sets `requested` and ends nothing.

    Only the main thread of a program can do so; in another, nothing changes.
    """

    def __init__(self):
        self.requested = False
        self._before = None

    def __enter__(self) -> Preemption:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._request)
        return self

    def __exit__(self, *_):
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _request(self, number, frame):
        self.requested = True


@contextlib.contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Inside of its block, SIGTERM raises `Preempted`, wherever the program is: for what is done before and after training."""

    def stop(number, frame):
        raise Preempted("asked to end (SIGTERM); run the same command again, of a training with --resume")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
