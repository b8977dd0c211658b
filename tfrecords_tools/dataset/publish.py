"""Gives a complete temporary file its name, once its content is on the disk."""

from __future__ import annotations

import os
from pathlib import Path

UNFINISHED = "unfinished-"  # what a temporary file's name begins with


def publish(temporary: Path, path: Path) -> None:
    """Renames a complete temporary file to `path`, once its content is on the disk.

    `atomic_file` does so by itself. This is for writers that stay open over many calls, such as `ShardWriter`.
    """
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
