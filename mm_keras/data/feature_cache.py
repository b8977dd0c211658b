"""What frozen encoders make of a split, computed once and kept beside the dataset.

    <dataset>/.features/<fingerprint>/
        image_encoded.npy        float32 [N, D]: a file an input of the trained part, in the order of the records
        title_token_ids.npy      what else the trained part reads
        labels.npy  weights.npy

The fingerprint is of the encoders with their weights, the preprocessing and the records: a stale cache is never found.
"""

from __future__ import annotations

import functools
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import mm_keras
from mm_keras.data.pipeline import Batches, make_evaluation_batches, read_ids
from mm_keras.features import FeatureSpec
from mm_keras.workers import ALONE, Worker, one_worker_at_a_time
from tfrecords_tools.dataset_info import DatasetInfo
from tfrecords_tools.progress import progress_bar
from tfrecords_tools.shards import sha256_of

CACHE_FOLDER = ".features"
_LABELS, _WEIGHTS = "labels", "weights"


class FeatureCache:
    """The arrays of one split, memory-mapped.

    Args:
        folder: the dataset folder.
        split: its split.
        features: of the whole model.
        encoders: the frozen part, of `split_at_frozen`.
        inputs: names of the trained part's inputs.
        batch_size: of the encoders; only memory depends on it.

    Attributes:
        arrays: name -> [N, …] of each input of the trained part.
        labels, weights: [N] or [N, L]; [N].
    """

    def __init__(
        self,
        folder: str | Path,
        split: str,
        features: FeatureSpec,
        encoders: keras.Model,
        inputs: list[str],
        batch_size: int = 64,
    ):
        path = Path(folder) / CACHE_FOLDER / _fingerprint(folder, split, features, encoders, inputs)
        with one_worker_at_a_time(path):
            if not path.is_dir():
                _fill(path, folder, split, features, encoders, inputs, batch_size)
        self._folder, self._split = folder, split
        self.arrays = {name: np.load(path / f"{name}.npy", mmap_mode="r") for name in inputs}
        self.labels, self.weights = (np.load(path / f"{name}.npy", mmap_mode="r") for name in (_LABELS, _WEIGHTS))

    def training_batches(self, batch_size: int, epochs: int, seed: int, start: int = 0, worker: Worker = ALONE) -> Batches:
        """As `make_training_batches`: each epoch in another order, less than a batch of it left out."""
        steps = len(self.labels) // batch_size

        def rows() -> Iterator[np.ndarray]:
            for epoch in range(start // steps, epochs):
                order = np.random.default_rng((seed, epoch)).permutation(len(self.labels))
                seen = start % steps if epoch == start // steps else 0
                yield from order[: steps * batch_size].reshape(steps, batch_size)[seen:, worker.index :: worker.count]

        def ids() -> Iterator[np.ndarray]:
            every = np.array(read_ids(self._folder, self._split), object)
            yield from (every[chosen] for chosen in rows())

        dataset = self._dataset(rows, steps * epochs - start, batch_size // worker.count)
        of_batch = tf.TensorSpec([batch_size // worker.count], tf.string)
        ids_of_batches = tf.data.Dataset.from_generator(ids, output_signature=of_batch)
        return Batches(dataset, steps, steps * batch_size, batch_size, ids_of_batches)

    def evaluation_batches(self, batch_size: int, worker: Worker = ALONE) -> Batches:
        """As `make_evaluation_batches`: each example once, the last batch filled up with weight 0; all others weigh 1."""
        count = len(self.labels)
        steps = -(-count // batch_size)

        def rows() -> Iterator[np.ndarray]:
            every = np.pad(np.arange(count), (0, steps * batch_size - count), constant_values=-1).reshape(steps, -1)
            yield from every[:, worker.index :: worker.count]

        return Batches(self._dataset(rows, steps, batch_size // worker.count, weigh=False), steps, count, batch_size)

    def _dataset(self, rows, steps: int, batch_size: int, weigh: bool = True) -> tf.data.Dataset:
        def batches() -> Iterator[tuple]:
            for chosen in rows():
                weights = self.weights[chosen] if weigh else (chosen >= 0).astype(np.float32)
                yield {name: array[chosen] for name, array in self.arrays.items()}, self.labels[chosen], weights

        def spec(array: np.ndarray) -> tf.TensorSpec:
            return tf.TensorSpec((batch_size, *array.shape[1:]), array.dtype)

        signature = ({name: spec(array) for name, array in self.arrays.items()}, spec(self.labels), spec(self.weights))
        dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
        return dataset.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(tf.data.AUTOTUNE)


def _fill(
    path: Path, folder, split: str, features: FeatureSpec, encoders: keras.Model, inputs: list[str], batch_size: int
) -> None:
    batches = make_evaluation_batches(folder, split, features, batch_size, record_weights=True)
    count = batches.num_examples
    path.parent.mkdir(exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix="unfinished-", dir=path.parent))
    arrays: dict[str, np.ndarray] = {}
    needed = list(encoders.input)
    # `predict` would give each replica of a strategy the whole batch, and wait for workers that wait for this one.
    encode = tf.function(functools.partial(encoders, training=False), autograph=False)
    try:
        with progress_bar(f"encoding {split}", "examples", count) as bar:
            for step, (batch, labels, weights) in enumerate(batches.dataset.as_numpy_iterator()):
                first = step * batch_size
                size = min(batch_size, count - first)
                encoded = encode({name: tf.constant(batch[name]) for name in needed})
                made = batch | {name: value.numpy() for name, value in encoded.items()}
                values = {name: made[name] for name in inputs} | {_LABELS: labels, _WEIGHTS: weights}
                for name, value in values.items():
                    if name not in arrays:
                        arrays[name] = np.lib.format.open_memmap(
                            staging / f"{name}.npy", "w+", value.dtype, (count, *value.shape[1:])
                        )
                    arrays[name][first : first + size] = value[:size]
                bar.update(size)
        for array in arrays.values():
            array.flush()
        staging.chmod(0o755)
        staging.replace(path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _fingerprint(folder, split: str, features: FeatureSpec, encoders: keras.Model, inputs: list[str]) -> str:
    digest = hashlib.sha256()
    shards = [shard.sha256 for shard in DatasetInfo.load(folder).shards(split)]
    architecture = re.sub(r'_\d+"', '"', encoders.to_json())  # Keras numbers the layers that a program has made so far
    for part in (mm_keras.__version__, keras.__version__, split, shards, features, architecture, sorted(inputs)):
        digest.update(repr(part).encode())
    for folder in sorted({text.embedder.path for text in features.texts if text.embedder}):
        for file in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            digest.update(sha256_of(file).encode())
    for weight in encoders.weights:
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()[:24]
