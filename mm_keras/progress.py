"""What one sees of a training: a bar with rate and ETA, a line an epoch, and metrics.jsonl."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

import keras
from tqdm import tqdm


class Progress(keras.callbacks.Callback):
    """Shows progress and appends one JSON object an epoch to a file.

    `loss` and metrics without prefix are of the training batches, `val_…` of the validation split, `examples_per_second`
    of training alone (validation time not counted).

    Args:
        path: metrics.jsonl.
        examples_per_epoch: in training.
        batch_size: global batch size.
    """

    def __init__(self, path: Path, examples_per_epoch: int, batch_size: int):
        super().__init__()
        self._path = path
        self._examples = examples_per_epoch
        self._batch_size = batch_size

    def on_train_begin(self, logs=None):
        self._epochs = self.params["epochs"]
        self._bar = tqdm(
            total=self._examples * self._epochs,
            unit=" examples",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
            smoothing=0.05,
        )
        self._started = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self._bar.set_description(f"epoch {epoch + 1}/{self._epochs}")
        self._epoch_started = self._trained = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        self._bar.update(self._batch_size)
        self._trained = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        # Keras averages val_loss over batches, the filled-up last one among them; val_cross_entropy is the exact one.
        metrics = {name: float(value) for name, value in (logs or {}).items() if name != "val_loss"}
        seconds = self._trained - self._epoch_started
        metrics["examples_per_second"] = round(self._examples / seconds, 1)
        with open(self._path, "a", encoding="utf-8") as file:
            written = {name: value if math.isfinite(value) else None for name, value in metrics.items()}  # JSON has no NaN
            file.write(json.dumps({"epoch": epoch + 1, **written}) + "\n")
        elapsed = time.monotonic() - self._started
        left = elapsed / (epoch + 1) * (self._epochs - epoch - 1)
        shown = "  ".join(
            f"{name} {value:.4f}" for name, value in metrics.items() if name not in ("examples_per_second", "cross_entropy")
        )
        self._bar.write(
            f"epoch {epoch + 1}/{self._epochs}  {shown}  {metrics['examples_per_second']:,.0f} examples/s  "
            f"{_minutes(elapsed)} gone, {_minutes(left)} left",
            file=sys.stdout,
        )
        sys.stdout.flush()

    def on_train_end(self, logs=None):
        self._bar.close()


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
