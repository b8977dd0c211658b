"""Small pictures for a page: thumbnails, and where a model looked."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from mm_keras.report.draw_sections import data_uri
from mm_keras.report.examples import Examples

_SIDE, _LARGE = 112, 192  # pixels
_FAINT = 0.02  # a smaller fall of the probability is not worth a full colour
_WARM = (235, 110, 20)
_MOST = 320  # pictures on a page, which keeps it below 3 MB


class Pictures:
    """The pictures of a page as data URIs; a thumbnail is decoded once, and at most 320 of them are given.

    Args:
        examples: the examples of all splits that are shown.
    """

    def __init__(self, examples: Iterable[Examples]):
        self._examples = {of_split.name: of_split for of_split in examples}
        self._number = 0

    def uri(self, split: str, row: int) -> str | None:
        """The small picture of an example; None if there is none, it cannot be read, or there are too many already."""
        self._number += 1
        jpeg = self.jpeg(split, row) if self._number <= _MOST else None
        return data_uri("jpeg", jpeg) if jpeg else None

    @functools.cache  # noqa: B019 the object lives only while the page is made
    def jpeg(self, split: str, row: int) -> bytes | None:
        """The small picture of an example as an encoded JPEG; None if there is none, or it cannot be read."""
        image = self._open(split, row, _SIDE)
        return _encoded(image) if image else None

    def heat_uri(self, split: str, row: int, regions: list[list[float]]) -> str | None:
        """The picture in grey, with the parts without which the probability falls in orange.

        Args:
            split, row: the example.
            regions: float [G][G], how far the probability falls where each part is hidden.
        """
        image = self._open(split, row, _LARGE)
        if image is None:
            return None
        values = np.array(regions, np.float32)
        strength = np.clip(values / max(float(np.abs(values).max()), _FAINT), 0, 1)
        mask = Image.fromarray((strength * 255).astype(np.uint8)).resize(image.size, Image.Resampling.BICUBIC)
        weight = 0.7 * np.asarray(mask, np.float32)[..., np.newaxis] / 255
        grey = np.asarray(image.convert("L"), np.float32)[..., np.newaxis]
        mixed = (1 - weight) * (0.75 * grey + 50) + weight * np.array(_WARM, np.float32)
        return data_uri("jpeg", _encoded(Image.fromarray(mixed.astype(np.uint8)), 80))

    def _open(self, split: str, row: int, side: int) -> Image.Image | None:
        encoded = self._examples[split].image(row)
        if not encoded:
            return None
        try:
            image = Image.open(io.BytesIO(encoded))
            image.draft("RGB", (side, side))
            image.thumbnail((side, side))
            return image.convert("RGB")
        except OSError:
            return None


def _encoded(image: Image.Image, quality: int = 72) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()
