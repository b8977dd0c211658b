"""An interpreter that has TensorFlow alone, and answers with a SavedModel as a server would."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mm_keras.data.text import PRETRAINED_KINDS
from mm_keras.distribution.preemption import end_if_asked
from mm_keras.features import FeatureSpec, TokenText

_CHECK = Path(__file__).with_name("saved_model_check.py")


class FreshProcessError(RuntimeError):
    """The process ended with an error, which the message shows."""


class Question(NamedTuple):
    """A request to a SavedModel.

    Attributes:
        signature: the name of the signature.
        inputs: its inputs by name: lists of bytes, or arrays.
    """

    signature: str
    inputs: dict[str, Sequence[bytes] | np.ndarray]


class FreshProcess:
    """An isolated interpreter that imports TensorFlow alone, and tensorflow_text if the model needs its operations.

    It starts when the object is made, so that TensorFlow is loaded there while the caller does other things.

    Args:
        features: what the model takes in.
        core_ops_only: whether the model's tokenizers do without the operations of TensorFlow Text.
    """

    def __init__(self, features: FeatureSpec, core_ops_only: bool = False):
        self._folder = tempfile.mkdtemp()
        self._answers = Path(self._folder) / "answers.npz"
        command = [sys.executable, "-I", str(_CHECK), str(self._answers)]
        with_text = () if core_ops_only else PRETRAINED_KINDS
        if any(not isinstance(text, TokenText) or text.tokenizer.kind in with_text for text in features.texts):
            command.append("tensorflow_text")
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self._process = subprocess.Popen(command, text=True, cwd=self._folder, **pipes)

    def ask(self, saved_model: Path, questions: Sequence[Question]) -> None:
        """Sends requests to a SavedModel, without waiting for the answers."""
        request = {
            "saved_model": str(saved_model.absolute()),
            "requests": [
                {"signature": signature, "inputs": {name: _encode(values) for name, values in inputs.items()}}
                for signature, inputs in questions
            ],
        }
        for send in (lambda: self._process.stdin.write(json.dumps(request)), self._process.stdin.close):
            with contextlib.suppress(BrokenPipeError):  # the process ended: `answer` says why
                send()
        self._process.stdin = None  # or `communicate` would flush it

    def answer(self) -> tuple[list[dict[str, np.ndarray]], list[str]]:
        """Waits for the answers.

        Returns:
            (for each question the outputs by name, strings as bytes; names of the operations that are not TensorFlow's own).

        Raises:
            FreshProcessError: if the process could not answer.
        """
        output = None
        while output is None:
            end_if_asked()
            with contextlib.suppress(subprocess.TimeoutExpired):
                output, errors = self._process.communicate(timeout=0.5)
        if self._process.returncode:
            raise FreshProcessError(errors[-2000:])
        answers: list[dict[str, np.ndarray]] = []
        with np.load(self._answers) as arrays:
            for key in arrays.files:
                number, _, name = key.partition("/")
                answers.extend({} for _ in range(int(number) + 1 - len(answers)))
                answers[int(number)][name] = arrays[key]
        return answers, json.loads(output.splitlines()[-1])

    def close(self) -> None:
        """Ends the process, whatever it is at."""
        self._process.kill()
        self._process.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)


def _encode(values: Sequence[bytes] | np.ndarray | tf.Tensor) -> dict:
    if isinstance(values, list):
        return {"dtype": "string", "shape": [len(values)], "data": [base64.b64encode(value).decode() for value in values]}
    array = np.ascontiguousarray(values)
    return {"dtype": array.dtype.str, "shape": array.shape, "data": base64.b64encode(array.tobytes()).decode()}
