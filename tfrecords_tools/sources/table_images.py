"""What a cell of a table says about an image: a path, a name to complete, encoded bytes, or something that must be fetched."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import re
import string
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from tfrecords_tools.sources.files import IMAGE_SUFFIXES
from tfrecords_tools.sources.table_cells import is_list, is_missing, list_in, name_of, text_of

_URL = re.compile(r"(https?|ftp|s3|gs|gcs|hdfs|az|abfss?)://", re.IGNORECASE)
_DATA_URL = re.compile(r"data:[\w/+.-]*;base64,")
# How the base64 of a JPEG, PNG, GIF, WebP, BMP, TIFF (in either byte order) and AVIF begins.
_BASE64_STARTS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk", "SUkq", "TU0AK", "AAAA")
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{64,}={0,2}")
_SEPARATORS = (";", "|", ",", " ")
FIRST_IMAGE = "a record has one image: --first_image takes the first of each cell"
COLLECT = (
    "fetch the pictures first (tfrecords-tools collect images TABLE.csv --id=COLUMN --url=COLUMN --output=FOLDER), and name "
    "them by --image_template='FOLDER/{COLUMN}'"
)


class SeveralImagesError(ValueError):
    """A cell that names several images where one is expected."""


class UrlError(ValueError):
    """A cell that names an image which must be fetched first."""


@dataclasses.dataclass(frozen=True)
class ImageCells:
    """How the images of a table's rows are found.

    Attributes:
        column: the column of paths, bytes, or Hugging Face's {bytes, path}; None: the template gives the paths.
        root: the folder to which paths are relative.
        template: a path with columns in braces, "images/{id}.jpg" or "{id:06d}.png"; None: `column` gives the paths.
        first: whether the first image is taken of a cell with several. Otherwise such a cell is an error.
    """

    column: str | None
    root: Path
    template: str | None = None
    first: bool = False

    def read(self, row: Mapping[str, Any]) -> Path | bytes | None:
        """The image of a row: a path, encoded bytes, or None if the row names none.

        A path without a suffix is completed by the suffix of the one image of that name; "a\\b.png" is "a/b.png".

        Raises:
            UrlError: for a URL.
            SeveralImagesError: for several images.
            ValueError: for a cell that is no image, or a name that several files complete.
        """
        if self.template is not None:
            path = fill(self.template, row)
            return self._find(path) if path else None
        return self._read(row[self.column])

    def _read(self, value: Any) -> Path | bytes | None:
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value) or None
        if isinstance(value, dict):
            return self._read(value["bytes"] if value.get("bytes") else value.get("path"))
        spelled = value if is_list(value) else list_in(value) if isinstance(value, str) else None
        if spelled is not None:
            items = [item for item in spelled if not is_missing(item)]
            if len(items) > 1 and not self.first:
                raise SeveralImagesError(f"{len(items)} images in column {self.column!r}: {FIRST_IMAGE}")
            return self._read(items[0]) if items else None
        if getattr(value, "ndim", 0) > 1 or hasattr(value, "getbands"):
            raise ValueError(f"column {self.column!r} holds the pixels of an image; give its path, or its encoded bytes")
        if not isinstance(value, str) and not is_missing(value):
            value = name_of(value, self.column)  # a number may name a file
        text = text_of(value, self.column)
        if not text:
            return None
        return decode_base64(text) or self._find(text)

    def _find(self, text: str) -> Path:
        if is_url(text):
            raise UrlError(f"{text!r:.80} is a URL: {COLLECT}")
        text = text.removeprefix("file://")
        path = self.root / text
        if "\\" in text and not is_file(path):
            path = self.root / text.replace("\\", "/")
        if "%" in text and not is_file(path) and is_file(self.root / unquote(text)):
            path = self.root / unquote(text)
        names = parts_of(text)
        if len(names) > 1 and not is_file(path):
            if not self.first:
                raise SeveralImagesError(f"{len(names)} images in {text!r:.80}: {FIRST_IMAGE}")
            return self._find(names[0])
        return path if path.suffix.lower() in IMAGE_SUFFIXES else complete(path)


def is_url(value: Any) -> bool:
    """Whether a cell names something that must be fetched."""
    return isinstance(value, str) and bool(_URL.match(value.strip()))


def is_file(path: Path) -> bool:
    """Whether there is such a file; False also for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def complete(path: Path) -> Path:
    """The one image whose name is `path` with a suffix; `path` itself if it is a file, or if there is none.

    Raises:
        ValueError: if there are several.
    """
    if is_file(path) or not path.name:
        return path
    suffixes = (spelling for suffix in sorted(IMAGE_SUFFIXES) for spelling in (suffix, suffix.upper()))
    files = [file for suffix in suffixes if is_file(file := path.with_name(path.name + suffix))]
    if len(files) > 1 and not all(file.samefile(files[0]) for file in files):
        names = [file.name for file in files]
        raise ValueError(f"{path.name!r} may be any of {names}; name the suffix, for example --image_template='{{image}}.jpg'")
    return files[0] if files else path


def parts_of(text: str) -> list[str]:
    """The names of the images in a cell: "a.png;b.png" -> ["a.png", "b.png"]; one name if the cell does not hold several."""
    for separator in _SEPARATORS:
        parts = [part.strip() for part in text.split(separator) if part.strip()]
        if len(parts) > 1 and all(PurePosixPath(part).suffix.lower() in IMAGE_SUFFIXES for part in parts):
            return parts
    return [text]


def decode_base64(text: str) -> bytes | None:
    """The bytes of an image that a text holds as base64 or as a data URL; None if it holds none."""
    data_url = _DATA_URL.match(text)
    if data_url:
        try:
            return base64.b64decode(text[data_url.end() :])
        except binascii.Error as error:
            raise ValueError(f"the base64 of {text[:40]!r}… does not decode: {error}") from error
    if not text.startswith(_BASE64_STARTS) or not _BASE64.fullmatch(text):
        return None
    try:
        return base64.b64decode(text)
    except binascii.Error:
        return None


def template_columns(template: str) -> list[str]:
    """The columns in the braces of a template.

    Raises:
        ValueError: for a template without any, or with braces that do not close.
    """
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ValueError(f"image_template {template!r}: {error}") from error
    if not names or not all(names):
        raise ValueError(f"image_template names columns in braces, such as 'images/{{id}}.jpg'. Received: {template!r}")
    return names


def fill(template: str, row: Mapping[str, Any]) -> str:
    """A template with the cells of a row in its braces; "" if one of them is empty. "{id:06d}" pads a number with zeros."""
    path = ""
    for literal, column, spec, _ in string.Formatter().parse(template):
        path += literal
        if column is None:
            continue
        value = name_of(row[column], column)
        if not value:
            return ""
        try:
            path += format(int(value), spec) if spec else value
        except ValueError:
            raise ValueError(f"{value!r} in column {column!r} does not fit {{{column}:{spec}}} of the image template") from None
    return path
