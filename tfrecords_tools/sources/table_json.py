"""Rows of JSON tables: an object a line, one array of objects, or an object that holds the rows or the columns."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from tfrecords_tools.sources.table_file import TableError
from tfrecords_tools.sources.text_rows import NOT_UTF8, BadRow, iter_numbered

_CHUNK = 2**20
_GAP = re.compile(r"[\s,]*")
_FORMS = (
    "an array of objects, an object with one such array, an object of columns (pandas' orient='columns', 'list' or 'split'), "
    "or an object a line"
)


class Optional(dict):
    """A JSON object, in which a key that is left out has the value None."""

    def __missing__(self, key):
        return None


def iter_json_lines(file: TextIO, name: str) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """Yields ("name:line", row) for each line that is not blank, or ("name:line", what is wrong with the line)."""
    for number, line in iter_numbered(file):
        where = f"{name}:{number}"
        if isinstance(line, BadRow):
            yield where, line
        elif not line.isascii() and NOT_UTF8.search(line):
            yield where, BadRow("malformed row: it is not UTF-8")
        elif line.strip():
            yield where, _parse(line)


def _parse(line: str) -> dict[str, Any] | BadRow:
    try:
        row = json.loads(line)
    except RecursionError:
        return BadRow("malformed row: its brackets are nested too deeply")
    except ValueError as error:  # also numbers of thousands of digits
        return BadRow(f"malformed row: {error}")
    return _row(row)


def _row(value) -> dict[str, Any] | BadRow:
    if not isinstance(value, dict):
        return BadRow(f"malformed row: expected a JSON object, found {type(value).__name__}")
    return Optional(value)


def iter_json_document(file: TextIO, name: str) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """Yields ("name:index", row) for each row of one JSON document, from 0. Memory holds one item of an array at a time.

    Raises:
        TableError: if the document is no JSON, or holds no table.
    """
    buffer = file.read(_CHUNK).lstrip()
    try:
        items = _items(file, buffer[1:]) if buffer.startswith("[") else _rows_of(_items(file, buffer))
        yield from ((f"{name}:{index}", _row(item)) for index, item in enumerate(items))
    except (ValueError, RecursionError) as error:
        if isinstance(error, TableError | UnicodeError):
            raise
        raise TableError(f"{name} is no complete JSON document: {error or type(error).__name__}") from error


def _items(file: TextIO, buffer: str) -> Iterator[Any]:
    """Yields the items of an array, of which the first bracket was read already, or one JSON value after the other."""
    decoder, chunk, place = json.JSONDecoder(), _CHUNK, 0
    while True:
        place = _GAP.match(buffer, place).end()
        try:
            if buffer[place : place + 1] == "]":
                return
            item, place = decoder.raw_decode(buffer, place)
            yield item
        except json.JSONDecodeError as error:
            more = file.read(chunk)
            if not more and not buffer[place:].strip():
                return
            if not more:
                raise ValueError(f"{error.msg} at the end, or before it: {buffer[place : place + 60]!r}") from None
            buffer, place, chunk = buffer[place:] + more, 0, 2 * chunk  # a long item is not parsed again for each chunk


def _rows_of(items: Iterator[Any]) -> Iterator[Any]:
    """The rows: objects one after the other, or those in a single object that holds a table."""
    first = list(itertools.islice(items, 2))
    return _rows_in(first[0]) if len(first) == 1 and isinstance(first[0], dict) else itertools.chain(first, items)


def _rows_in(document: dict) -> Iterator[Any]:
    """The rows of an object that holds a table: {"image": ["a.png"], "title": ["x"]} has one."""
    values = list(document.values())
    arrays = [key for key, value in document.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if isinstance(document.get("columns"), list) and isinstance(document.get("data"), list):
        return (dict(zip(document["columns"], row, strict=True)) for row in document["data"])
    if len(arrays) == 1:
        return iter(document[arrays[0]])
    if values and all(isinstance(value, dict) for value in values):
        keys = dict.fromkeys(itertools.chain.from_iterable(values))
        return ({name: column.get(key) for name, column in document.items()} for key in keys)
    if values and all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
        return (dict(zip(document, row, strict=True)) for row in zip(*values, strict=True))
    if values and not any(isinstance(value, dict) for value in values):
        return iter([document])
    raise TableError(f"the JSON holds no table: expected {_FORMS}; found an object with {sorted(document)[:10]}")
