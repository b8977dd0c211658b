"""How long a training waits for its next batch."""

from __future__ import annotations

import tensorflow as tf


class InputWait:
    """Measures what the steps wait for their batches, on one replica.

    `fit` asks for a batch inside of its compiled step, where Python sees nothing of it; so the clock stands in the pipeline,
    behind its last prefetching. It costs about 0.1 ms a batch.
    """

    def __init__(self):
        self._seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    @property
    def seconds(self) -> float:
        """Since this object was made."""
        return float(self._seconds)

    def watched(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """The same batches; what it takes to get them is counted."""

        def count(asked: tf.Tensor, batch):
            self._seconds.assign_add(tf.timestamp() - asked)
            return batch

        clock = tf.data.Dataset.from_tensors(0).repeat().map(lambda _: tf.timestamp())  # zip asks it first
        options = tf.data.Options()
        options.autotune.enabled = False
        options.experimental_optimization.inject_prefetch = False  # it would wait in the step's place
        return tf.data.Dataset.zip((clock, dataset)).map(count).with_options(options)
