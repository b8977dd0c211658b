"""Paths with which TensorFlow can load and save SavedModels, whatever a folder is called."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

_PATTERN_CHARACTERS = frozenset("[]*?\\")


def is_pattern(path: str | Path) -> bool:
    """Whether TensorFlow takes a path for a pattern, as it does for "runs/[2024] mugs"; it then finds nothing there."""
    return not _PATTERN_CHARACTERS.isdisjoint(str(path))


def plain_path(folder: str | Path) -> Path:
    """A path of a folder in which TensorFlow sees no pattern.

    TensorFlow looks for the variables of a SavedModel by a pattern that it makes of their path. A folder whose path would be
    misread gets a link in the temporary folder, which is there until the process ends, since a loaded model may read its assets
    again.

    Args:
        folder: an existing folder.

    Raises:
        OSError: if the temporary folder's own path would be misread, or no link can be made there.
    """
    if not is_pattern(Path(folder).absolute()):
        return Path(folder)
    links = _link_folder()
    if is_pattern(links):
        raise OSError(f"TensorFlow cannot use {folder}, nor the temporary folder {links}: set TMPDIR to one without []*?\\")
    link = links / str(len(list(links.iterdir())))
    link.symlink_to(Path(folder).absolute(), target_is_directory=True)
    return link


@functools.cache
def _link_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mm-keras-links-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
