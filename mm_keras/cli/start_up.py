"""Loads TensorFlow: silently, and so that Ctrl-C or SIGTERM ends the program at once during the seconds that this takes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator

from mm_keras.distribution.preemption import EXIT_CODE, end_if_asked
from tfrecords_tools.cli.parser import INTERRUPTED


def import_tensorflow() -> None:
    """Imports TensorFlow, with what its C++ prints held back; it is shown if the import fails.

    TensorFlow prints such lines whatever TF_CPP_MIN_LOG_LEVEL says; if it is 0, they are not held back.
    """
    if "tensorflow" in sys.modules:
        return
    with _stderr_held_back() as stderr, _ending_at_once(stderr):
        end_if_asked()
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def _stderr_held_back() -> Iterator[int]:
    """Holds back what its block writes to standard error, and gives a file descriptor that still writes there."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        yield 2
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield stderr
        except BaseException:
            held_back.seek(0)
            os.write(stderr, held_back.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


@contextlib.contextmanager
def _ending_at_once(stderr: int) -> Iterator[None]:
    """In its block, signals end the process. An exception would do so only if none of the imported modules caught it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number, frame):
        message, status = {
            signal.SIGINT: (b"mm-keras: interrupted\n", INTERRUPTED),
            signal.SIGTERM: (b"mm-keras: asked to end (SIGTERM) while it started; run the same command again\n", EXIT_CODE),
        }[number]
        os.write(stderr, message)
        os._exit(status)

    handlers = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
