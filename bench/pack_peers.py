"""What one would pack with instead, and how like Lanczos' the pictures become that it stores."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import importlib.util
import io
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from measure import CORES, MissingPeerError, run_elsewhere, timed
from PIL import Image

from tfrecords_tools.dataset.schema import Record, decode_example, encode_example
from tfrecords_tools.dataset.shards import ShardWriter, iter_records

SHORT_SIDE, QUALITY = 256, 90


@dataclasses.dataclass(frozen=True)
class Photo:
    """What is packed: an id that is its number, a JPEG file, a title and a label."""

    id: str
    path: Path
    title: str
    label: str


def pillow_loop(photos: list[Photo], output: Path) -> float:
    """What one would write by hand: returns the seconds it takes."""

    def work() -> None:
        labels = sorted({photo.label for photo in photos})
        writer = ShardWriter(output / "train.tfrecord")
        for photo in photos:
            data, height, width = _shrink_with_pillow(photo.path)
            texts = {"title": (photo.title,)}
            writer.write(encode_example(Record(photo.id, data, height, width, texts, (labels.index(photo.label),))))
        writer.close()

    return timed(work)


def tfds_builder(photos: list[Photo], output: Path, shrink: Callable[[Path], tuple[bytes, int, int]]) -> float:
    """A TFDS builder whose records have the features of ours: returns the seconds it takes."""
    if not importlib.util.find_spec("tensorflow_datasets"):
        raise MissingPeerError("pip install tensorflow-datasets")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()

    class Photos(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = output

        def _info(self):
            features = {
                "id": tfds.features.Text(),
                "image": {"encoded": tfds.features.Image(encoding_format="jpeg"), "height": np.int64, "width": np.int64},
                "text": {"title": tfds.features.Sequence(tfds.features.Text())},
                "label": {
                    "ids": tfds.features.Sequence(tfds.features.ClassLabel(names=sorted({p.label for p in photos}))),
                },
                "weight": np.float32,
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for photo in photos:
                data, height, width = shrink(photo.path)
                yield (
                    photo.id,
                    {
                        "id": photo.id,
                        "image": {"encoded": io.BytesIO(data), "height": height, "width": width},
                        "text": {"title": [photo.title]},
                        "label": {"ids": [photo.label]},
                        "weight": 1.0,
                    },
                )

    with contextlib.redirect_stdout(sys.stderr):  # it talks, and standard output is for JSON
        return timed(Photos(data_dir=output).download_and_prepare)


def img2dataset(photos: list[Photo], output: Path, python: str) -> float:
    """img2dataset on local files: returns the seconds that its processes spend on their shards, on average."""
    with open(output / "photos.csv", "w", newline="", encoding="utf-8") as file:
        rows = ((photo.path.resolve().as_uri(), photo.title, photo.label) for photo in photos)
        csv.writer(file).writerows([("url", "title", "label"), *rows])
    arguments = {
        "photos": str(output / "photos.csv"),
        "output": str(output / "packed"),
        "num": len(photos),
        "processes": CORES,
        "image_size": SHORT_SIDE,
        "encode_quality": QUALITY,
    }
    packages = ("img2dataset", "tensorflow", "tensorflow_io")
    install = (
        "python -m venv OTHER_VENV && OTHER_VENV/bin/pip install img2dataset tensorflow tensorflow-io, "
        "then --img2dataset_python=OTHER_VENV/bin/python"
    )
    return run_elsewhere(python, "pack_img2dataset.py", arguments, packages, install)["seconds"]


def _shrink_with_pillow(path: Path) -> tuple[bytes, int, int]:
    """JPEG bytes, height and width."""
    image = Image.open(path).convert("RGB")
    scale = SHORT_SIDE / min(image.size)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue(), image.height, image.width


def _shrink_with_opencv(path: Path) -> tuple[bytes, int, int]:
    image = cv2.imread(str(path))
    height, width = image.shape[:2]
    scale = SHORT_SIDE / min(height, width)
    if scale < 1:
        image = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes(), *image.shape[:2]


def stored_in_records(photos: list[Photo], output: Path) -> Iterator[tuple[Path, bytes]]:
    """Each photo's file and the JPEG that was stored for it."""
    for shard in sorted(output.rglob("*.tfrecord*")):
        for serialized in iter_records(shard):
            record = decode_example(serialized)
            yield photos[int(record.id)].path, record.image


def _stored_by_img2dataset(photos: list[Photo], output: Path) -> Iterator[tuple[Path, bytes]]:
    import tensorflow as tf

    by_address = {photo.path.resolve().as_uri(): photo.path for photo in photos}
    for shard in sorted((output / "packed").glob("*.tfrecord")):
        for serialized in iter_records(shard):
            feature = tf.train.Example.FromString(serialized).features.feature
            yield by_address[feature["url"].bytes_list.value[0].decode()], feature["jpg"].bytes_list.value[0]


def mean_ssim(stored: Iterator[tuple[Path, bytes]], num: int = 200) -> float | None:
    """Mean SSIM of up to `num` stored pictures and the originals shrunk to their size with Lanczos; None if none shrank."""
    pairs, seen = [], set()
    for path, data in itertools.islice(stored, 2 * num):
        original = Image.open(path)
        if path in seen or len(seen) == num or min(original.size) <= SHORT_SIDE:
            continue
        seen.add(path)
        picture = Image.open(io.BytesIO(data))
        wanted = original.convert("RGB").resize(picture.size, Image.Resampling.LANCZOS)
        pairs.append(_ssim(*(np.asarray(image.convert("L"), np.float64) for image in (picture, wanted))))
    return sum(pairs) / len(pairs) if pairs else None


def _ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Of luma within [0, 255]: Wang et al. 2004, equation 13, Gaussian window of 11 pixels with σ 1.5, where it fits in."""

    def blur(image: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(image, (11, 11), 1.5)[5:-5, 5:-5]

    mean_1, mean_2 = blur(first), blur(second)
    variance_1, variance_2 = blur(first**2) - mean_1**2, blur(second**2) - mean_2**2
    covariance = blur(first * second) - mean_1 * mean_2
    c_1, c_2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean_1 * mean_2 + c_1) * (2 * covariance + c_2)
    return float(np.mean(likeness / ((mean_1**2 + mean_2**2 + c_1) * (variance_1 + variance_2 + c_2))))


# name -> (what it is, a function that packs and returns seconds, one that yields what it stored)
PEERS = {
    "pillow": ("Pillow loop, 1 process", pillow_loop, stored_in_records),
    "tfds": ("TFDS builder, Pillow", lambda *work: tfds_builder(*work, _shrink_with_pillow), stored_in_records),
    "tfds_opencv": ("TFDS builder, OpenCV", lambda *work: tfds_builder(*work, _shrink_with_opencv), stored_in_records),
    "img2dataset": (f"img2dataset, {CORES} processes", img2dataset, _stored_by_img2dataset),
}
