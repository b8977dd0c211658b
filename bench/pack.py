"""How fast images are drawn and packed, beside a plain Pillow loop in the same run. One JSON line per measurement.

    python bench/pack.py [FOLDER OF IMAGES]

Without a folder it packs 500x375 pictures that it makes itself; with one, the JPEGs in it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tfrecords_tools.example import Source, SourceExample
from tfrecords_tools.pack import PackOptions, pack
from tfrecords_tools.schema import Record, encode_example
from tfrecords_tools.shards import ShardWriter
from tfrecords_tools.sources import sample

_SHORT_SIDE, _QUALITY, _REPEATS = 256, 90, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="images to pack (default: made up ones)")
    parser.add_argument("--num", type=int, default=1000, help="how many images, repeating those there are (default: 1000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        paths = sorted(options.folder.glob("*.[jJ][pP]*[gG]")) if options.folder else _make_images(Path(scratch) / "images")
        paths = [paths[index % len(paths)] for index in range(options.num)]
        _report("draw sample, 1 core", 1000, lambda: sum(1 for _ in sample.iter_examples(1000, seed=1)))
        loop = _report("Pillow loop, 1 process", len(paths), lambda: _pillow_loop(paths, Path(scratch) / "loop"))
        for workers in sorted({1, os.cpu_count() or 1}):
            _report(
                f"tfrecords_tools.pack, {workers} worker(s)",
                len(paths),
                lambda workers=workers: _pack(paths, Path(scratch) / "packed", workers),
                beside=loop,
            )


def _report(name: str, num_images: int, work: Callable[[], object], beside: float | None = None) -> float:
    """Runs `work` several times, prints the best rate, and its ratio to `beside`; returns images/s."""
    seconds = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    rate = num_images / min(seconds)
    line = {"bench": "pack", "what": name, "images_per_second": round(rate, 1), "images": num_images, "cores": os.cpu_count()}
    print(json.dumps(line | ({"ratio_to_pillow_loop": round(rate / beside, 2)} if beside else {})), flush=True)
    return rate


def _pack(paths: list[Path], output: Path, workers: int) -> None:
    examples = lambda: (SourceExample(str(i), f"bench:{i}", path) for i, path in enumerate(paths))  # noqa: E731
    source = Source("bench", examples, text_fields={}, multi_label=False)
    options = PackOptions(fractions={"train": 1.0}, workers=workers)
    pack(source, output, options, overwrite=True, progress=False)


def _pillow_loop(paths: list[Path], output: Path) -> None:
    """What one would write by hand: the same size, quality and records."""
    writer = ShardWriter(output)
    for index, path in enumerate(paths):
        image = Image.open(path).convert("RGB")
        scale = _SHORT_SIDE / min(image.size)
        if scale < 1:
            image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=_QUALITY)
        writer.write(encode_example(Record(str(index), buffer.getvalue(), image.height, image.width)))
    writer.close()


def _make_images(folder: Path) -> list[Path]:
    """Pictures of 500x375 with edges, gradients and texture."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(100):
        coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        pixels = cv2.resize(coarse, (500, 375), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        pixels += rng.integers(-15, 16, pixels.shape, np.int16)
        for _ in range(20):
            corners = rng.integers(0, 375, (4, 2)).astype(np.int32)
            cv2.fillPoly(pixels, [corners], rng.integers(0, 255, 3).tolist())
        cv2.imwrite(str(folder / f"{index:03d}.jpg"), pixels.clip(0, 255).astype(np.uint8))
    return sorted(folder.iterdir())


if __name__ == "__main__":
    main()
