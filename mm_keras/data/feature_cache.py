"""Batches of cached encoder outputs, for models whose frozen encoders run only once (see `encode_once`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute
import tensorflow as tf

from mm_keras.data.encode_once import ENCODED, FrozenEncoder, TextPreprocessor, encode_images, encode_texts
from mm_keras.data.pipeline import Batches
from mm_keras.data.record_index import read_index
from mm_keras.data.sampling import SampledRecords
from mm_keras.data.stored_blocks import StoredRows
from mm_keras.data.text_table import TextTable
from mm_keras.distribution.workers import ALONE, Worker
from mm_keras.features import IMAGE, FeatureSpec, present, safe_name
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.dataset.schema import TEXT_PREFIX

CUT = "cut"  # names the output of the frozen part of an encoder that is trained in part
_IN_MEMORY = 2**30  # bytes of an array; larger ones stay on disk
_LABELS, _WEIGHTS = "the labels", "the weights"


class FeatureCache:
    """The inputs of the trained part of a model, for one split. They are computed when the object is made.

    Args:
        split: the split.
        features: what the whole model takes in.
        encoders: the frozen parts by modality, as `split_at_frozen` gives them.
        inputs: names of the inputs of the trained part.

    Attributes:
        labels: labels of the labelled records, in the records' order: int32 [N], or float32 [N, num_labels] (multi-label).
        weights: float32 [N], the weights of these records.
        ids: strings [N], the ids of these records.

    Raises:
        FileNotFoundError: if the dataset was packed by a version that wrote no index.
        OSError: if the cache cannot be written beside the dataset.
    """

    def __init__(
        self,
        split: Split,
        features: FeatureSpec,
        encoders: Mapping[str, keras.Model],
        inputs: Sequence[str],
    ):
        columns = ["id", "weight", "label/ids", "image/height", *(TEXT_PREFIX + text.field for text in features.texts)]
        index, counts = read_index(split, columns)
        self.ids = index["id"].to_numpy()
        self.weights = index["weight"].to_numpy()
        self.labels = _labels(index["label/ids"], features)
        self._texts = {text.key: TextTable(index[TEXT_PREFIX + text.field]) for text in features.texts}
        by_model = {}  # fields may share an encoder
        for modality, model in encoders.items():
            is_states = modality != IMAGE and f"{safe_name(modality)}_{CUT}" in inputs
            by_model[id(model)] = FrozenEncoder(model, "float16" if is_states else "float32")
        frozen = {modality: by_model[id(model)] for modality, model in encoders.items()}
        tables: dict[str, tuple[str, np.ndarray | StoredRows]] = {}  # input -> (its key in `_rows`, its table)
        if features.image:
            tables[present(IMAGE)] = IMAGE, index["image/height"].to_numpy() > 0
        if IMAGE in frozen:
            encoded = encode_images(split, features, frozen[IMAGE], counts)
            tables |= dict.fromkeys((f"{IMAGE}_{ENCODED}", f"{IMAGE}_{CUT}"), (IMAGE, encoded))
        preprocess = TextPreprocessor(features)
        for text in features.texts:
            key, table = text.key, self._texts[text.key]
            tables[present(text.name)] = key, table.present
            for encoder, names in ((frozen.get(text.name), [ENCODED, CUT]), (None, list(text.inputs()))):
                if any(f"{key}_{name}" in inputs for name in names):
                    rows_of = encode_texts(split.dataset, preprocess, text, encoder, table)
                    rows_of |= {CUT: rows_of[ENCODED]} if encoder else {}
                    tables |= {f"{key}_{name}": (key, rows) for name, rows in rows_of.items()}
        self._tables = {name: tables[name] for name in inputs}

    def inputs(self, records: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs of the trained part for some records; if a field has several texts, the first one is taken.

        Args:
            records: int [B], numbers of labelled records.

        Returns:
            name of an input -> [B, …].
        """
        rows = self._rows(records, 0.0)
        return {name: _take(table, rows[key]) for name, (key, table) in self._tables.items()}

    def training_batches(
        self,
        batch_size: int,
        epochs: int,
        seed: int,
        start: int = 0,
        worker: Worker = ALONE,
        sampled: SampledRecords | None = None,
    ) -> Batches:
        """Training batches, as `make_training_batches` makes them.

        Each epoch has an order of its own, leaves out less than one batch, and draws one of several texts anew.

        Args:
            batch_size: global batch size.
            epochs: number of epochs.
            seed: another seed draws another order and other texts.
            start: number of batches, counted from the first epoch on, that a resumed training has seen.
            worker: this worker, which gets its part of every batch.
            sampled: which records each epoch shows; None: every record once.
        """
        steps = len(self.labels) // batch_size

        def chosen() -> Iterator[tuple[np.ndarray, np.random.Generator]]:
            for epoch in range(start // steps, epochs):
                rng = np.random.default_rng((seed, epoch))
                count = steps * batch_size
                order = sampled.epoch(count, seed, epoch) if sampled else rng.permutation(len(self.labels))[:count]
                order = order.reshape(steps, batch_size)
                drawn = rng.random((len(self._texts), *order.shape))
                part = slice(start % steps if epoch == start // steps else 0, None), slice(worker.index, None, worker.count)
                yield order[part], drawn[:, *part]

        def rows() -> Iterator[dict[str, np.ndarray]]:
            yield from (self._rows(records, drawn) for records, drawn in chosen())

        def ids() -> Iterator[np.ndarray]:
            yield from (self.ids[batch] for records, _ in chosen() for batch in records)

        size = batch_size // worker.count
        dataset = self._dataset(rows, steps * epochs - start, size)
        ids_of_batches = tf.data.Dataset.from_generator(ids, output_signature=tf.TensorSpec([size], tf.string))
        return Batches(dataset, steps, steps * batch_size, batch_size, ids_of_batches)

    def evaluation_batches(self, batch_size: int, worker: Worker = ALONE) -> Batches:
        """Evaluation batches, as `make_evaluation_batches` makes them: examples that fill up the last batch have weight 0."""
        count = len(self.labels)
        steps = -(-count // batch_size)

        def rows() -> Iterator[dict[str, np.ndarray]]:
            padded = np.pad(np.arange(count), (0, steps * batch_size - count), constant_values=-1).reshape(steps, -1)
            records = padded[:, worker.index :: worker.count]
            yield self._rows(records, 0.0) | {_WEIGHTS: (records >= 0).astype(np.float32)}

        return Batches(self._dataset(rows, steps, batch_size // worker.count, weigh=False), steps, count, batch_size)

    def _rows(self, records: np.ndarray, drawn: np.ndarray | float) -> dict[str, np.ndarray]:
        """The rows of some records in each table; `drawn` is [fields, *records.shape], or 0 for the first texts."""
        drawn = np.broadcast_to(drawn, (len(self._texts), *records.shape))
        texts = {key: table.rows(records, choice) for (key, table), choice in zip(self._texts.items(), drawn, strict=True)}
        return {IMAGE: records} | texts

    def _dataset(self, rows, steps: int, batch_size: int, weigh: bool = True) -> tf.data.Dataset:
        """Makes batches of what `rows` yields: row numbers [some steps, B] of each table, as `_rows` gives them."""
        tables = self._tables | {_LABELS: (IMAGE, self.labels)} | ({_WEIGHTS: (IMAGE, self.weights)} if weigh else {})
        lookups = {name: (key, _lookup(table)) for name, (key, table) in tables.items()}

        @tf.autograph.experimental.do_not_convert
        def batch(row: dict[str, tf.Tensor]) -> tuple:
            inputs = {name: look_up(row[key]) for name, (key, look_up) in lookups.items()}
            labels, weights = inputs.pop(_LABELS), inputs.pop(_WEIGHTS) if weigh else row[_WEIGHTS]
            return inputs, labels, weights

        signature = dict.fromkeys((IMAGE, *self._texts), tf.TensorSpec([None, batch_size], tf.int64))
        signature |= {} if weigh else {_WEIGHTS: tf.TensorSpec([None, batch_size], tf.float32)}
        dataset = tf.data.Dataset.from_generator(rows, output_signature=signature).flat_map(tf.data.Dataset.from_tensor_slices)
        dataset = dataset.map(batch, num_parallel_calls=2).apply(tf.data.experimental.assert_cardinality(steps)).prefetch(4)
        options = tf.data.Options()
        options.autotune.enabled = False  # there is little to tune, and the tuner's thread takes longer than the batches
        return dataset.with_options(options)


def _lookup(table: np.ndarray | StoredRows):
    """A graph function that maps row numbers [B] to rows [B, …]."""
    if isinstance(table, np.ndarray) or np.prod(table.shape) * table.dtype.itemsize <= _IN_MEMORY:
        with tf.device("CPU"):
            array = tf.constant(_take(table, np.arange(len(table))))
        return lambda rows: tf.gather(array, rows % len(table))

    def look_up(rows: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(table.take, [rows], table.dtype), [*rows.shape, *table.shape[1:]])

    return look_up


def _take(table: np.ndarray | StoredRows, rows: np.ndarray) -> np.ndarray:
    return table[rows] if isinstance(table, np.ndarray) else table.take(rows)


def _labels(column: pa.ChunkedArray, features: FeatureSpec) -> np.ndarray:
    ids = pa.compute.list_flatten(column).to_numpy()
    if not features.multi_label:
        return ids[np.cumsum([0, *pa.compute.list_value_length(column).to_numpy()[:-1]])].astype(np.int32)
    labels = np.zeros((len(column), len(features.labels)), np.float32)
    labels[pa.compute.list_parent_indices(column).to_numpy(), ids] = 1
    return labels
