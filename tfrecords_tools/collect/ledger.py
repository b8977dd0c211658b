"""The ledger of a download: one row a URL, safe against kills, so that a download goes on where it stopped."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

_COLUMNS = """id TEXT PRIMARY KEY, url TEXT NOT NULL, status TEXT NOT NULL, error TEXT NOT NULL, detail TEXT NOT NULL,
attempts INTEGER NOT NULL, file TEXT NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL"""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one URL.

    Attributes:
        status: "done" or "failed".
        error: class of the error ("not_found", "timeout", …), "" where it is done.
        detail: what exactly happened.
        attempts: requests that were made.
        file: where the image lies, relative to the output folder.
        bytes: the size of the image.
        sha256: the checksum of the image.
    """

    status: str
    error: str = ""
    detail: str = ""
    attempts: int = 0
    file: str = ""
    bytes: int = 0
    sha256: str = ""


class Ledger:
    """A SQLite file; statuses are "waiting", "done" and "failed"."""

    def __init__(self, path: Path):
        self._database = sqlite3.connect(path)
        self._database.execute(f"CREATE TABLE IF NOT EXISTS urls ({_COLUMNS})")
        self._database.commit()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_) -> None:
        self._database.close()

    def add(self, rows: Iterable[tuple[str, str]]) -> None:
        """Adds (id, URL) pairs; those that are there already keep their outcome.

        Raises:
            ValueError: if an id is there with another URL.
        """
        for example_id, url in rows:
            known = self._database.execute("SELECT url FROM urls WHERE id = ?", (example_id,)).fetchone()
            if known and known[0] != url:
                raise ValueError(f"id {example_id!r} has two URLs: {known[0]} and {url}")
            if not known:
                values = (example_id, url, "waiting", "", "", 0, "", 0, "")
                self._database.execute("INSERT INTO urls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        self._database.commit()

    def retry(self, errors: Iterable[str]) -> int:
        """Puts failed rows of these error classes back to "waiting"; returns how many."""
        errors = list(errors)
        marks = ", ".join("?" * len(errors))
        statement = f"UPDATE urls SET status = 'waiting' WHERE status = 'failed' AND error IN ({marks})"
        changed = self._database.execute(statement, errors).rowcount
        self._database.commit()
        return changed

    def waiting(self) -> Iterator[tuple[str, str]]:
        """(id, URL) pairs still to be fetched, in the order of their ids; reads a thousand at a time."""
        last = ""
        statement = "SELECT id, url FROM urls WHERE status = 'waiting' AND id > ? ORDER BY id LIMIT 1000"
        while rows := self._database.execute(statement, (last,)).fetchall():
            yield from rows
            last = rows[-1][0]

    def num_waiting(self) -> int:
        return self._database.execute("SELECT count(*) FROM urls WHERE status = 'waiting'").fetchone()[0]

    def record(self, example_id: str, outcome: Outcome) -> None:
        values = dataclasses.asdict(outcome)
        assignments = ", ".join(f"{column} = :{column}" for column in values if column != "attempts")
        statement = f"UPDATE urls SET {assignments}, attempts = attempts + :attempts WHERE id = :id"
        self._database.execute(statement, values | {"id": example_id})
        self._database.commit()

    def counts(self) -> dict[str, int]:
        """ "done", "waiting" and each error class -> number of URLs."""
        what = "CASE status WHEN 'failed' THEN error ELSE status END"
        return dict(self._database.execute(f"SELECT {what}, count(*) FROM urls GROUP BY 1 ORDER BY 1").fetchall())
