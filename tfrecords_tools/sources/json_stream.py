"""Large JSON files, one item at a time: COCO's instances are 450 MB of text and some 3 GB once parsed as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from tfrecords_tools.sources.files import SourceError, open_text, reading

_CHUNK = 2**20
_ITEM_LIMIT = 2**26
_AFTER_VALUE = frozenset(",:]} \t\r\n")


def iter_json(path: str | Path) -> Iterator[tuple[str, Any]]:
    """Yields the content of a large JSON file piece by piece: (key, item) for each item of each list of the top object.

    {"info": {…}, "images": [{…}, {…}]} -> ("info", {…}), ("images", {…}), ("images", {…}); the items of a file that is
    one list have the key "". Memory holds one item at a time.

    Raises:
        SourceError: where the file is no JSON, naming the place.
    """
    with open_text(path) as file, reading(path):
        text = _JsonText(file, path)
        if text.take("[") == "[":
            yield from (("", item) for item in text.items())
        elif text.take("{"):
            while not text.take("}"):
                key = text.value()
                text.expect(":")
                if text.take("["):
                    yield from ((key, item) for item in text.items())
                else:
                    yield key, text.value()
                if not text.take(","):
                    text.expect("}")
                    break
        else:
            text.expect("[")


class _JsonText:
    """A window over a JSON file that moves on as values are taken from it."""

    _decoder = json.JSONDecoder()

    def __init__(self, file: TextIO, path: str | Path):
        self._file, self._path = file, path
        self._text, self._at, self._before, self._ended = "", 0, 0, False

    def take(self, character: str) -> str:
        """The next character if it is `character`, else nothing."""
        self._skip_space()
        if self._text[self._at : self._at + 1] != character:
            return ""
        self._at += 1
        return character

    def expect(self, character: str) -> None:
        if not self.take(character):
            found = self._text[self._at : self._at + 20] or "the end of the file"
            place = self._before + self._at
            raise SourceError(f"{self._path} is no JSON: expected {character!r} at character {place}, found {found!r}")

    def value(self) -> Any:
        self._skip_space()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > _ITEM_LIMIT or not self._more():
                    place = self._before + error.pos
                    raise SourceError(f"{self._path} is no JSON: {error.msg} at character {place}") from error
                continue
            if self._text[end : end + 1] in _AFTER_VALUE or not self._more():  # a number may go on behind the window
                self._at = end
                return value

    def items(self) -> Iterator[Any]:
        """The items of a list whose bracket was taken."""
        if self.take("]"):
            return
        while True:
            yield self.value()
            if not self.take(","):
                self.expect("]")
                return

    def _skip_space(self) -> None:
        while self._at < len(self._text) or self._more():
            if self._text[self._at] not in " \t\r\n":
                return
            self._at += 1

    def _more(self) -> bool:
        """Reads on; what was taken is dropped. False at the end of the file."""
        chunk = "" if self._ended else self._file.read(_CHUNK)
        self._ended = not chunk
        if chunk:
            self._before += self._at
            self._text, self._at = self._text[self._at :] + chunk, 0
        return bool(chunk)
