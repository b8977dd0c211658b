"""Mixed precision: layers compute in 16 bits, weights and their updates stay in 32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf
from keras import ops

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@contextlib.contextmanager
def using_precision(precision: str) -> Iterator[None]:
    """Inside of its block, new layers have this dtype policy.

    Raises:
        ValueError: for a name that is not one of `PRECISIONS`.
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
    """Keras' loss scaling; a gradient that is not finite on one replica makes all of them skip the step.

    In Keras each replica decides by its own gradients, and those that go on wait for ever for those that do not.
    """

    def check_finite(self, grads):
        finite = super().check_finite(grads)
        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return finite
        return ops.equal(replica.all_reduce("SUM", ops.cast(ops.logical_not(finite), "float32")), 0.0)
