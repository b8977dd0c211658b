"""Finds near-duplicate images in different splits, since a model should not be tested on images that it was trained on.

The library imagehash computes a perceptual hash of 64 bits for every image. A picture keeps the same hash, or nearly so, when
it is re-encoded, resized or slightly recoloured. Two images count as near-duplicates if their hashes differ in at most
`max_distance` bits.

Reference: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", section 3.2.1 (DCT-based hash).
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.dataset.schema import decode_example
from tfrecords_tools.dataset.shards import iter_records
from tfrecords_tools.progress import progress_bar

_BITS = 64
_DECODED = 128  # the least number of pixels on each side to decode
_ROWS = 2048  # compared at once, so that many images with similar hashes do not fill the memory


class Leak(NamedTuple):
    """Two near-duplicates in different splits.

    Attributes:
        id, split: the one record.
        other_id, other_split: the other record.
        distance: the number of bits in which their hashes differ.
        same_labels: whether both have the same labels.
    """

    id: str
    split: str
    other_id: str
    other_split: str
    distance: int
    same_labels: bool


def find_leaks(folder: str | Path, max_distance: int = 4, progress: bool = True) -> list[Leak]:
    """Finds all pairs of near-duplicates that stand in different splits.

    Args:
        folder: a dataset folder.
        max_distance: the number of bits, 0–15, in which hashes of near-duplicates may differ. A larger distance finds more
            pairs, and among them more that only look alike.
        progress: whether to show a progress bar on standard error.

    Returns:
        the pairs, nearest first.

    Raises:
        ValueError: for a distance outside 0–15.

    Example:
        >>> [(leak.id, leak.other_id, leak.distance) for leak in find_leaks("data/products")]
        [('a17', 'b3', 0)]
    """
    if not 0 <= max_distance <= 15:
        raise ValueError(f"max_distance must be within 0–15 bits. Received: {max_distance}")
    info = DatasetInfo.load(folder)
    ids, splits, labels, hashes = [], [], [], []
    total = sum(info.num_examples(split) for split in info.splits)
    with progress_bar("hashing", "images", total, progress) as bar:
        for number, split in enumerate(info.splits):
            for shard in info.shards(split):
                for record in map(decode_example, iter_records(Path(folder) / shard.file, shard.num_examples)):
                    bar.update()
                    if record.image:
                        ids.append(record.id)
                        splits.append(number)
                        labels.append(record.label_ids)
                        hashes.append(perceptual_hash(record.image))
    names = list(info.splits)
    return sorted(
        (
            Leak(ids[a], names[splits[a]], ids[b], names[splits[b]], distance, labels[a] == labels[b])
            for a, b, distance in near_pairs(np.array(hashes, np.uint64), np.array(splits), max_distance)
        ),
        key=lambda leak: (leak.distance, leak.id, leak.other_id),
    )


def perceptual_hash(jpeg: bytes) -> int:
    """The perceptual hash of an encoded image, an integer of 64 bits.

    Each bit says whether one of the 64 lowest frequencies of the picture (by a DCT) lies above their median.
    """
    import imagehash

    image = Image.open(io.BytesIO(jpeg))
    image.draft("L", (_DECODED, _DECODED))  # decodes fewer pixels; the hash looks at 32 x 32
    return int.from_bytes(np.packbits(imagehash.phash(image).hash).tobytes(), "big")


def near_pairs(hashes: np.ndarray, splits: np.ndarray, max_distance: int) -> Iterator[tuple[int, int, int]]:
    """Yields (index, other index, distance) of the hashes of different splits that differ in at most `max_distance` bits.

    Hashes are cut into max_distance + 1 bands of bits. Two near hashes are equal in at least one band, so only hashes that are
    equal in a band are compared.
    """
    seen: set[tuple[int, int]] = set()
    edges = np.linspace(0, _BITS, max_distance + 2).astype(int)
    for low, high in itertools.pairwise(edges):
        keys = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(keys, kind="stable")
        borders = np.flatnonzero(np.diff(keys[order])) + 1
        for group in np.split(order, borders):
            if len(group) < 2 or (splits[group] == splits[group[0]]).all():
                continue
            for start in range(0, len(group), _ROWS):
                rows = group[start : start + _ROWS]
                distances = np.bitwise_count(hashes[rows, np.newaxis] ^ hashes[group])
                near = (distances <= max_distance) & (splits[rows, np.newaxis] < splits[group])
                for row, column in zip(*np.nonzero(near), strict=True):
                    pair = int(rows[row]), int(group[column])
                    if pair not in seen:
                        seen.add(pair)
                        yield *pair, int(distances[row, column])
