"""Distribution strategies by name."""

from __future__ import annotations

import tensorflow as tf

STRATEGIES = ("auto", "none", "mirrored")


def make_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """Makes a strategy; models are built and compiled inside its scope.

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
