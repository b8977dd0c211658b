"""What a validation split adds to a solved head: examples that nothing was learned from, for calibration and thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mm_keras.model.solved_head import Answer, Kernels
from mm_keras.solving.blocks import Block
from mm_keras.solving.calibration import Calibration, calibrate
from mm_keras.solving.neighbours import Votes


class Validation(NamedTuple):
    """Validation examples, with the blocks of the training examples.

    Attributes:
        blocks: all blocks of all modalities.
        present: bool [V, M]: which modalities each example has.
        targets: 0 and 1, float32 [V, L].
        weights: float32 [V]; 1 on average.
    """

    blocks: Sequence[Block]
    present: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    def with_all(self, modalities: Sequence[int]) -> np.ndarray:
        """The examples, int, that have all of the modalities."""
        return np.flatnonzero(self.present[:, list(modalities)].all(axis=1))


def answer_logits(answer: Answer, kernels: Kernels, blocks: Sequence[Block], rows: np.ndarray, multi_label: bool) -> np.ndarray:
    """The logits that an answer gives to some examples, as `SolvedAnswers` computes them: float32 [n, L].

    Args:
        answer: the answer.
        kernels: the kernels that it may read.
        blocks: all blocks of the examples.
        rows: int [n], the examples.
        multi_label: whether labels are independent of each other.
    """
    logits = np.tile(answer.bias, (len(rows), 1))
    for block, weights in answer.linear.items():
        logits += blocks[block].values[rows] @ weights

    def exponents(number: int) -> np.ndarray:
        numbers, gamma = kernels.kernels[number]
        distances = sum(_squared_distances(blocks[block].values[rows], kernels.landmarks[block]) for block in numbers)
        return -gamma / len(numbers) * distances

    for number, dual in answer.kernels.items():
        logits += np.exp(exponents(number)) @ dual
    for number, scale in answer.neighbours.items():
        neighbours = kernels.neighbours[number]
        of_voters = np.where(neighbours.voters > 0, exponents(neighbours.kernel), -np.inf)
        votes = Votes.of(of_voters, kernels.targets, neighbours.voters, neighbours.prior, multi_label)
        logits += votes.logits(neighbours.pull) * scale
    return logits.astype("float32")


def calibrate_again(
    answer: Answer,
    kernels: Kernels,
    held_out: tuple[np.ndarray, np.ndarray, np.ndarray],
    validation: Validation,
    multi_label: bool,
) -> Calibration | None:
    """The calibration that an answer still needs, by its held-out training examples and the validation examples together.

    The logits of training examples are those of regressions on the other folds; of validation examples, those of the answer.

    Args:
        answer: an answer that is calibrated on the held-out examples.
        kernels: the kernels that it may read.
        held_out: logits [N, L], targets [N, L] and weights [N] of the held-out training examples.
        validation: the validation examples, of which those count that have all modalities of the answer.
        multi_label: Platt scaling for each label (True), or one temperature.

    Returns:
        the calibration; None if no validation example has these modalities.
    """
    at = validation.with_all(answer.modalities)
    if not len(at):
        return None
    logits = answer_logits(answer, kernels, validation.blocks, at, multi_label)
    validated = logits, validation.targets[at], validation.weights[at]
    return calibrate(*(np.concatenate(pair) for pair in zip(held_out, validated, strict=True)), multi_label)


def scaled(answer: Answer, calibration: Calibration) -> Answer:
    """The answer whose logits are the calibrated logits of another answer."""

    def times(weights: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        return {number: values * calibration.scale for number, values in weights.items()}

    parts = (times(values) for values in (answer.linear, answer.kernels, answer.neighbours))
    return Answer(answer.modalities, *parts, calibration(answer.bias))


def _squared_distances(rows: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    squares = np.square(rows).sum(axis=1)[:, None] + np.square(landmarks).sum(axis=1)[None, :]
    return np.maximum(squares - 2 * rows @ landmarks.T, 0)
