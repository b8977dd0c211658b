"""Values by key on the disk, for joins of more rows than memory holds."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterator
from typing import Any

_BATCH = 10_000


class DiskIndex:
    """JSON values by key, several a key, in an SQLite file of its own. First add all, then look up.

    The file lies in SQLite's folder for temporary files (SQLITE_TMPDIR, TMPDIR, /var/tmp or /tmp); memory stays at some
    20 MB for any number of rows.

        with DiskIndex() as index:
            index.add("a", 1)
            index.add("b", {"x": 2})
            index.add("a", 3)
            index.get("a")        -> [1, 3]
            list(index.groups())  -> [("a", [1, 3]), ("b", [{"x": 2}])]
    """

    def __init__(self):
        self._rows = sqlite3.connect("", isolation_level=None)  # "" = a temporary file that has no name, nor survives a kill
        self._waiting: list[tuple[str, str]] = []
        self._indexed = False
        for setting in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE", "cache_size=-16000"):
            self._rows.execute(f"PRAGMA {setting}")
        self._rows.execute("CREATE TABLE rows (key TEXT, value TEXT)")

    def __enter__(self) -> DiskIndex:
        return self

    def __exit__(self, *_) -> None:
        self._rows.close()

    def add(self, key: str, value: Any) -> None:
        self._waiting.append((_safe(key), json.dumps(value)))
        if len(self._waiting) == _BATCH:
            self._flush()

    def get(self, key: str) -> list[Any]:
        """The values of a key in the order in which they were added."""
        if not self._indexed:
            self._flush()
            self._rows.execute("CREATE INDEX by_key ON rows (key)")  # now: sorting once is faster than inserting in order
            self._indexed = True
        rows = self._rows.execute("SELECT value FROM rows WHERE key = ? ORDER BY rowid", (_safe(key),))
        return [json.loads(value) for (value,) in rows]

    def groups(self) -> Iterator[tuple[str, list[Any]]]:
        """Yields each key with its values, sorted by key."""
        self._flush()
        rows = self._rows.execute("SELECT key, value FROM rows ORDER BY key, rowid")
        for key, group in itertools.groupby(rows, lambda row: row[0]):
            yield key, [json.loads(value) for _, value in group]

    def _flush(self) -> None:
        self._rows.execute("BEGIN")
        self._rows.executemany("INSERT INTO rows VALUES (?, ?)", self._waiting)
        self._rows.execute("COMMIT")
        self._waiting.clear()


def _safe(key: str) -> str:
    """A key that SQLite takes: half of a surrogate pair, which JSON can spell, has no UTF-8."""
    return key.encode("utf-8", "backslashreplace").decode()
