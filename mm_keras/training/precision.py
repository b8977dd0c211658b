"""Mixed precision: layers compute in 16 bits, while weights and their updates are kept in 32 bits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf
from keras import ops

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@contextlib.contextmanager
def using_precision(precision: str) -> Iterator[None]:
    """Sets the dtype policy of all layers that are made inside the `with` block.

    Args:
        precision: one of `PRECISIONS`.

    Raises:
        ValueError: for another name.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is one of {', '.join(PRECISIONS)}. Received: {precision!r}")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@keras.saving.register_keras_serializable(package="mm_keras")
class LossScale(keras.optimizers.LossScaleOptimizer):
    """Keras' loss scaling, in which all replicas skip a step together if a gradient is not finite on one of them.

    In Keras every replica decides for itself by its gradients. Replicas that apply theirs would then wait for ever for those
    that skip the step.
    """

    def check_finite(self, grads):
        finite = super().check_finite(grads)
        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return finite
        return ops.equal(replica.all_reduce("SUM", ops.cast(ops.logical_not(finite), "float32")), 0.0)
