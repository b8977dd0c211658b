"""Reads large JSON files item by item. COCO's instances are 450 MB of text, which would take some 3 GB if parsed at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ijson

from tfrecords_tools.sources.files import MOST_NESTED, SourceError, open_bytes, reading

# Events of ijson: ("start_map", None), ("map_key", "id"), ("number", 9), ("end_map", None), …
_Events = Iterator[tuple[str, Any]]
_DEPTH = {"start_map": 1, "start_array": 1, "end_map": -1, "end_array": -1}


def iter_json(path: str | Path) -> Iterator[tuple[str, Any]]:
    """Yields a (key, item) pair for each item of each list in the top-level object of a JSON file.

    {"info": {…}, "images": [{…}, {…}]} gives ("info", {…}), ("images", {…}), ("images", {…}). If the whole file is one list,
    the key is "". Memory holds one item at a time.

    Raises:
        SourceError: if the file is not JSON. The message shows the place. Items before that place have been yielded.

    Example:
        >>> [item["file_name"] for key, item in iter_json("instances_val2017.json") if key == "images"][:1]
        ['000000397133.jpg']
    """
    with open_bytes(path) as file, reading(path):
        try:
            yield from _items(ijson.basic_parse(file, use_float=True))
        except (ijson.JSONError, ValueError, ArithmeticError) as error:  # the last two for numbers of thousands of digits
            message = " ".join(str(error.args[0] if error.args else error).split())
            raise SourceError(f"{path} is no JSON: {message}") from error


def _items(events: _Events) -> Iterator[tuple[str, Any]]:
    event, value = next(events)
    if event == "start_array":
        yield from (("", item) for item in _list(events))
    elif event == "start_map":
        for event, key in itertools.takewhile(lambda pair: pair[0] == "map_key", events):
            event, value = next(events)
            if event == "start_array":
                yield from ((key, item) for item in _list(events))
            else:
                yield key, _value(event, value, events)
    else:
        raise ijson.JSONError(f"expected a list or an object, and found the {event} {value!r}")
    for _ in events:  # ijson raises an error if anything follows the end
        pass


def _list(events: _Events) -> Iterator[Any]:
    """Yields the items of a list, whose first event was read already."""
    for event, value in itertools.takewhile(lambda pair: pair[0] != "end_array", events):
        yield _value(event, value, events)


def _value(event: str, value: Any, events: _Events) -> Any:
    """The complete value whose first event is given."""
    if event not in _DEPTH:
        return value
    builder, depth = ijson.ObjectBuilder(), 0
    while True:
        builder.event(event, value)
        depth += _DEPTH.get(event, 0)
        if not depth:
            return builder.value
        if depth > MOST_NESTED:
            raise ijson.JSONError(f"brackets are nested more than {MOST_NESTED} deep")
        event, value = next(events)
