"""Limits what a file of weights may unpack to: weights hardly compress, so a small file that claims to be large means harm."""

from __future__ import annotations

from pathlib import Path

_FACTOR, _SLACK = 4, 2**20


def check_unpacked(path: Path, num_bytes: int) -> None:
    """Checks how many bytes a file says that it unpacks to, before any is unpacked.

    Raises:
        ValueError: if they are more than four times the file's own, plus 1 MiB.
    """
    size = path.stat().st_size
    if num_bytes > _FACTOR * size + _SLACK:
        raise ValueError(
            f"{path} has {size:,} bytes and would unpack to {num_bytes:,}; weights do not compress like that. If you trust the "
            "file, save its weights again without compression"
        )
