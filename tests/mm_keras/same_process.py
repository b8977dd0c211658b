"""Asks an exported model in this process, for tests to which it does not matter that a fresh one is asked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from mm_keras.features import FeatureSpec
from mm_keras.runs.fresh_process import FreshProcessError, Question
from mm_keras.runs.saved_model_check import find_foreign_operations


class SameProcess:
    """Takes the place of `FreshProcess`, which takes five seconds to load TensorFlow."""

    def __init__(self, features: FeatureSpec, core_ops_only: bool = False):
        del features, core_ops_only

    def ask(self, saved_model: Path, questions: Sequence[Question]) -> None:
        self._folder, self._questions = saved_model, questions

    def answer(self) -> tuple[list[dict[str, np.ndarray]], list[str]]:
        signatures = tf.saved_model.load(str(self._folder)).signatures
        try:
            answers = [
                signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
                for name, inputs in self._questions
            ]
        except tf.errors.OpError as error:
            raise FreshProcessError(str(error)) from error
        operations = find_foreign_operations(self._folder / "saved_model.pb")
        return [{key: _as_array(value) for key, value in outputs.items()} for outputs in answers], operations

    def close(self) -> None:
        pass


def _as_array(value: tf.Tensor) -> np.ndarray:
    array = value.numpy()
    return array.astype("S") if array.dtype == object else array
