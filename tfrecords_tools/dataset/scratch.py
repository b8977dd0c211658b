"""Temporary SQLite tables, for data of one run that may exceed the memory."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path


def open_scratch(path: Path | None, columns: str) -> sqlite3.Connection:
    """Makes an empty SQLite table `rows`. It is fast and not safe against crashes. Memory stays below some 20 MB.

    Args:
        path: the file to make; one that an earlier run left is replaced. None makes a file without a name in SQLite's
            temporary folder (SQLITE_TMPDIR, TMPDIR, /var/tmp or /tmp).
        columns: the columns of the table, in SQL.

    Example:
        >>> table = open_scratch(None, "key TEXT, value INTEGER")
        >>> insert(table, [("a", 1), ("b", 2)])
        >>> table.execute("SELECT value FROM rows WHERE key = 'b'").fetchall()
        [(2,)]
    """
    if path:
        path.unlink(missing_ok=True)
    database = sqlite3.connect(path or "", isolation_level=None)
    for setting in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE", "cache_size=-16000"):
        database.execute(f"PRAGMA {setting}")
    database.execute(f"CREATE TABLE rows ({columns})")
    return database


def insert(database: sqlite3.Connection, rows: list[tuple]) -> None:
    """Adds `rows` to the table in one transaction, and then empties the list."""
    if rows:
        with disk_errors():
            database.execute("BEGIN")
            database.executemany(f"INSERT INTO rows VALUES ({', '.join('?' * len(rows[0]))})", rows)
            database.execute("COMMIT")
        rows.clear()


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Turns SQLite's errors of the disk into an OSError, after which packing can be resumed."""
    try:
        yield
    except sqlite3.OperationalError as error:
        number = errno.ENOSPC if error.sqlite_errorcode == sqlite3.SQLITE_FULL else errno.EIO
        reason = (
            f"a table on the disk could not be written: {error} (its temporary files lie where SQLITE_TMPDIR or TMPDIR says)"
        )
        raise OSError(number, reason) from error
