"""What one sees of a training: a bar with rate and ETA, a line an epoch, metrics.jsonl, and at the end where the time went."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
from absl import logging
from tqdm import tqdm

from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.progress import are_bars_shown

_NOT_SHOWN = ("examples_per_second", "cross_entropy", "learning_rate", "input_wait")


class Progress(keras.callbacks.Callback):
    """Shows progress and appends one JSON object an epoch to a file.

    `loss` and metrics without a prefix belong to the training batches, those with `val_` to the validation split.
    `examples_per_second` is the rate of training, without validation and saving; `learning_rate` that of the next step;
    `input_wait` the fraction of the training time, 0–1, in which steps waited for their batches. These three are added to the
    epoch's logs, so that later callbacks see them.

    Args:
        path: metrics.jsonl. When a training is resumed, the lines of epochs that it repeats are removed.
        epochs: number of epochs in all.
        steps: number of steps in an epoch.
        batch_size: global batch size.
        input_wait: `() -> seconds` that steps have waited for batches so far; None: that is not measured.
    """

    def __init__(self, path: Path, epochs: int, steps: int, batch_size: int, input_wait: Callable[[], float] | None = None):
        super().__init__()
        self._path = path
        self._epochs = epochs
        self._steps = steps
        self._batch_size = batch_size
        self._input_wait = input_wait or (lambda: 0.0)
        self._measured = ("learning_rate", "examples_per_second") + (("input_wait",) if input_wait else ())
        self._bar: tqdm | None = None
        self._step = 0
        self._lines = 0
        self._before = dict.fromkeys(("total", "first_step", "steps", "input_wait", "evaluation"), 0.0)
        self._seconds = dict(self._before)
        self._started: float | None = None
        self._first_wait = 0.0

    def on_train_begin(self, logs=None):
        if self._started is None:
            self._started = time.monotonic()
            self._first_step = self._step
        self._bar = tqdm(
            total=self._steps * self._epochs * self._batch_size,
            initial=self._step * self._batch_size,
            unit=" examples",
            disable=not (sys.stderr.isatty() and are_bars_shown()),
            dynamic_ncols=True,
            smoothing=0.05,
        )

    def on_epoch_begin(self, epoch, logs=None):
        self._bar.set_description(f"epoch {epoch + 1}/{self._epochs}")
        self._epoch_step, self._epoch_waited, self._epoch_seconds = self._step, self._input_wait(), 0.0

    def on_train_batch_begin(self, batch, logs=None):
        self._batch_began = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        seconds = time.monotonic() - self._batch_began
        self._epoch_seconds += seconds
        if self._step == self._first_step:  # `fit` compiles it, and the input pipeline starts
            self._seconds["first_step"], self._first_wait = seconds, self._input_wait()
        else:
            self._seconds["steps"] += seconds
        self._step += 1
        self._bar.update(self._batch_size)

    def on_test_begin(self, logs=None):
        self._test_began = time.monotonic()

    def on_test_end(self, logs=None):
        self._seconds["evaluation"] += time.monotonic() - self._test_began

    def on_epoch_end(self, epoch, logs=None):
        examples = (self._step - self._epoch_step) * self._batch_size
        measured = {
            "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            "examples_per_second": round(examples / self._epoch_seconds, 1),
            "input_wait": round((self._input_wait() - self._epoch_waited) / self._epoch_seconds, 4),
        }
        logs.update((name, measured[name]) for name in self._measured)
        # Keras averages val_loss over batches, the filled-up last one among them; val_cross_entropy is the exact one.
        metrics = {name: float(value) for name, value in logs.items() if name != "val_loss"}
        written = {name: value if math.isfinite(value) else None for name, value in metrics.items()}  # JSON has no NaN
        before = self._path.read_text("utf-8") if self._path.exists() else ""
        write_text(self._path, before + json.dumps({"epoch": epoch + 1, **written}) + "\n")
        self._lines += 1
        elapsed = time.monotonic() - self._started
        remaining = elapsed / (self._step - self._first_step) * (self._steps * self._epochs - self._step)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items() if name not in _NOT_SHOWN)
        logging.info(
            f"epoch {epoch + 1}/{self._epochs}  {shown}  {metrics['examples_per_second']:,.0f} examples/s  "
            f"{_minutes(elapsed)} gone, {_minutes(remaining)} left"
        )

    def on_train_end(self, logs=None):
        self._bar.close()

    def state(self) -> dict:
        return {"step": self._step, "lines": self._lines, "seconds": self.seconds()}

    def set_state(self, state: Mapping) -> None:
        self._step, self._lines, self._before = state["step"], state["lines"], state["seconds"]
        lines = self._path.read_text("utf-8").splitlines(keepends=True) if self._path.exists() else []
        if len(lines) > self._lines:
            write_text(self._path, "".join(lines[: self._lines]))
        elif len(lines) < self._lines:
            logging.info(
                f"{self._path} holds {len(lines)} of the {self._lines} epochs so far; the others are lost, and it goes on"
            )

    def seconds(self) -> dict[str, float]:
        """How long the parts of the training took, including the trainings that this one resumes.

        "total" contains "first_step" with its compilation, "steps" (all others) and "evaluation"; "steps" contains
        "input_wait".
        """
        now = self._seconds | {
            "total": time.monotonic() - self._started if self._started is not None else 0.0,
            "input_wait": self._input_wait() - self._first_wait,
        }
        return {name: round(self._before[name] + seconds, 3) for name, seconds in now.items()}

    def summary(self) -> str:
        """One line for the end of the training: how long it took, and on what the time was spent."""
        seconds = self.seconds()
        parts = {
            "evaluation": seconds["evaluation"],
            "the first step and its compilation": seconds["first_step"],
        }
        if "input_wait" in self._measured:
            parts |= {
                "forward and backward": seconds["steps"] - seconds["input_wait"],
                "waiting for input": seconds["input_wait"],
            }
        else:
            parts["steps"] = seconds["steps"]
        parts["saving and the rest"] = seconds["total"] - seconds["steps"] - seconds["first_step"] - seconds["evaluation"]
        by_size = sorted(parts.items(), key=lambda part: -part[1])
        return f"trained in {_minutes(seconds['total'])}: " + ", ".join(
            f"{100 * max(part, 0) / max(seconds['total'], 1e-9):.0f} % {name}" for name, part in by_size
        )


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
