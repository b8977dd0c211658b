"""An index of values by key that lies on the disk, for joins of more rows than fit into memory."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from tfrecords_tools.dataset.scratch import disk_errors, insert, open_scratch

_BATCH = 10_000


class DiskIndex:
    """JSON values by key in a temporary file. A key may have several values. All values are added first, and then looked up.

    The file lies in SQLite's folder for temporary files (see `open_scratch`). It is deleted at the end of the `with` block.

    Example:
        >>> with DiskIndex() as index:
        ...     index.add("a", 1)
        ...     index.add("b", {"x": 2})
        ...     index.add("a", 3)
        ...     index.get("a"), list(index.groups())
        ([1, 3], [('a', [1, 3]), ('b', [{'x': 2}])])
    """

    def __init__(self):
        self._rows = open_scratch(None, "key TEXT, value TEXT")
        self._waiting: list[tuple[str, str]] = []
        self._indexed = False

    def __enter__(self) -> DiskIndex:
        return self

    def __exit__(self, *_) -> None:
        self._rows.close()

    def add(self, key: str, value: Any) -> None:
        """Adds a value that JSON can hold."""
        self._waiting.append((_safe(key), json.dumps(value)))
        if len(self._waiting) == _BATCH:
            insert(self._rows, self._waiting)

    def get(self, key: str) -> list[Any]:
        """The values of a key in the order in which they were added."""
        if not self._indexed:
            insert(self._rows, self._waiting)
            with disk_errors():
                self._rows.execute("CREATE INDEX by_key ON rows (key)")  # sorting once is faster than inserting in order
            self._indexed = True
        rows = self._rows.execute("SELECT value FROM rows WHERE key = ? ORDER BY rowid", (_safe(key),))
        return [json.loads(value) for (value,) in rows]

    def groups(self) -> Iterator[tuple[str, list[Any]]]:
        """Yields each key with its values, sorted by key."""
        insert(self._rows, self._waiting)
        with disk_errors():
            rows = self._rows.execute("SELECT key, value FROM rows ORDER BY key, rowid")
        for key, group in itertools.groupby(rows, lambda row: row[0]):
            yield key, [json.loads(value) for _, value in group]


def _safe(key: str) -> str:
    """The key in a form that SQLite stores: JSON can spell half of a surrogate pair, which UTF-8 cannot."""
    return key.encode("utf-8", "backslashreplace").decode()
