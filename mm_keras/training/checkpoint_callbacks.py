"""Callbacks that save checkpoints, and the best epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

import keras
from absl import logging

from mm_keras.distribution.multi_worker import any_worker
from mm_keras.distribution.preemption import asked_to_end, end_if_interrupted, preempted
from mm_keras.training.checkpoint import Checkpoint, capture, checkpoint_path, checkpoints, prune, restore, save
from mm_keras.training.nan_report import GoodState, check_loss, check_weights
from tfrecords_tools.dataset.atomic_file import atomic_file

_MOST_OF_THE_TIME = 0.05  # the fraction of the time that saving at the ends of short epochs may take
_BEFORE_VALIDATION = 60  # seconds: so much unsaved work is saved before a validation, during which nothing can be saved


class SaveCheckpoints(keras.callbacks.Callback):
    """Saves a checkpoint at the end of every epoch, every few minutes, and when the process is asked to end.

    If epochs are short, some are skipped, so that saving takes at most a twentieth of the time. This callback has to be the
    last one, so that the checkpoint contains what the others did. It raises NotFiniteError instead of saving NaNs.

    Args:
        folder: the folder of the checkpoints.
        steps: number of steps in an epoch.
        minutes: minutes between two checkpoints within an epoch.
        callbacks: the callbacks that have a state, by name. They have a method `state() -> JSON object`.
        checkpoint: the checkpoint from which the training is resumed.

    Attributes:
        step: number of steps made, counted from the first epoch on.
        seconds: time that saving took.
        good: the last state that is known to be finite.
    """

    def __init__(
        self,
        folder: Path,
        steps: int,
        minutes: float,
        callbacks: Mapping[str, keras.callbacks.Callback],
        checkpoint: Checkpoint | None = None,
    ):
        super().__init__()
        self.step = checkpoint.step if checkpoint else 0
        self.good: GoodState | None = None
        self._checkpoint = checkpoint
        self.seconds = 0.0
        self._folder = folder
        self._steps = steps
        self._minutes = minutes
        self._callbacks = callbacks
        self._last_took = 0.0
        self._saved = time.monotonic()

    def on_train_begin(self, logs=None):
        if self.good is None:
            self.good = GoodState(self.model, self.step)
            if self._checkpoint:
                self.good.saved(self._checkpoint.path, self.step)

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        end_if_interrupted()
        check_loss(logs)
        in_epoch = self.step % self._steps
        if not in_epoch:
            return  # `on_epoch_end` saves it, after the validation
        since = time.monotonic() - self._saved
        due = since >= 60 * self._minutes or (in_epoch == self._steps - 1 and since >= _BEFORE_VALIDATION)
        self._save_or_stop(due)

    def on_test_batch_end(self, batch, logs=None):
        end_if_interrupted()
        if any(any_worker(asked_to_end())):
            self._stop()

    def on_epoch_end(self, epoch, logs=None):
        self._save_or_stop(time.monotonic() - self._saved >= min(60 * self._minutes, self._last_took / _MOST_OF_THE_TIME))

    def _save_or_stop(self, due: bool) -> None:
        stop, save = any_worker(asked_to_end(), due)
        if stop or save:
            self._save()
        if stop:
            self._stop()

    def _save(self) -> None:
        began = time.monotonic()
        check_weights(self.model)
        states = {name: callback.state() for name, callback in self._callbacks.items()}
        path = checkpoint_path(self._folder, self.step)
        save(path, self.model, self.step, states)
        self.good.saved(path, self.step)
        prune(self._folder)
        self._saved = time.monotonic()
        self._last_took = self._saved - began
        self.seconds += self._last_took

    def _stop(self) -> None:
        saved = checkpoints(self._folder)
        where = f"its last checkpoint is {saved[-1]}" if saved else "before there was a checkpoint"
        raise preempted(
            f"the training was asked to end (SIGTERM) after step {self.step}; {where}. Run the same command again with "
            "--resume to go on"
        )


class KeepBest(keras.callbacks.Callback):
    """Saves the model after each epoch that is better than all epochs before.

    Args:
        path: a `.keras` file for the whole model, or a `.weights.h5` file for its weights.
        monitor: name of a value in the epoch's logs; higher is better.
        patience: number of epochs in a row without a better one, after which the training stops; None: it never stops.
    """

    def __init__(self, path: Path, monitor: str, patience: int | None = None):
        super().__init__()
        self._path = path
        self._monitor = monitor
        self._patience = patience
        self._best = math.nan
        self._best_epoch = self._epoch = -1

    @property
    def exhausted(self) -> bool:
        """Whether the training has gone on without a better epoch for as long as the patience allows."""
        return self._patience is not None and self._epoch - self._best_epoch >= self._patience

    def on_epoch_end(self, epoch, logs=None):
        value = float(logs[self._monitor])
        self._epoch = epoch
        if math.isnan(self._best) or value > self._best:
            check_weights(self.model)
            with atomic_file(self._path) as temporary:
                if self._path.suffix == ".keras":
                    self.model.save(temporary)
                else:
                    self.model.save_weights(temporary)
            self._best, self._best_epoch = value, epoch
        if self.exhausted:
            logging.info(
                f"{self._monitor} was best in epoch {self._best_epoch + 1}, and no better in {self._patience} since: stopping"
            )
            self.model.stop_training = True

    def state(self) -> dict:
        return {"best": self._best, "best_epoch": self._best_epoch, "epoch": self._epoch}

    def set_state(self, state: Mapping) -> None:
        self._best, self._best_epoch, self._epoch = state["best"], state["best_epoch"], state["epoch"]


class PutBack(keras.callbacks.Callback):
    """Undoes what `fit` changes at its begin and its end, for a training that is resumed within an epoch.

    At its begin, `fit` resets the metrics; at its end, it may replace the weights by their averages.

    Args:
        arrays: the variables of the checkpoint from which the training is resumed.

    Attributes:
        at_end: all variables at the end of the resumed epoch.
    """

    def __init__(self, arrays: Mapping):
        super().__init__()
        self._arrays = arrays
        self.at_end: dict | None = None

    def on_epoch_begin(self, epoch, logs=None):
        restore(self.model, self._arrays, ("metrics",))

    def on_epoch_end(self, epoch, logs=None):
        self.at_end = capture(self.model)
