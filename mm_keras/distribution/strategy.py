"""Distribution strategies by name, and the preparation of a model for `fit` on several replicas."""

from __future__ import annotations

import functools
import os

import keras
import tensorflow as tf

from mm_keras.distribution import multi_worker
from mm_keras.distribution.workers import ALONE, check_strategy, worker_of_environment
from mm_keras.keras_internals import all_layers, build_from_shapes, skip_build_in_fit


def make_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """Makes a strategy. A model is built and compiled inside the strategy's scope.

    With the same global batch, several replicas train what one replica trains, except that each draws the dropout and mixes the
    examples of its part of the batch. Gradients are added up before they are clipped (with optimizers of `make_optimizer`).

    Args:
        name: "none" uses one device. "mirrored" has a replica on each GPU, or on each logical CPU of a machine without GPUs.
            "multi_worker" joins the workers of TF_CONFIG, each of which has a replica on each GPU, or one on the CPU; a process
            has to ask for it before it does anything else with TensorFlow. "tpu" uses all cores of the TPU that TPU_NAME names,
            or of this machine, and "tpu:<name>" those of the TPU with that name. "auto" is multi_worker if TF_CONFIG names
            several workers, tpu if TPU_NAME is set or the machine has a TPU, mirrored if it has several GPUs, and else none.

    Raises:
        ValueError: for another name, or if the TPU cannot be reached or TF_CONFIG names no other worker.
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
        return make_tpu_strategy(tpu or os.environ.get("TPU_NAME") or "local")
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return _make_mirrored_strategy(tuple(device.name for device in devices))


def build_for_replicas(model: keras.Model, dataset: tf.data.Dataset) -> None:
    """Makes the variables that `fit` would make from its first batch, from the shapes of the batches alone.

    On several replicas, `fit` of Keras 3.15 averages the first batch over them to learn its shapes, which fails for flags: a
    bool has no average. From here on, batch normalisations compute their statistics over the batches of all replicas together.
    On one replica nothing is done.

    Args:
        model: a model that was compiled in the strategy's scope.
        dataset: batches (features, labels, weights), of which only the shapes and dtypes are used.
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


@functools.cache  # two such strategies in one process number their reductions alike, and TensorFlow confuses them
def _make_mirrored_strategy(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(devices)


@functools.cache
def make_tpu_strategy(name: str) -> tf.distribute.Strategy:
    """Connects to the TPU of that name, or to that of this machine for "local"; see `make_strategy`."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        raise ValueError(
            f"TPU {name!r} cannot be reached: {str(error).splitlines()[0]}; name one in TPU_NAME, or as strategy='tpu:…'"
        ) from error
