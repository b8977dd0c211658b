"""Progress bars: lively on a terminal, a line every half minute in a log file."""

from __future__ import annotations

import sys

from tqdm import tqdm


def progress_bar(description: str, unit: str, total: int | None = None, shown: bool = True) -> tqdm:
    """A bar on standard error with rate and, where `total` is known, ETA."""
    interval = 0.1 if sys.stderr.isatty() else 30
    return tqdm(desc=description, unit=f" {unit}", total=total, disable=not shown, mininterval=interval, dynamic_ncols=True)
