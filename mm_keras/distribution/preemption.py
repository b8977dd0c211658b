"""SIGTERM, which a machine gets before it is taken away: the training finishes its step, saves, and can be resumed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command may succeed later


class Preempted(RuntimeError):  # noqa: N818  it is no error
    """The training stopped because the process was asked to end. The message says how to resume it."""


class Preemption:
    """Inside a `with` block, SIGTERM sets `requested` to True instead of ending the process.

    Python handles signals in the main thread only; a block in another thread changes nothing.
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
    """Lets SIGTERM raise `Preempted` at any place of the `with` block; for the work before and after a training."""

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
