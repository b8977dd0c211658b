"""Locks of folders between processes, which leave no file behind. The system releases the lock of a process that is killed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def folder_lock(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Locks a folder while its block runs; a folder that is renamed stays locked.

    Args:
        folder: an existing folder.
        wait: whether to wait for a process that has the lock.

    Returns:
        whether the folder is locked now. Without `wait`, another process may have the lock. Where the system or the file system
        knows no locks, none is taken.
    """
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            locked = True
        except OSError:
            locked = False
        yield locked
    finally:
        os.close(descriptor)
