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
_AT_ONCE = 3  # seconds that anything may take to look for Ctrl-C
MESSAGE = "asked to end (SIGTERM); run the same command again, of a training with --resume"


class Preempted(RuntimeError):  # noqa: N818  it is no error
    """The work stopped because the process was asked to end. The message says how to resume it."""


class _Notice:
    """What is known of SIGTERM, and of Ctrl-C, in this process.

    Attributes:
        blocks: how many blocks of `noticing_sigterm` the process is in.
        in_steps: how many of these blocks look after each of their steps, however long a step takes.
        number: the signal that the process got; None: none.
        at: when the signal came, in seconds of the monotonic clock.
        told: whether the work has been told, and is ending.
    """

    blocks = 0
    in_steps = 0
    number: int | None = None
    at = 0.0
    told = False


_notice = _Notice()


def asked_to_end() -> bool:
    """Whether SIGTERM came in a block of `noticing_sigterm` that has not ended yet."""
    return _notice.number == signal.SIGTERM


def preempted(message: str = MESSAGE) -> Preempted:
    """The exception to raise where the work ends; from here on, it may take its time to clean up."""
    _notice.told = True
    return Preempted(message)


def end_if_asked() -> None:
    """Looks whether the process was asked to end; to be called between two steps of anything that takes long.

    Raises:
        Preempted: if it was, by SIGTERM.
        KeyboardInterrupt: if it was, by Ctrl-C.
    """
    end_if_interrupted()
    if asked_to_end():
        raise preempted()


def end_if_interrupted() -> None:
    """Looks for Ctrl-C alone, for work that saves something before it ends by SIGTERM. It raises KeyboardInterrupt."""
    if _notice.number == signal.SIGINT:
        _notice.told = True
        raise KeyboardInterrupt


@contextlib.contextmanager
def noticing_sigterm(in_steps: bool = False, patience: float | None = None) -> Iterator[None]:
    """Within the block, SIGTERM is noted for `asked_to_end` instead of ending the process, and progress bars raise `Preempted`.

    Blocks may lie in each other; what was noted is forgotten when the outermost one ends. Python handles signals in the main
    thread only: a block in another thread changes nothing.

    Args:
        in_steps: the block looks after each of its steps by itself, and may take any time for one.
        patience: for programs: Ctrl-C is noted as well, and a process that was asked to end and looks nowhere is ended all the
            same, this many seconds after SIGTERM, or 3 after Ctrl-C. It may wait for another process, or for a file that it
            fetches. All that is written appears as a whole or not at all, so that nothing is lost. None: it is never ended so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _note)}
    block_ended = threading.Event()
    if patience is not None:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            before[signal.SIGINT] = signal.signal(signal.SIGINT, _note)
        threading.Thread(target=_end_late, args=(block_ended, patience), daemon=True).start()
    _notice.blocks += 1
    _notice.in_steps += in_steps
    try:
        with contextlib.nullcontext() if in_steps else looking(end_if_asked):
            yield
    finally:
        _notice.blocks -= 1
        _notice.in_steps -= in_steps
        block_ended.set()
        for number, handler in before.items():
            signal.signal(number, handler)
        if not _notice.blocks:
            _notice.number, _notice.told = None, False


def _note(number: int, frame) -> None:
    if number == signal.SIGINT == _notice.number:
        raise KeyboardInterrupt  # a second Ctrl-C does not wait
    if _notice.number != signal.SIGINT:
        _notice.number, _notice.at, _notice.told = number, time.monotonic(), False


def _end_late(block_ended: threading.Event, patience: float) -> None:
    while not block_ended.wait(0.2):
        number, waited = _notice.number, time.monotonic() - _notice.at
        if number is None or _notice.told:
            continue
        if number == signal.SIGINT and waited > _AT_ONCE:
            os.write(2, b"mm-keras: interrupted\n")
            os._exit(128 + number)
        if number == signal.SIGTERM and waited > patience and not _notice.in_steps:
            os.write(2, f"mm-keras: {MESSAGE}\n".encode())
            os._exit(EXIT_CODE)
