"""Why a model gives the label that it gives: it is asked again with parts of the example hidden.

    inputs     the example without one of its inputs, and with that one alone
    words      a text without one of its words
    regions    the picture with a square painted over, in the colour of its mean (occlusion: Zeiler and Fergus 2014, 4.3)

A part matters as much as the log-odds of the label fall where it is hidden: by log 2, where the odds are twice as high with it.
Probabilities would not tell what mattered to a model that is sure, since they hardly fall.
"""

from __future__ import annotations

import io
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps, ImageStat

from mm_keras.features import IMAGE

Example = Mapping[str, bytes]
Ask = Callable[[Sequence[Example]], Awaitable[np.ndarray]]
"""Asks the model for examples: their inputs by name, b"" for missing -> scores float32 [number, num_labels].

The scores of an example without any input are all the same.
"""

GRID = 7
_SIDE = 320  # pixels of the longer side of a picture that is painted over
_MOST_WORDS = 40
_LEAST = 1e-30  # of a probability
_SURE = 0.5  # the least probability of each of two labels that contradict each other


def log_odds(scores: np.ndarray, label: int, multi_label: bool) -> np.ndarray:
    """The logarithm of a label's odds, float64 [N]; where the labels exclude each other, against all others together.

    Args:
        scores: float32 [N, num_labels].
        label: the label's place.
        multi_label: whether an example may have several labels.
    """
    scores = scores.astype("float64")
    chosen = scores[:, label]
    others = 1 - chosen if multi_label else np.delete(scores, label, axis=1).sum(axis=1)  # exact where they are tiny
    return np.log(np.maximum(chosen, _LEAST)) - np.log(np.maximum(others, 1e-6 if multi_label else _LEAST))


async def explain_inputs(ask: Ask, example: Example, labels: Sequence[str], multi_label: bool = False) -> dict[str, Any]:
    """What each input that is given added to the most probable label, and a warning where picture and texts disagree.

    Returns:
        {"label", "probability", "inputs": [{"name", "added", "without": the label's probability without it, "alone": {"label",
        "probability"}}], "warning": text or None}.
    """
    names = [name for name, value in example.items() if value.strip()]
    texts = [name for name in names if name != IMAGE]
    sets = [names, *([name] for name in names), *([other for other in names if other != name] for name in names), texts]
    scores = await ask([{name: example[name] if name in shown else b"" for name in example} for shown in sets])
    whole, alone, without, of_texts = scores[0], scores[1 : 1 + len(names)], scores[1 + len(names) : -1], scores[-1]
    best = int(whole.argmax())
    odds = log_odds(scores, best, multi_label)
    lost = (odds[0] - odds[1 + len(names) : -1]).tolist()
    inputs = [
        {"name": name, "added": added, "without": float(less[best]), "alone": _top(single, labels)}
        for name, single, less, added in zip(names, alone, without, lost, strict=True)
    ]
    warning = disagreement(dict(zip(names, alone, strict=True)).get(IMAGE), of_texts if texts else None, labels)
    return {"label": labels[best], "probability": float(whole[best]), "inputs": inputs, "warning": warning}


def _top(scores: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    best = int(scores.argmax())
    return {"label": labels[best], "probability": float(scores[best])}


def disagreement(picture: np.ndarray | None, texts: np.ndarray | None, labels: Sequence[str]) -> str | None:
    """The warning that picture and texts, by their scores [num_labels], are sure of different labels; None if they are not."""
    if picture is None or texts is None or picture.argmax() == texts.argmax():
        return None
    seen, read = _top(picture, labels), _top(texts, labels)
    if min(seen["probability"], read["probability"]) < _SURE:
        return None
    return (
        f"Picture and text disagree: the picture alone says {seen['label']} ({seen['probability']:.0%}), the text alone "
        f"{read['label']} ({read['probability']:.0%})."
    )


async def explain_words(ask: Ask, example: Example, multi_label: bool = False) -> dict[str, list[dict[str, Any]]]:
    """How much each word of each text mattered to the most probable label.

    Returns:
        text input -> [{"text": a word with what follows it, "weight": by how much the log-odds fall without it}].
    """
    parts = {}
    for name, value in example.items():
        if name != IMAGE and value.strip():
            parts[name] = re.findall(r"\S+\s*", value.decode("utf-8", "replace"))
    variants = [dict(example)]
    for name, words in parts.items():
        for place in range(min(len(words), _MOST_WORDS)):
            variants.append({**example, name: "".join(words[:place] + words[place + 1 :]).encode()})
    scores = await ask(variants)
    odds = log_odds(scores, int(scores[0].argmax()), multi_label)
    falls = iter((odds[0] - odds[1:]).tolist())
    return {
        name: [{"text": word, "weight": next(falls) if place < _MOST_WORDS else 0.0} for place, word in enumerate(words)]
        for name, words in parts.items()
    }


async def explain_regions(ask: Ask, example: Example, multi_label: bool = False) -> dict[str, Any]:
    """How much each part of the picture mattered to the most probable label.

    Returns:
        {"rows", "columns", "weights": for each square, row by row, by how much the log-odds fall without it}.

    Raises:
        ValueError: if the picture cannot be read.
    """
    picture = open_picture(example[IMAGE], _SIDE)
    mean = tuple(int(value) for value in ImageStat.Stat(picture).mean)
    pictures = [picture]
    rows, columns = (min(GRID, side) for side in (picture.height, picture.width))
    edges = [np.linspace(0, side, count + 1).astype(int) for side, count in ((picture.height, rows), (picture.width, columns))]
    for row in range(rows):
        for column in range(columns):
            covered = picture.copy()
            box = (edges[1][column], edges[0][row], edges[1][column + 1], edges[0][row + 1])
            covered.paste(mean, tuple(int(side) for side in box))
            pictures.append(covered)
    scores = await ask([{**example, IMAGE: encode_picture(variant, "PNG")} for variant in pictures])
    odds = log_odds(scores, int(scores[0].argmax()), multi_label)
    return {"rows": rows, "columns": columns, "weights": (odds[0] - odds[1:]).tolist()}


def open_picture(encoded: bytes, side: int) -> Image.Image:
    """A picture upright, on white, its longer side at most `side` pixels; ValueError if it cannot be read."""
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            opened.draft("RGB", (side, side))
            upright = ImageOps.exif_transpose(opened).convert("RGBA")
    except Exception as error:  # Pillow raises what its formats do
        raise ValueError(f"the picture cannot be read: {error}") from error
    white = Image.new("RGBA", upright.size, "white")
    picture = Image.alpha_composite(white, upright).convert("RGB")
    picture.thumbnail((side, side))
    return picture


def encode_picture(picture: Image.Image, kind: str, **options) -> bytes:
    """A picture as bytes of a format."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
