"""What a program shows while it is at work: progress bars and lines. A library shows nothing unless it is asked to.

A terminal shows each step of a bar, a log file gets a line every half minute. Everything that takes long has a bar, so the
updates of bars are also where a program checks whether it was asked to end. Lines are logged with absl; `showing` prints them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import logging as absl_logging
from tqdm import tqdm

_looks: list[Callable[[], object]] = []
_bars_shown = [True]
_OURS = tuple(f"{Path(__file__).parents[1] / name}{os.sep}" for name in ("mm_keras", "tfrecords_tools"))


@contextlib.contextmanager
def looking(look: Callable[[], object]) -> Iterator[None]:
    """Within the block, every progress bar calls `look` at each of its updates, and passes on the exceptions of `look`."""
    _looks.append(look)
    try:
        yield
    finally:
        _looks.pop()


@contextlib.contextmanager
def showing(verbose: int = 1) -> Iterator[None]:
    """Prints what is logged in the block as plain lines: warnings and errors on standard error, the rest on standard output.

    Args:
        verbose: 0: warnings and errors alone. 1: also what is done, and progress bars. 2: the same without bars, for log files.

    Raises:
        ValueError: for another number.
    """
    if verbose not in (0, 1, 2):
        raise ValueError(f"verbose is 0, 1 or 2. Received: {verbose!r}")
    logger = absl_logging.get_absl_logger()
    outermost = not any(isinstance(handler, _Lines) for handler in logger.handlers)
    handler, old_verbosity, old_propagate = _Lines(), absl_logging.get_verbosity(), logger.propagate
    # Set as absl's verbosity and not as the logger's level: TensorFlow sets the level to that verbosity when it saves a model.
    absl_logging.set_verbosity(absl_logging.INFO if verbose else absl_logging.WARNING)
    logger.propagate = False  # otherwise a program that shows logs itself would show each line twice
    if outermost:
        logger.addHandler(handler)
    _bars_shown.append(verbose == 1)
    try:
        yield
    finally:
        _bars_shown.pop()
        logger.removeHandler(handler)
        absl_logging.set_verbosity(old_verbosity)
        logger.propagate = old_propagate


def are_bars_shown() -> bool:
    """Whether progress bars are shown at all."""
    return _bars_shown[-1]


class _Lines(logging.Handler):
    """Prints lines beside progress bars; what other packages log is shown from warnings on."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING and not record.pathname.startswith(_OURS):
            return
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        with tqdm.external_write_mode(stream):
            print(record.getMessage(), file=stream, flush=True)


class _Bar(tqdm):
    def update(self, n: float = 1) -> bool | None:
        for look in _looks:
            look()
        return super().update(n)


def progress_bar(description: str, unit: str, total: int | None = None, shown: bool = True) -> tqdm:
    """Makes a progress bar on standard error, to be used in a `with` statement.

    Args:
        description: what is going on, such as "packing".
        unit: what is counted, such as "examples".
        total: how many there will be; None if that is unknown. Then no remaining time is shown.
        shown: False makes a bar that shows nothing.
    """
    interval = 0.1 if sys.stderr.isatty() else 30
    hidden = not (shown and are_bars_shown())
    return _Bar(desc=description, unit=f" {unit}", total=total, disable=hidden, mininterval=interval, dynamic_ncols=True)
