"""Finds the shard that is to blame where records could not be read, or fewer of them came than dataset.json promises.

TensorFlow's errors name neither shard nor record. So a pipeline only counts records, which costs nothing, and the shards are
looked through once something is wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.dataset.shards import CorruptShardError, iter_records


@contextlib.contextmanager
def naming_damage(*splits: Split | None) -> Iterator[None]:
    """Turns TensorFlow's error about records into one that names the shard and the record.

    Args:
        *splits: the splits that are read within the `with` block.

    Raises:
        CorruptShardError: if one of the splits has a damaged shard. Other errors stay what they are.
    """
    try:
        yield
    except tf.errors.OpError as error:
        for split in filter(None, splits):
            _look_through(split, error)
        raise


def promised(records: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """The same records; fewer or more than `count` of them are an error, whose cause `naming_damage` finds."""
    return records.apply(tf.data.experimental.assert_cardinality(count))


def _look_through(split: Split, error: tf.errors.OpError) -> None:
    split.check_files()
    for shard, path in zip(split.shards, split.files, strict=True):
        try:
            for _ in iter_records(path, shard.num_examples):
                pass
        except CorruptShardError as damage:
            raise CorruptShardError(f"{damage}. {split.how_to_mend()}") from error
