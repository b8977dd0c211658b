"""Reads the image files that tables, lists and folders name, and nothing else that a path can lead to.

A path in a table comes from outside and cannot be trusted. It may be absolute, climb by `../`, or lead through a link to any
file of this machine; it may name a pipe or a device, from which reading never ends.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Sequence
from pathlib import Path

MAX_FILE_BYTES = 2**29
"""No file of more bytes is read: the pictures that are decoded are smaller in any format."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class ImageFileError(ValueError):
    """A path that names no file which may be read as an image. The message names the path and says what to do."""


def read_image_file(path: str | Path, roots: Sequence[str | Path] = ()) -> bytes:
    """Reads a regular file that lies below one of the given folders once all links are followed.

    Args:
        path: the file, absolute or relative to the working folder.
        roots: the folders; empty: the file may lie anywhere.

    Raises:
        ImageFileError: for a path that leads out of the folders, or to a folder, pipe, socket or device, and for a file of more
            than `MAX_FILE_BYTES`.
        FileNotFoundError: if there is no such file.
        OSError: if it cannot be read.

    Example:
        >>> read_image_file("products/images/a1.jpg", ["products"])[:2]
        b'\\xff\\xd8'
        >>> read_image_file("products/../../etc/passwd", ["products"])
        ImageFileError: products/../../etc/passwd lies outside of products; …
    """
    try:
        is_path = b"\0" not in os.fsencode(path)
    except UnicodeError:  # half of a surrogate pair, which JSON can spell
        is_path = False
    if not is_path:
        raise ImageFileError(f"{str(path)!r} is no path: it holds a NUL, or what is no character")
    real = os.path.realpath(path)
    check_inside(path, real, tuple(map(str, roots)))
    _check_regular(path, Path(real).stat())  # before it is opened, which some devices take for a command
    # Opened without waiting and without following a link, in case another file has taken its place meanwhile.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(real, flags), "rb") as file:
        _check_regular(path, os.fstat(file.fileno()))
        return file.read(MAX_FILE_BYTES)


def check_inside(path: str | Path, real: str, roots: tuple[str, ...]) -> None:
    """Raises an ImageFileError if `real`, to which `path` leads, lies in none of `roots`; without roots it may lie anywhere."""
    if roots and not any(Path(real).is_relative_to(root) for root in _real_paths(tuple(map(os.path.abspath, roots)))):
        raise ImageFileError(
            f"{path} lies outside of {' and '.join(roots)}; name the folder that holds the images, or, if files anywhere may "
            "be read, pass --allow_outside"
        )


@functools.lru_cache(maxsize=64)
def _real_paths(roots: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(os.path.realpath, roots))


def _check_regular(path: str | Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ImageFileError(f"{path} is {_KINDS.get(stat.S_IFMT(status.st_mode), 'something else')}, not a file")
    if status.st_size > MAX_FILE_BYTES:
        raise ImageFileError(f"{path} has {status.st_size:,} bytes; files of up to {MAX_FILE_BYTES:,} are read as images")
