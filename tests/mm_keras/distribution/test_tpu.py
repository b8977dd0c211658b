"""No TPU was ever touched by these tests: what one asks of a program is checked with XLA on the CPU."""

import numpy as np
import pytest
import tensorflow as tf

from mm_keras.data.augment import make_augmentation
from mm_keras.data.pipeline import make_evaluation_batches, make_training_batches
from mm_keras.distribution import strategy
from mm_keras.distribution.strategy import make_strategy
from mm_keras.objectives.losses import make_loss
from mm_keras.objectives.metrics import make_metrics
from mm_keras.training.optimizer import make_optimizer
from mm_keras.training.precision import using_precision
from tfrecords_tools.dataset.folder import Split

AUGMENTATION = make_augmentation(mixup=0.4, cutmix=1.0, rand_augment=1, color_jitter=0.3, token_dropout=0.1)


@pytest.mark.parametrize(
    ("multi_label", "precision"),
    [
        pytest.param(False, "float32", marks=pytest.mark.slow),
        pytest.param(True, "mixed_bfloat16", marks=pytest.mark.ci),
    ],
)
def test_steps_on_packed_records_compile_with_xla(request, build_small_model, multi_label, precision):
    """Static shapes, no strings, nothing that only a host can do; dropout, augmentation, metrics and optimizer included."""
    dataset, features = (
        request.getfixturevalue(f"multi_label_{name}" if multi_label else name) for name in ("dataset", "features")
    )
    features = features.only(["image", "title"])
    training = make_training_batches(Split.open(dataset, "train"), features, 16, 1, augment=AUGMENTATION)
    validation = make_evaluation_batches(Split.open(dataset, "val"), features, 16)
    for spec in tf.nest.flatten([training.dataset.element_spec, validation.dataset.element_spec]):
        assert spec.shape.is_fully_defined()
        assert spec.dtype != tf.string
    with using_precision(precision):
        model = build_small_model(features)
        model.compile(
            make_optimizer(training.steps, model, average=0.9),
            make_loss(multi_label),
            weighted_metrics=make_metrics(multi_label, len(features.labels)),
            jit_compile=True,
        )
    before = [np.array(weight) for weight in model.trainable_weights]
    history = model.fit(training.dataset.take(2), validation_data=validation.dataset, shuffle=False, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())
    changed = [not np.array_equal(*pair) for pair in zip(model.trainable_weights, before, strict=True)]
    assert np.mean(changed) > 0.9  # no example of two batches needs each missing embedding


@pytest.fixture
def fake_tpu(monkeypatch):
    """What was done to which TPU."""
    calls = []
    resolver = tf.distribute.cluster_resolver
    monkeypatch.setattr(resolver, "TPUClusterResolver", lambda tpu: f"resolver of {tpu}")
    monkeypatch.setattr(tf.config, "experimental_connect_to_cluster", lambda resolver: calls.append(f"connect {resolver}"))
    monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", lambda resolver: calls.append(f"initialize {resolver}"))
    monkeypatch.setattr(tf.distribute, "TPUStrategy", lambda resolver: f"strategy of {resolver}")
    monkeypatch.delenv("TPU_NAME", raising=False)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    strategy.make_tpu_strategy.cache_clear()
    yield calls
    strategy.make_tpu_strategy.cache_clear()


def test_tpu_is_that_of_the_argument_the_environment_or_the_machine(fake_tpu, monkeypatch):
    assert make_strategy("tpu:first") == "strategy of resolver of first"
    assert make_strategy("tpu") == "strategy of resolver of local"
    assert fake_tpu == [
        "connect resolver of first",
        "initialize resolver of first",
        "initialize resolver of local",
    ]
    monkeypatch.setenv("TPU_NAME", "second")
    assert make_strategy("auto") == make_strategy("tpu") == "strategy of resolver of second"
    assert make_strategy("none").num_replicas_in_sync == 1


def test_tpu_that_is_not_there_is_an_error_that_says_how_to_name_one(monkeypatch):
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(ValueError, match=r"TPU 'local' cannot be reached: .*; name one in TPU_NAME, or as strategy="):
        make_strategy("tpu")
