import json

import keras
import numpy as np
import pytest

from mm_keras.data.pipeline import make_evaluation_batches
from mm_keras.runs.run_folder import RunFolder
from mm_keras.training.precision import LossScale, using_precision
from tfrecords_tools.dataset.folder import Split

# Two replicas; the second one's gradients overflow in the first step alone.
OVERFLOW = """
import mm_keras
import tensorflow as tf
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
import keras
import numpy as np
from mm_keras.training.precision import LossScale, using_precision

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope(), using_precision("mixed_float16"):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype="float32")])
    model.compile(LossScale(keras.optimizers.SGD(0.1), initial_scale=8.0), "mse", jit_compile=False)
before = model.get_weights()
inputs, targets, weights = np.ones((8, 3), "float32"), np.full((8, 2), 9, "float32"), np.ones(8, "float32")
weights[3] = 1e38
batches = tf.data.Dataset.from_tensor_slices((inputs, targets, weights)).batch(4)
model.fit(batches.take(1), verbose=0)
scale = float(model.optimizer.dynamic_scale.numpy())
assert all(np.array_equal(*pair) for pair in zip(before, model.get_weights())), "the step was not skipped"
model.fit(batches.skip(1), verbose=0)
assert all(np.isfinite(weight).all() for weight in model.get_weights())
assert not np.array_equal(before[0], model.get_weights()[0]), "the next step was skipped, too"
print(scale)
"""


@pytest.mark.parametrize(
    ("precision", "frozen"),
    [
        ("mixed_bfloat16", False),
        pytest.param("mixed_float16", True, marks=pytest.mark.ci),
        pytest.param("mixed_bfloat16", True, marks=pytest.mark.slow),
        pytest.param("mixed_float16", False, marks=pytest.mark.slow),
    ],
)
def test_training_in_16_bits_is_finite_and_can_be_reloaded(
    tmp_path, dataset, features, train_small, build_small_model, precision, frozen
):
    def build(features):
        model = build_small_model(features)
        if frozen:
            model.get_layer("image_tower").trainable = model.get_layer("text_encoder").trainable = False
        return model

    modalities = ("image", "title")
    epochs = 4 if precision == "mixed_float16" and not frozen else 2  # of whose first updates a scaled loss leaves some out
    model = train_small(dataset, tmp_path / "run", build_model=build, precision=precision, epochs=epochs, modalities=modalities)
    assert keras.config.dtype_policy().name == "float32"
    assert model.get_layer("image_tower").get_layer("conv_0").compute_dtype == precision.removeprefix("mixed_")
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    loaded, features = RunFolder(tmp_path / "run").load_model()
    inputs = next(iter(make_evaluation_batches(Split.open(dataset, "test"), features, 16).dataset))[0]
    logits = np.asarray(loaded(inputs))
    assert (logits.dtype, np.isfinite(logits).all()) == (np.float32, True)
    np.testing.assert_allclose(logits, model(inputs), atol=1e-2)


def test_step_whose_gradients_overflow_is_skipped_and_halves_the_loss_scale():
    with using_precision("mixed_float16"):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype="float32")])
        model.compile(LossScale(keras.optimizers.SGD(0.1), initial_scale=8.0), "mse", jit_compile=False)
    before = model.get_weights()
    inputs, targets = np.ones((4, 3), "float32"), np.full((4, 2), 9, "float32")
    model.train_on_batch(inputs, targets, np.float32([1, 1, 1, 1e38]))
    assert float(model.optimizer.dynamic_scale.numpy()) == 4.0
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    model.train_on_batch(inputs, targets)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert not np.array_equal(model.get_weights()[0], before[0])


@pytest.mark.slow
def test_gradients_that_overflow_on_one_replica_make_all_skip_the_step(run_python):
    assert float(run_python(OVERFLOW).splitlines()[-1]) == 4.0


def test_loss_scale_is_saved_with_its_optimizer():
    scaled = LossScale(keras.optimizers.Adam(0.5), initial_scale=4.0)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(scaled))
    assert (type(again), again.initial_scale, float(again.inner_optimizer.learning_rate)) == (LossScale, 4.0, 0.5)


def test_unknown_precision_is_an_error():
    rule = r"precision is one of float32, mixed_bfloat16, mixed_float16\. Received: 'float64'"
    with pytest.raises(ValueError, match=rule), using_precision("float64"):
        pass
