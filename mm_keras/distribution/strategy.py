"""Distribution strategies by name, and what `fit` needs for several replicas."""

from __future__ import annotations

import functools
import os

import keras
import tensorflow as tf

from mm_keras.distribution import multi_worker
from mm_keras.distribution.workers import ALONE, check_strategy, worker_of_environment
from mm_keras.keras_internals import all_layers, build_from_shapes, skip_build_in_fit


def make_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """Makes a strategy; models are built and compiled inside its scope.

    Several replicas train what one does at the same global batch, but for what each does on its share of the batch: dropout,
    mixing of examples, and clipping of gradients, which Keras does before it adds them up.

    Args:
        name: "none": one device. "mirrored": a replica on each GPU, or on each logical CPU where there is no GPU.
            "multi_worker": the workers of TF_CONFIG, on each a replica on each GPU, or one on the CPU; a process has to ask for
            it before it does anything else with TensorFlow. "tpu": all cores of the TPU that TPU_NAME names, or of this
            machine; "tpu:<name>": of that one. "auto": multi_worker if TF_CONFIG names several workers, tpu if TPU_NAME is
            set or a TPU is in this machine, mirrored on several GPUs, else none.

    Raises:
        ValueError: for another name, or where the workers or the TPU are not to be found.
    """
    kind, _, tpu = check_strategy(name).partition(":")
    if kind == "auto":
        kind = _best_kind()
    if kind != "multi_worker" and multi_worker.this_worker() != ALONE:
        raise ValueError(f"this process has joined other workers: its strategy is multi_worker. Received: {name!r}")
    if kind == "none":
        return tf.distribute.get_strategy()
    if kind == "multi_worker":
        return multi_worker.start()
    if kind == "tpu":
        return _make_tpu_strategy(tpu or os.environ.get("TPU_NAME") or "local")
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return _make_mirrored_strategy(tuple(device.name for device in devices))


def build_for_replicas(model: keras.Model, dataset: tf.data.Dataset) -> None:
    """Builds what `fit` would build, so that it does not look at a batch for that.

    On several replicas `fit` (Keras 3.15) averages the first batch over them to learn its shapes, and fails on flags: a bool
    has no average. Batch normalisations that are trained look at the batch of all replicas together from here on.

    Args:
        model: compiled in the strategy's scope.
        dataset: of batches (features, labels, weights); their shapes alone are looked at.
    """
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        return
    for layer in all_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
    with strategy.scope():
        build_from_shapes(model, dataset.element_spec)
    skip_build_in_fit(model)
    if multi_worker.this_worker() != ALONE:
        multi_worker.prepare(model)


def _best_kind() -> str:
    if worker_of_environment() != ALONE:
        return "multi_worker"
    if os.environ.get("TPU_NAME") or tf.config.list_physical_devices("TPU"):
        return "tpu"
    return "mirrored" if len(tf.config.list_logical_devices("GPU")) > 1 else "none"


@functools.cache  # a second one in the same process would number its reductions as the first did, and be taken for it
def _make_mirrored_strategy(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(devices)


@functools.cache
def _make_tpu_strategy(name: str) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        raise ValueError(
            f"TPU {name!r} is not to be reached: {str(error).splitlines()[0]}; name one in TPU_NAME, or as strategy='tpu:…'"
        ) from error
