import json

import numpy as np
import pytest
import tensorflow as tf

from mm_keras.distribute import make_strategy

# Trains on one and on two replicas with the same global batch. Without batch normalisation, dropout and clipping, which each
# replica does on its own share, the two must agree but for the order of additions.
TRAIN = """
import functools, sys
import mm_keras
import tensorflow as tf
dataset, folder = sys.argv[1:]
two = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [two, two])
import keras
import numpy as np
from mm_keras.data.make_features import make_features
from mm_keras.model.head import build_head
from mm_keras.model.text_encoder import build_small_text_encoder
from mm_keras.model.tuning_dnn import build_tuning_dnn
from mm_keras.model.two_tower import build_two_tower
from mm_keras.optimizer import make_optimizer
from mm_keras.train import train

def image_tower(spec):
    pixels = keras.Input((*spec.size, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(x)
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x), name="image_tower")

for strategy in ("none", "mirrored"):
    model = train(
        dataset,
        f"{folder}/{strategy}",
        make_features=functools.partial(make_features, image_size=(16, 16), text_fields=("title",), max_tokens=8),
        build_model=functools.partial(
            build_two_tower,
            image_tower=image_tower,
            text_encoder=functools.partial(build_small_text_encoder, width=6),
            tuning_dnn=functools.partial(build_tuning_dnn, units=(6,), dropout=0),
            head=functools.partial(build_head, dropout=0),
            modality_dropout=0,
        ),
        make_optimizer=functools.partial(
            make_optimizer, learning_rate=1e-2, clip_norm=None,
            average=0.5, layer_rates={"image_tower": 0.5}, unfreeze_at={"text_encoder": 0.3},
        ),
        epochs=2, batch_size=32, augment=False, val_split=None, strategy=strategy,
    )
    np.savez(f"{folder}/{strategy}/weights.npz", *[np.array(weight) for weight in model.weights])

with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    try:
        make_optimizer(10, accumulate=2)
    except ValueError as error:
        print(error)
"""


def test_names_give_strategies():
    assert make_strategy("none").num_replicas_in_sync == 1
    assert isinstance(make_strategy("mirrored"), tf.distribute.MirroredStrategy)
    assert make_strategy("auto").num_replicas_in_sync == max(1, len(tf.config.list_logical_devices("GPU")))


def test_unknown_name_is_an_error():
    with pytest.raises(ValueError, match=r"one of auto, none, mirrored\. Received: 'tpu'"):
        make_strategy("tpu")


def test_two_replicas_train_what_one_does(tmp_path, dataset, run_python):
    """Within 1e-4 of each loss and 1e-3 of each weight: Adam's first steps are the signs of gradients near zero."""
    losses, weights = {}, {}
    printed = run_python(TRAIN, dataset, tmp_path)
    assert "Received: accumulate=2 on 2 replicas; set train.strategy = 'none'" in printed
    for strategy, replicas in (("none", 1), ("mirrored", 2)):
        workdir = tmp_path / strategy
        assert json.loads((workdir / "run.json").read_text())["replicas"] == replicas
        losses[strategy] = [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        with np.load(workdir / "weights.npz") as file:
            weights[strategy] = [file[name] for name in file.files]
    assert len(losses["none"]) == 2
    np.testing.assert_allclose(losses["mirrored"], losses["none"], rtol=1e-4)
    for mirrored, single in zip(weights["mirrored"], weights["none"], strict=True):
        assert np.isfinite(mirrored).all()
        np.testing.assert_allclose(mirrored, single, atol=1e-3)
