"""A digest of the image files of a source, which tells whether a dataset packed from them is still what packing would make."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import Literal

from tfrecords_tools.dataset.shards import sha256_of
from tfrecords_tools.sources.example import SourceExample

CheckImages = Literal["time", "content", "none"]
CHECK_IMAGES: tuple[CheckImages, ...] = ("time", "content", "none")


class ImageDigest:
    """Takes examples one after the other, and makes one digest of the image files that they name.

    The folder of an image does not count, but its example's id does: a source may be moved as a whole.

    Args:
        by: what identifies the content of an image file. "time": its size and the time of its last change; "content": a
            checksum, for which the file is read; "none": image files are not looked at.

    Example:
        >>> digest = ImageDigest("time")
        >>> digest.add(SourceExample("a1", "products.csv:2", Path("images/a1.jpg")))
        >>> digest.facts()
        {'by': 'time', 'files': 1, 'missing': 0, 'sha256': '9f3a…'}
    """

    def __init__(self, by: CheckImages):
        self._by, self._digest = by, hashlib.sha256()
        self._files = self._missing = 0

    def add(self, example: SourceExample) -> None:
        """Adds the image of an example, if it is a file."""
        if self._by == "none" or not isinstance(example.image, Path):
            return
        self._files += 1
        known = self._known(example.image)
        self._missing += known is None
        self._digest.update(repr((example.id, known)).encode("utf-8", "backslashreplace"))

    def _known(self, path: Path) -> tuple | str | None:
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                return None
            return sha256_of(path) if self._by == "content" else (status.st_size, status.st_mtime_ns)
        except (OSError, ValueError):
            return None

    def facts(self) -> dict:
        """`by`, the number of image files, how many of them are missing, and the digest in hex."""
        return {"by": self._by, "files": self._files, "missing": self._missing, "sha256": self._digest.hexdigest()}
