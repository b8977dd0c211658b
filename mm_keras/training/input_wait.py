"""Measures how long a training waits for its batches."""

from __future__ import annotations

import tensorflow as tf


class InputWait:
    """Measures how long the steps wait for their batches, on one replica.

    `fit` asks for a batch inside of its compiled step, which Python cannot observe. So the clock is read in the input pipeline,
    after its last prefetching. That costs about 0.1 ms a batch.
    """

    def __init__(self):
        self._seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    @property
    def seconds(self) -> float:
        """The time waited since this object was made."""
        return float(self._seconds)

    def watched(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Gives the same batches, and counts the time until each of them is there."""

        def count(asked_at: tf.Tensor, batch):
            self._seconds.assign_add(tf.timestamp() - asked_at)
            return batch

        clock = tf.data.Dataset.from_tensors(0).repeat().map(lambda _: tf.timestamp())  # zip asks the clock before the batches
        options = tf.data.Options()
        options.autotune.enabled = False
        options.experimental_optimization.inject_prefetch = False  # a prefetch would wait in the step's place
        return tf.data.Dataset.zip((clock, dataset)).map(count).with_options(options)
