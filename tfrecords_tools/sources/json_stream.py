"""Large JSON files, one item at a time: COCO's instances are 450 MB of text and some 3 GB once parsed as a whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ijson

from tfrecords_tools.sources.files import SourceError, open_bytes, reading

_Events = Iterator[tuple[str, Any]]  # of ijson: ("start_map", None), ("map_key", "id"), ("number", 9), ("end_map", None), …
_DEPTH = {"start_map": 1, "start_array": 1, "end_map": -1, "end_array": -1}


def iter_json(path: str | Path) -> Iterator[tuple[str, Any]]:
    """Yields the content of a large JSON file piece by piece: (key, item) for each item of each list of the top object.

    {"info": {…}, "images": [{…}, {…}]} -> ("info", {…}), ("images", {…}), ("images", {…}); the items of a file that is
    one list have the key "". Memory holds one item at a time.

    Raises:
        SourceError: where the file is no JSON; the message shows the place.
    """
    with open_bytes(path) as file, reading(path):
        try:
            yield from _items(ijson.basic_parse(file, use_float=True))
        except ijson.JSONError as error:
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
    for _ in events:  # what follows the end is an error, which ijson raises
        pass


def _list(events: _Events) -> Iterator[Any]:
    """The items of a list whose beginning was read."""
    for event, value in itertools.takewhile(lambda pair: pair[0] != "end_array", events):
        yield _value(event, value, events)


def _value(event: str, value: Any, events: _Events) -> Any:
    """The whole value that an event begins."""
    if event not in _DEPTH:
        return value
    builder, depth = ijson.ObjectBuilder(), 0
    while True:
        builder.event(event, value)
        depth += _DEPTH.get(event, 0)
        if not depth:
            return builder.value
        event, value = next(events)
