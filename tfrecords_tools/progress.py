"""Progress bars: a terminal shows each step, a log file gets a line every half minute.

Whatever takes long has one. So this is also where a program looks, between two steps, whether it was asked to end.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from tqdm import tqdm

_looks: list[Callable[[], object]] = []


@contextlib.contextmanager
def looking(look: Callable[[], object]) -> Iterator[None]:
    """Within it, every progress bar calls `look` at each of its updates, and lets through what that raises."""
    _looks.append(look)
    try:
        yield
    finally:
        _looks.pop()


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
    return _Bar(desc=description, unit=f" {unit}", total=total, disable=not shown, mininterval=interval, dynamic_ncols=True)
