"""Files that are there as a whole or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = "unfinished-"  # what a temporary file's name begins with


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path to write to; at the end of the block, what was written gets its own name.

    The content is on the disk before it replaces an older file of that name. After an error nothing of it is left, and the
    older file stays.

    Args:
        path: the file to write. The temporary path lies beside it and has the same suffix, at which some writers look.

    Raises:
        OSError: if the file cannot be written; it names `path`.

    Example:
        >>> with atomic_file("run.json") as temporary:
        ...     temporary.write_text("{}")
    """
    path = Path(path)
    temporary = path.with_name(f"{UNFINISHED}{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno or 0, f"could not be written: {error.strerror or error}", str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # that it is not there, or that the folder cannot be written to
            temporary.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file in UTF-8 as a whole or not at all; see `atomic_file`."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, "utf-8")


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
