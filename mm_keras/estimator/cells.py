"""The cells of a DataFrame as the packing of tables reads them: pictures in all their forms, and texts."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tfrecords_tools.sources import table_cells


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: what packing takes for missing (None, NaN, NaT, pandas.NA), or a blank text."""
    return table_cells.is_missing(value) or (isinstance(value, str) and not value.strip())


def image_cell(value: Any, is_base64: bool = False) -> str | bytes | None:
    """A picture as a path or as encoded bytes; None: there is none.

    Args:
        value: a path, encoded bytes, a PIL image, an array uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], a dict
            {"bytes": …, "path": …} as Hugging Face's datasets have it, or an empty cell.
        is_base64: whether texts are base64 and not paths.

    Raises:
        ValueError: for anything else, and for texts that are no base64.

    Example:
        >>> image_cell({"bytes": None, "path": "mug.jpg"})
        'mug.jpg'
    """
    if is_missing(value):
        return None
    if isinstance(value, dict):
        return image_cell(value["bytes"] if not is_missing(value.get("bytes")) else value.get("path"), is_base64)
    if isinstance(value, str | os.PathLike):
        return _decode(value) if is_base64 and isinstance(value, str) else os.fspath(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value) or None
    if isinstance(value, np.ndarray):
        value = _from_array(value)
    if isinstance(value, Image.Image):
        encoded = io.BytesIO()
        value.save(encoded, "PNG")
        return encoded.getvalue()
    raise ValueError(
        "an image cell is a path, bytes, a PIL image, an array [H, W, 3] or {'bytes': …, 'path': …}. Received: "
        f"{type(value).__name__}"
    )


def text_cell(value: Any) -> str | list[str]:
    """A text, or several of one field; numbers are written out, and empty cells are "".

    Raises:
        ValueError: for other types.
    """
    if isinstance(value, list | tuple | np.ndarray):
        return [text for text in map(text_cell, value) if text]
    if is_missing(value):
        return ""
    if isinstance(value, str | int | float | np.integer | np.floating | bool | np.bool_):
        return str(value)
    raise ValueError(f"a text cell is a text or a number. Received: {type(value).__name__}")


def first_text(value: Any) -> str:
    """The text that a model is asked with, where a cell may hold several."""
    text = text_cell(value)
    return text if isinstance(text, str) else (text or [""])[0]


def absolute(cell: str | bytes | None, root: Path) -> str | bytes | None:
    """A cell of `image_cell` whose path is made absolute."""
    return str(root / cell) if isinstance(cell, str) else cell


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ValueError(
            "an image array is uint8 within [0, 255], of shape [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]. Received: "
            f"{array.dtype} {list(array.shape)}"
        )
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except ValueError:
        raise ValueError(f"an image cell that should be base64 is not: it begins with {text[:20]!r}") from None
