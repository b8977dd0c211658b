"""Distribution strategies by name."""

from __future__ import annotations

import keras
import tensorflow as tf

STRATEGIES = ("auto", "none", "mirrored")


def make_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """Makes a strategy; models are built and compiled inside its scope.

    Several replicas train what one does at the same global batch, but for what each does on its share of the batch: batch
    normalisation, dropout, and clipping of gradients, which Keras does before it adds them up.

    Args:
        name: "none": one device. "mirrored": a replica on each GPU, or on each logical CPU where there is no GPU. "auto":
            mirrored on several GPUs, else none.

    Raises:
        ValueError: for another name.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy is one of {', '.join(STRATEGIES)}. Received: {name!r}")
    if name == "none" or (name == "auto" and len(tf.config.list_logical_devices("GPU")) < 2):
        return tf.distribute.get_strategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def build_for_replicas(model: keras.Model, dataset: tf.data.Dataset) -> None:
    """Builds what `fit` would build, so that it does not look at a batch for that.

    On several replicas `fit` (Keras 3.15) averages the first batch over them to learn its shapes, and fails on flags: a bool
    has no average.

    Args:
        model: compiled in the strategy's scope.
        dataset: of batches (features, labels, weights); read only where there are several replicas.
    """
    if model.distribute_strategy.num_replicas_in_sync > 1:
        with model.distribute_strategy.scope():
            model._symbolic_build(data_batch=next(iter(dataset)))
        model._maybe_symbolic_build = lambda **_: None
