import json
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from mm_keras.training.input_wait import InputWait
from mm_keras.training.progress import Progress


class _Slow(keras.callbacks.Callback):
    def __init__(self, step, saving):
        super().__init__()
        self._step, self._saving = step, saving

    def on_train_batch_begin(self, batch, logs=None):
        time.sleep(self._step)

    def on_epoch_end(self, epoch, logs=None):
        time.sleep(self._saving)


@pytest.fixture
def fit(tmp_path):
    """A function: (seconds of a step, of making a batch, of saving) -> the Progress of two epochs of ten steps."""

    def run(step=0.0, batch=0.0, saving=0.0):
        def make(_):
            time.sleep(batch)
            return np.ones((4, 2), np.float32)

        made = tf.data.Dataset.range(20).map(
            lambda index: tf.ensure_shape(tf.numpy_function(make, [index], tf.float32), [4, 2])
        )
        dataset = made.map(lambda x: (x, tf.ones(4), tf.ones(4))).prefetch(2)
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
        wait = InputWait()
        progress = Progress(tmp_path / "metrics.jsonl", 2, 10, 4, lambda: wait.seconds)
        callbacks = [progress, _Slow(step, saving)]
        model.fit(wait.watched(dataset), epochs=2, steps_per_epoch=10, callbacks=callbacks, shuffle=False, verbose=0)
        return progress

    return run


def _lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]


def test_steps_that_wait_for_slow_input_are_told_from_slow_steps(fit, tmp_path):
    progress = fit(batch=0.05)
    seconds = progress.seconds()
    assert 0.5 * 19 * 0.05 < seconds["input_wait"] < seconds["steps"]
    assert _lines(tmp_path)[1]["input_wait"] > 0.5
    assert "% waiting for input" in progress.summary()


def test_input_that_is_made_in_the_meantime_is_not_waited_for(fit, tmp_path):
    fit(step=0.05, batch=0.005)
    assert _lines(tmp_path)[1]["input_wait"] < 0.2


def test_saving_is_neither_training_nor_input(fit):
    seconds = fit(saving=0.3).seconds()
    assert seconds["total"] - seconds["steps"] - seconds["first_step"] > 0.6


def test_resumed_progress_takes_out_lines_that_come_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"epoch": epoch}) + "\n" for epoch in (1, 2, 3)) + '{"epoch": 4, "lo')
    state = {
        "step": 25,
        "lines": 2,
        "seconds": {"total": 9.0, "first_step": 2.0, "steps": 5.0, "input_wait": 1.0, "evaluation": 1.0},
    }
    progress = Progress(path, 4, 10, 4)
    progress.set_state(state)
    assert [line["epoch"] for line in _lines(tmp_path)] == [1, 2]
    assert progress.state() == state
    assert progress.summary() == (
        "trained in 0:09: 56 % steps, 22 % the first step and its compilation, 11 % evaluation, 11 % saving and the rest"
    )
