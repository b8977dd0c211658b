"""Cuts text into rows and loses only rows that are broken, though a quote that is never closed would swallow all after it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import TextIO

from tfrecords_tools.sources.example import SourceError

MAX_SWALLOWED = 300
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # how the error handler "surrogateescape" spells bytes that are not UTF-8
_CELL_LIMIT = 2**20
_ROW_LIMIT = 2**25
_REMEDY = (
    'A cell that begins with a bare " must double it (""). Where quotes are characters as any other, read the table with '
    "--no_quotes"
)


class BadRow(str):
    """What is wrong with a row that cannot be read.

    Attributes:
        rows: how many rows of the source it stands for, as far as one can tell; at least 1.
    """

    def __new__(cls, reason: str, rows: int = 1) -> BadRow:
        self = super().__new__(cls, reason)
        self.rows = rows
        return self


def iter_cells(
    file: TextIO, name: str, delimiter: str = ",", quotes: bool = True, spaced: bool = False, begun: int = 0
) -> Iterator[tuple[str, list[str] | BadRow]]:
    """Yields ("name:line", cells), or ("name:line", what is wrong with the row); rows of nothing but delimiters are skipped.

    A quote that is opened and not closed would make one cell of all lines behind it. Where these lines look like rows
    themselves, which have as many cells as the first row, the line of the quote is rejected, and they are read.

    Args:
        file: text, opened with newline="".
        name: what to call the file in messages.
        delimiter: what stands between cells.
        quotes: whether cells may be quoted; otherwise " is a character like any other.
        spaced: whether spaces may stand before the quote of a cell.
        begun: how many lines of the file were read before.

    Raises:
        SourceError: if a quote swallows more than 300 lines.

    Example:
        >>> list(iter_cells(io.StringIO('title,x\\n"b,2\\nc,3\\n'), "t.csv"))
        [('t.csv:1', ['title', 'x']), ('t.csv:2', 'malformed row: …'), ('t.csv:3', ['c', '3'])]
    """
    csv.field_size_limit(2 * _ROW_LIMIT)  # `_Lines` stops at rows that are too long, before `csv` does
    lines = _Lines(file, begun)
    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, skipinitialspace=spaced, strict=quotes)
    width = 0
    while True:
        first = lines.begin_row()
        cells, problem, whole = [], "", True
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = str(error)
        except _TooLongError:
            problem, whole = f"a row of more than {_ROW_LIMIT:,} characters", False
            lines.skip_line()
        where, taken = f"{name}:{first}", lines.taken
        width = width or len(cells)
        if whole and len(taken) > 1 and _swallows(taken, cells, problem, width, delimiter):
            last = first + len(taken) - 1
            if len(taken) - 1 > MAX_SWALLOWED:
                raise SourceError(
                    f"{where}: a cell begins with a quote that is not closed before line {last:,}: {len(taken) - 1:,} lines, "
                    f"which look like rows, would be lost. {_REMEDY}"
                )
            lines.put_back(taken[1:])
            yield (
                where,
                BadRow(
                    f"malformed row: a quote in line {first} is not closed in it; the lines up to {last} that it would swallow "
                    "are read as rows of their own (--no_quotes takes quotes for characters)"
                ),
            )
        elif problem:
            yield where, _broken(where, taken, first, problem, width, delimiter)
        elif lines.size > _CELL_LIMIT and (longest := max(map(len, cells))) > _CELL_LIMIT:
            reason = f"malformed row: a cell of {longest:,} characters ({_span(first, taken)}); the limit is {_CELL_LIMIT:,}"
            yield where, BadRow(reason)
        elif any(cells) or '"' in taken[0]:
            yield where, cells


def _broken(where: str, taken: list[str], first: int, problem: str, width: int, delimiter: str) -> BadRow:
    """The report of a row that does not parse and whose lines do not look like rows themselves, so that all of them are lost.

    Raises:
        SourceError: if these are more than 300 lines.
    """
    if len(taken) - 1 > MAX_SWALLOWED:
        raise SourceError(
            f"{where}: a cell begins with a quote, and the row does not end before line {first + len(taken) - 1:,} "
            f"({problem}): {len(taken):,} lines would be lost. {_REMEDY}"
        )
    alike = sum(_is_row(line, width, delimiter) for line in taken)
    hint = "; an unclosed quote, perhaps" if '"' in taken[0] else ""
    return BadRow(f"malformed row: {problem} ({_span(first, taken)}){hint}", len(taken) if width == 1 else max(1, alike))


def _swallows(taken: list[str], cells: list[str], problem: str, width: int, delimiter: str) -> bool:
    """Whether the lines of a row of several lines look like rows of their own.

    A row that parses may hold a text of many lines, in which commas stand by chance. So all of its lines must look like rows,
    and it must have more of them where there are two columns.
    """
    inner = [line for line in taken[1:] if line.strip()]
    if width < 2:
        return False
    if problem or len(cells) != width:
        return 2 * sum(_is_row(line, width, delimiter) for line in inner) >= len(inner) > 0
    complete_lines = inner[:-1]  # the cell ends in the last line
    return len(complete_lines) >= (3 if width > 2 else 8) and all(_is_row(line, width, delimiter) for line in complete_lines)


def _is_row(line: str, width: int, delimiter: str) -> bool:
    """Whether a line has `width` cells if its quotes count as quotes or, since one of them may not be closed, as characters."""
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
        try:
            if len(next(csv.reader([line], delimiter=delimiter, quoting=quoting), [])) == width:
                return True
        except csv.Error:
            continue
    return False


def _span(first: int, taken: list[str]) -> str:
    return f"line {first}" if len(taken) == 1 else f"lines {first}–{first + len(taken) - 1}"


class _TooLongError(Exception):
    """More characters than a row may have were read, and the row has not ended."""


class _Lines:
    """The lines of a file one after the other; the lines of the current row can be put back, to be read again.

    Attributes:
        taken: the lines of the current row so far.
        size: their number of characters.
    """

    def __init__(self, file: TextIO, begun: int = 0):
        self._file, self._waiting, self._number = file, [], begun
        self.taken: list[str] = []
        self.size = 0

    def begin_row(self) -> int:
        """Forgets the lines of the previous row, and returns the number of the next line, from 1."""
        self.taken, self.size = [], 0
        return self._number + 1

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._waiting.pop() if self._waiting else self._file.readline(_ROW_LIMIT)
        if not line:
            raise StopIteration
        self._number += 1
        self.taken.append(line)
        self.size += len(line)
        if self.size >= _ROW_LIMIT:
            raise _TooLongError
        return line

    def put_back(self, lines: list[str]) -> None:
        self._waiting.extend(reversed(lines))
        self._number -= len(lines)

    def skip_line(self) -> None:
        """Reads to the end of the line whose beginning was taken last."""
        line = self.taken[-1]
        while line and not line.endswith(("\n", "\r")):
            line = self._file.readline(_ROW_LIMIT)


def iter_numbered(file: TextIO) -> Iterator[tuple[int, str | BadRow]]:
    """Yields (line number, line) from 1, or (line number, what is wrong) for a line that is too long to be read at once."""
    lines = _Lines(file)
    while True:
        number = lines.begin_row()
        try:
            yield number, next(lines)
        except StopIteration:
            return
        except _TooLongError:
            lines.skip_line()
            yield number, BadRow(f"malformed row: a line of more than {_ROW_LIMIT:,} characters")


def header_names(cells: list[str]) -> list[str]:
    """The names of the columns: ["image ", "title", "", ""] -> ["image", "title"]; spreadsheets leave empty ones at the end."""
    names = [cell.strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    return names


def name_cells(where: str, header: list[str], cells: list[str] | BadRow) -> tuple[str, dict[str, str] | BadRow]:
    """Names the cells of a row by the header. A row with fewer cells, or with further ones not empty, becomes a `BadRow`."""
    if isinstance(cells, BadRow):
        return where, cells
    if len(cells) < len(header) or any(cell.strip() for cell in cells[len(header) :]):
        return where, BadRow(f"malformed row: {len(cells)} cell(s) under {len(header)} columns")
    return where, dict(zip(header, cells, strict=False))
