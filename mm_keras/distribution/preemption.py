"""SIGTERM, which a machine gets before it is taken away: the process notes it, ends between two steps, and can be resumed.

The handler of the signal raises nothing. It may run while TensorFlow traces a function or a module is imported, and both take
an exception for one of their own, and swallow it. So `noticing_sigterm` sets a flag, and whatever takes long looks at it
between two of its steps: `end_if_asked()` raises `Preempted` there. Progress bars look by themselves.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

from tfrecords_tools.progress import looking

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command may succeed later
MESSAGE = "asked to end (SIGTERM); run the same command again, of a training with --resume"


class Preempted(RuntimeError):  # noqa: N818  it is no error
    """The work stopped because the process was asked to end. The message says how to resume it."""


class _Notice:
    """What is known of SIGTERM in this process.

    Attributes:
        blocks: how many blocks of `noticing_sigterm` it is in.
        in_steps: how many of them look after each of their steps, however long a step takes.
        asked_at: when it was asked to end, in seconds of the monotonic clock; None: it was not.
    """

    blocks = 0
    in_steps = 0
    asked_at: float | None = None


_notice = _Notice()


def asked_to_end() -> bool:
    """Whether SIGTERM came in a block of `noticing_sigterm` that has not ended yet."""
    return _notice.asked_at is not None


def end_if_asked() -> None:
    """Looks whether the process was asked to end; to be called between two steps of anything that takes long.

    Raises:
        Preempted: if it was.
    """
    if asked_to_end():
        raise Preempted(MESSAGE)


@contextlib.contextmanager
def noticing_sigterm(in_steps: bool = False, patience: float | None = None) -> Iterator[None]:
    """Within it, SIGTERM is noted for `asked_to_end` instead of ending the process, and progress bars raise `Preempted`.

    Blocks may lie in each other; what was noted is forgotten when the outermost one ends. Python handles signals in the main
    thread only: a block in another thread changes nothing.

    Args:
        in_steps: the block looks after each of its steps by itself, and may take any time for one.
        patience: seconds after which a process that was asked to end, and looks nowhere, is ended with `EXIT_CODE`: it may wait
            for another process, or for a file that it fetches. All that is written appears as a whole or not at all, so that
            nothing is lost. None: it is never ended so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _note)
    left = threading.Event()
    if patience is not None:
        threading.Thread(target=_end_late, args=(left, patience), daemon=True).start()
    _notice.blocks += 1
    _notice.in_steps += in_steps
    try:
        with contextlib.nullcontext() if in_steps else looking(end_if_asked):
            yield
    finally:
        _notice.blocks -= 1
        _notice.in_steps -= in_steps
        left.set()
        signal.signal(signal.SIGTERM, before)
        if not _notice.blocks:
            _notice.asked_at = None


def _note(number, frame) -> None:
    if _notice.asked_at is None:
        _notice.asked_at = time.monotonic()


def _end_late(left: threading.Event, patience: float) -> None:
    while not left.wait(0.5):
        asked_at = _notice.asked_at
        if asked_at is not None and not _notice.in_steps and time.monotonic() - asked_at > patience:
            os.write(2, f"mm-keras: {MESSAGE}\n".encode())
            os._exit(EXIT_CODE)
