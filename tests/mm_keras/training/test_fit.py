import functools
import inspect
import json

import numpy as np
import pytest

from mm_keras.training.build import build
from mm_keras.training.fit import best_epoch_file, fit, make_uncached_batches
from mm_keras.training.prepare import prepare
from mm_keras.training.request import Request
from mm_keras.training.train import train

DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(train).parameters.items()}


@pytest.fixture
def make_training(tmp_path, dataset, make_small_features, build_small_model):
    """A function: options of `train` -> (Prepared, Built) of a training on titles."""

    def make(**options):
        features = functools.partial(make_small_features, image_size=None, text_fields=("title",), max_tokens=8)
        given = {"dataset": dataset, "workdir": tmp_path / "run", "make_features": features, "build_model": build_small_model}
        prepared = prepare(Request(**DEFAULTS | given | {"augment": False, "epochs": 2, "batch_size": 32} | options))
        prepared.run.checkpoints.mkdir(parents=True, exist_ok=True)
        return prepared, build(prepared)

    return make


def _lines(prepared):
    return [json.loads(line) for line in prepared.run.metrics.read_text().splitlines()]


def test_every_epoch_is_measured_and_the_best_is_saved(make_training):
    prepared, built = make_training()
    before = [np.array(weight) for weight in built.model.trainable_weights]
    fit(prepared, built, {}, None)
    lines = _lines(prepared)
    assert [line["epoch"] for line in lines] == [1, 2]
    assert {"loss", "val_top_1"} <= set(lines[0])
    assert best_epoch_file(prepared, built) == prepared.run.best
    assert prepared.run.best.is_file()
    assert any(not np.array_equal(*pair) for pair in zip(built.model.trainable_weights, before, strict=True))


@pytest.mark.slow  # test_train.py shows it by a whole training, too
def test_without_a_validation_split_no_epoch_is_the_best(make_training):
    prepared, built = make_training(val_split=None, epochs=1)
    fit(prepared, built, {}, None)
    assert not best_epoch_file(prepared, built).exists()
    assert not any(name.startswith("val_") for name in _lines(prepared)[0])


@pytest.mark.slow  # test_resume.py shows it by a training that is resumed, too
def test_training_stops_after_the_patience(make_training, monkeypatch):
    from mm_keras.training.optimizer import make_optimizer

    still = functools.partial(make_optimizer, learning_rate=1e-12, weight_decay=0.0)  # no epoch is better than the first
    prepared, built = make_training(epochs=9, patience=2, make_optimizer=still)
    fit(prepared, built, {}, None)
    assert [line["epoch"] for line in _lines(prepared)] == [1, 2, 3]


def test_batches_begin_at_any_step(make_training):
    prepared, _ = make_training()
    make_batches = make_uncached_batches(prepared)
    whole = [labels.numpy() for _, labels, _ in make_batches().dataset]
    rest = [labels.numpy() for _, labels, _ in make_batches(start=3).dataset]
    assert len(rest) == len(whole) - 3
    for labels, expected in zip(rest, whole[3:], strict=True):
        np.testing.assert_array_equal(labels, expected)
