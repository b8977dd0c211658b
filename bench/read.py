"""How fast batches of 224x224 pixels are read, beside what one would use instead, in the same run. One JSON line each.

    python bench/read.py [FOLDER OF JPEGS] [--webdataset_python=OTHER_VENV/bin/python]

Every way reads the same photos, in batches of 32 float32 pictures; the rate counts from the first batch on, so that no
start-up is in it:

- `mm_keras.data.pipeline` from records packed at short side 256, and from records that hold the originals: training
  batches with augmentation, training batches without, evaluation batches;
- decoding alone, of the same records: TFRecordDataset, parse, decode_jpeg, no resizing. Once with every picture handed to
  Python, once with nothing but their shapes, in batches;
- keras `image_dataset_from_directory`, TFDS and webdataset with a DataLoader of one worker a core (decoded and resized by
  Pillow, and by OpenCV), all from the originals, as one uses them.

The ways take turns; the best run counts. Targets on 2 cores for packed records: 2.2 times keras and TFDS, 3.5 times
webdataset with Pillow, 0.8 of decoding alone; for originals: no slower than keras.

Without a folder it reads pictures that it draws. A peer that is not installed is left out, with a line that says how to
install it.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from measure import find_photos, in_turns, report, report_ratios
from read_peers import BATCH, PEERS, SHUFFLE_BUFFER, SIDE, seconds_after_first

from mm_keras.data.pipeline import make_evaluation_batches, make_training_batches
from mm_keras.features import FeatureSpec, ImageSpec
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.dataset.schema import parse_example
from tfrecords_tools.packing.images import ImageOptions
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.sources.example import Source, SourceExample

_LABELS = [f"class {index}" for index in range(10)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="JPEGs to read (default: drawn ones)")
    parser.add_argument("--num", type=int, default=4000, help="how many, repeating those there are (default: 4000)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way (default: 3)")
    parser.add_argument("--peers", default=",".join(PEERS), help="which peers, separated by commas (default: %(default)s)")
    parser.add_argument("--webdataset_python", default=sys.executable, help="a Python that has webdataset (default: this)")
    options = parser.parse_args()
    peers = list(filter(None, options.peers.split(",")))
    if unknown := set(peers) - set(PEERS):
        parser.error(f"--peers: unknown {sorted(unknown)}; there are {list(PEERS)}")
    if options.num < 2 * BATCH:
        parser.error(f"--num must be at least {2 * BATCH}, two batches. Received: {options.num}")

    with tempfile.TemporaryDirectory() as scratch:
        photos = find_photos(options.folder, Path(scratch), options.num)
        ways, ours, alone = {}, [], {}
        for kind, short_side in {"packed": 256, "originals": None}.items():
            _pack(photos, Path(scratch) / kind, short_side)
            batches, decoding = _ways_to_read(kind, Path(scratch) / kind)
            ways |= batches | decoding
            ours += batches
            alone |= {what: list(decoding) for what in batches}
        for peer in peers:
            what, prepare, read = PEERS[peer]
            elsewhere = {"python": options.webdataset_python} if peer.startswith("webdataset") else {}
            data = Path(scratch) / prepare.__name__  # both webdataset ways read the same tars
            ways[what] = functools.partial(_prepared, prepare, read, photos, data, elsewhere)
        seconds = in_turns("read", ways, options.repeats)
        num_images = len(photos) - BATCH  # after the first batch
        rates = {what: num_images / best for what, best in seconds.items()}
        for what, rate in rates.items():
            report("read", what, images=num_images, images_per_second=round(rate, 1), batches_per_second=round(rate / BATCH, 2))
        for what in ours:
            report_ratios("read", what, rates, [*(PEERS[peer][0] for peer in peers), *alone[what]])


def _pack(photos: list[Path], folder: Path, short_side: int | None) -> None:
    def examples():
        for index, path in enumerate(photos):
            yield SourceExample(str(index), f"bench:{index}", path, labels=[_LABELS[index % len(_LABELS)]])

    source = Source("bench", examples, text_fields={}, multi_label=False)
    pack(source, folder, PackOptions(images=ImageOptions(short_side=short_side), fractions={"train": 1.0}), progress=False)


def _ways_to_read(kind: str, folder: Path) -> tuple[dict, dict]:
    """Name -> a function that returns seconds: of ours, and of decoding alone."""
    features = FeatureSpec(ImageSpec((SIDE, SIDE)), (), tuple(_LABELS), multi_label=False)

    def train(augment: bool) -> float:
        return seconds_after_first(
            make_training_batches(
                Split.open(folder, "train"), features, BATCH, epochs=1, augment=augment, shuffle_buffer=SHUFFLE_BUFFER
            ).dataset
        )

    def evaluate() -> float:
        return seconds_after_first(make_evaluation_batches(Split.open(folder, "train"), features, BATCH).dataset)

    def decode(then: Callable[[tf.data.Dataset], tf.data.Dataset], first: int) -> float:
        records = tf.data.TFRecordDataset([str(shard) for shard in sorted(folder.glob("*.tfrecord"))])
        pixels = records.map(
            lambda serialized: tf.io.decode_jpeg(parse_example(serialized, [])["image"], channels=3),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        return seconds_after_first(then(pixels).prefetch(tf.data.AUTOTUNE), first)

    batches = {
        f"{kind}: training batches": lambda: train(augment=True),
        f"{kind}: training batches, not augmented": lambda: train(augment=False),
        f"{kind}: evaluation batches": evaluate,
    }
    decoding = {
        f"{kind}: decoding alone": lambda: decode(lambda pixels: pixels, first=BATCH),
        f"{kind}: decoding alone, nothing handed out": lambda: decode(
            lambda pixels: pixels.map(tf.shape).batch(BATCH), first=1
        ),
    }
    return batches, decoding


def _prepared(prepare, read, photos: list[Path], folder: Path, elsewhere: dict) -> float:
    """Writes the photos as the peer wants them, the first time; returns the seconds it reads them in."""
    if not folder.exists():
        prepare(photos, folder)
    return read(folder, **elsewhere)


if __name__ == "__main__":
    main()
