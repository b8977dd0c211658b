import errno
import os
import random
import shutil
import types

import keras
import numpy as np
import pytest

from mm_keras.training import checkpoint
from mm_keras.training.checkpoint import (
    CheckpointError,
    capture,
    check_room,
    checkpoint_path,
    checkpoints,
    load,
    load_latest,
    restore,
    save,
)


@pytest.fixture
def make_model():
    """A function: a compiled and built model that was trained for a step, with a dropout."""

    def make(width=3, dtype="float32"):
        inputs = keras.Input((4,))
        x = keras.layers.Dense(width, dtype=dtype)(inputs)
        model = keras.Model(inputs, keras.layers.Dropout(0.5)(x))
        model.compile(keras.optimizers.Adam(), "mse", weighted_metrics=["mae"], jit_compile=False)
        model.train_on_batch(np.ones((2, 4), "float32"), np.zeros((2, width), "float32"))
        return model

    return make


def _assert_equal(one, other):
    assert list(one) == list(other)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_variables_come_back(tmp_path, make_model, dtype):
    model, other = make_model(dtype=dtype), make_model(dtype=dtype)
    path = checkpoint_path(tmp_path, 7)
    save(path, model, 7, {"best": {"best": float("nan"), "epoch": 1}})
    read = load(path)
    assert read.step == 7
    assert read.callbacks["best"]["epoch"] == 1
    restore(other, read.arrays, ("model", "optimizer", "metrics"))
    _assert_equal(capture(other), capture(model))
    kinds = {name.split("/")[0] for name in read.arrays}
    assert kinds == {"model", "optimizer", "metrics"}
    assert any("seed_generator" in name for name in read.arrays)


def test_every_bit_of_a_checkpoint_counts(tmp_path, make_model):
    path = checkpoint_path(tmp_path, 7)
    save(path, make_model(), 7, {"progress": {"step": 7, "lines": 1}})
    whole, draw = path.read_bytes(), random.Random(5)
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in [draw.randrange(8 * header) for _ in range(60)] + [draw.randrange(8 * len(whole)) for _ in range(30)]:
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=str(path)):
            load(path)
    path.write_bytes(whole)
    assert load(path).step == 7


def test_damaged_checkpoints_without_a_good_one_stop_the_resumption(tmp_path, make_model):
    for step in (1, 2):
        checkpoint_path(tmp_path, step).write_bytes(b"torn")
    told = []
    with pytest.raises(CheckpointError, match=r"step-0000000001.* is no checkpoint: .* there is none before it to go on from"):
        load_latest(tmp_path, told.append)
    assert len(told) == 1
    assert load_latest(tmp_path / "none") is None


def test_checkpoint_of_another_shape_is_refused_and_nothing_is_changed(tmp_path, make_model):
    model = make_model(width=5)
    before = capture(model)
    with pytest.raises(CheckpointError, match=r"model/0/kernel: \[4, 3\] in the checkpoint, \[4, 5\] in the model"):
        restore(model, capture(make_model(width=3)))
    _assert_equal(capture(model), before)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_checkpoint_that_can_not_be_written_leaves_the_one_that_is_there(tmp_path, make_model, monkeypatch, call):
    model, path = make_model(), checkpoint_path(tmp_path, 1)
    save(path, model, 1, {})
    data = path.read_bytes()

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail) if call == "fsync" else monkeypatch.setattr(type(path), "replace", fail)
    with pytest.raises(OSError, match="could not be written: No space left on device") as caught:
        save(path, model, 2, {})
    assert caught.value.filename == str(path)
    assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


def test_latest_checkpoints_are_kept(tmp_path):
    for step in (1, 20, 3, 100):
        checkpoint_path(tmp_path, step).touch()
    checkpoint.prune(tmp_path)
    assert checkpoints(tmp_path) == [checkpoint_path(tmp_path, step) for step in (20, 100)]


def test_disk_without_room_is_an_error_that_tells_how_much_is_needed(tmp_path, make_model, monkeypatch):
    model = make_model(width=250_000)  # 5 MB of weights, 10 of moments
    check_room(tmp_path, model, model)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=30_000_000))
    with pytest.raises(OSError, match=r"checkpoints will take up to 75 MB, and 30 MB are free: make room"):
        check_room(tmp_path, model, model)
    (tmp_path / "step").write_bytes(bytes(46_000_000))  # of a run that is resumed: it is replaced
    check_room(tmp_path, model, model)


def test_folder_that_can_not_be_written_to_is_an_error(tmp_path, make_model):
    model = make_model()
    (tmp_path / "unfinished-.mm-keras-probe").mkdir()  # root may write where no one else may
    with pytest.raises(OSError, match="could not be written: Is a directory") as caught:
        check_room(tmp_path, model, model)
    assert caught.value.filename == str(tmp_path / ".mm-keras-probe")
