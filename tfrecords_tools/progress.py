"""Progress bars: a terminal shows each step, a log file gets a line every half minute."""

from __future__ import annotations

import sys

from tqdm import tqdm


def progress_bar(description: str, unit: str, total: int | None = None, shown: bool = True) -> tqdm:
    """Makes a progress bar on standard error, to be used in a `with` statement.

    Args:
        description: what is going on, such as "packing".
        unit: what is counted, such as "examples".
        total: how many there will be; None if that is unknown. Then no remaining time is shown.
        shown: False makes a bar that shows nothing.
    """
    interval = 0.1 if sys.stderr.isatty() else 30
    return tqdm(desc=description, unit=f" {unit}", total=total, disable=not shown, mininterval=interval, dynamic_ncols=True)
