"""The ledger of a download: an SQLite file with a row for each URL. A download that was killed goes on from it.

urls       a row for each id: its URL, and the outcome
refused    (id, URL) pairs, or lines of a list, that got no row there, and why
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_COLUMNS = """id TEXT PRIMARY KEY, url TEXT NOT NULL, status TEXT NOT NULL, error TEXT NOT NULL, detail TEXT NOT NULL,
attempts INTEGER NOT NULL, file TEXT NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL"""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of one URL.

    Attributes:
        status: "done" or "failed".
        error: the class of the error ("not_found", "timeout", …); "" if the status is "done".
        detail: a description of the error.
        attempts: how many requests were made.
        file: the path of the image, relative to the output folder.
        bytes: the size of the image.
        sha256: the sha256 of the image, in hex.
    """

    status: str
    error: str = ""
    detail: str = ""
    attempts: int = 0
    file: str = ""
    bytes: int = 0
    sha256: str = ""


class Refused(NamedTuple):
    """A pair that cannot be downloaded: its id, or the place where it was read; its URL; and why."""

    id: str
    url: str
    reason: str


class Ledger:
    """The ledger of one output folder, a context manager. The statuses of URLs are "waiting", "done" and "failed".

    Raises:
        ValueError: if the file is no ledger, or damaged.
    """

    def __init__(self, path: Path):
        self._database = sqlite3.connect(path)
        try:
            if self._database.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("its pages do not fit together")
            self._database.execute(f"CREATE TABLE IF NOT EXISTS urls ({_COLUMNS})")
            self._database.execute("CREATE TABLE IF NOT EXISTS refused (id TEXT, url TEXT, reason TEXT, UNIQUE (id, url))")
            self._database.commit()
            self.counts()
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise ValueError(
                f"{path} is no ledger, or damaged: {error}. Put back a copy, or delete it: then all URLs are fetched again"
            ) from error

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_) -> None:
        self._database.close()

    def add(self, rows: Iterable[tuple[str, str] | Refused]) -> None:
        """Adds (id, URL) pairs. Pairs that are in the ledger already keep their outcome.

        A `Refused` goes into the table `refused`, as does a pair whose id the ledger already holds with another URL.
        """
        for row in rows:
            if not isinstance(row, Refused):
                values = (*row, "waiting", "", "", 0, "", 0, "")
                self._database.execute("INSERT OR IGNORE INTO urls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
                (known_url,) = self._database.execute("SELECT url FROM urls WHERE id = ?", row[:1]).fetchone()
                if known_url == row[1]:
                    continue
                row = Refused(*row, f"id {row[0]!r} has two URLs: {known_url} and {row[1]}")
            self._database.execute("INSERT OR IGNORE INTO refused VALUES (?, ?, ?)", row)
        self._database.commit()

    def retry(self, errors: Iterable[str]) -> int:
        """Sets the status of URLs that failed with one of these errors to "waiting", and returns their number."""
        errors = list(errors)
        marks = ", ".join("?" * len(errors))
        statement = f"UPDATE urls SET status = 'waiting' WHERE status = 'failed' AND error IN ({marks})"
        changed = self._database.execute(statement, errors).rowcount
        self._database.commit()
        return changed

    def waiting(self) -> Iterator[tuple[str, str]]:
        """Yields the (id, URL) pairs that are waiting, in the order of their ids; it reads a thousand at a time."""
        last_id = ""
        statement = "SELECT id, url FROM urls WHERE status = 'waiting' AND id > ? ORDER BY id LIMIT 1000"
        while rows := self._database.execute(statement, (last_id,)).fetchall():
            yield from rows
            last_id = rows[-1][0]

    def num_waiting(self) -> int:
        """The number of URLs that are waiting."""
        return self._database.execute("SELECT count(*) FROM urls WHERE status = 'waiting'").fetchone()[0]

    def record(self, example_id: str, outcome: Outcome) -> None:
        """Writes the outcome of a URL; attempts are added to those that were made before."""
        values = dataclasses.asdict(outcome)
        assignments = ", ".join(f"{column} = :{column}" for column in values if column != "attempts")
        statement = f"UPDATE urls SET {assignments}, attempts = attempts + :attempts WHERE id = :id"
        self._database.execute(statement, values | {"id": example_id})
        self._database.commit()

    def counts(self) -> dict[str, int]:
        """The number of URLs that are "done", "waiting", or "refused", and of those that failed with each error class."""
        outcome = "CASE status WHEN 'failed' THEN error ELSE status END"
        counts = dict(self._database.execute(f"SELECT {outcome}, count(*) FROM urls GROUP BY 1 ORDER BY 1").fetchall())
        (refused,) = self._database.execute("SELECT count(*) FROM refused").fetchone()
        return counts | ({"refused": refused} if refused else {})

    def refused(self) -> list[Refused]:
        """The refused pairs and lines, in the order in which they were first added."""
        return [Refused(*row) for row in self._database.execute("SELECT id, url, reason FROM refused ORDER BY rowid")]
