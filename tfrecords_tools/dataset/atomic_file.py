"""Writes files that exist as a whole or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tfrecords_tools.dataset.checksums import entered
from tfrecords_tools.dataset.publish import UNFINISHED, publish


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path to write to; at the end of the block, the temporary file is renamed to `path`.

    The content is on the disk before it replaces an older file of that name. After an error the temporary file is deleted, and
    the older file stays. In a folder that has a checksums.sha256, the file's checksum is entered there.

    Args:
        path: the file to write. The temporary path lies beside it and has the same suffix, because some writers
            choose the format by it.

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
        with entered(path, temporary):
            publish(temporary, path)
    except OSError as error:
        raise OSError(error.errno or 0, f"could not be written: {error.strerror or error}", str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # the file was renamed, or its folder cannot be written to
            temporary.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file in UTF-8, as a whole or not at all; see `atomic_file`."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes a file as a whole or not at all; see `atomic_file`."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
