"""Turns the ensembles that were chosen for sets of modalities into the answers of a solved head."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from mm_keras.model.solved_head import Answer, Kernels, Neighbours
from mm_keras.solving.calibration import Calibration
from mm_keras.solving.candidates import Fitted, FittedNeighbours
from mm_keras.solving.kernels import Kernel
from mm_keras.solving.rows import Rows

_MOST_MODALITIES = 4  # with at most so many modalities, every set of them gets an answer of its own


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The ensemble of candidates that was chosen for a set of modalities.

    Attributes:
        modalities: their numbers.
        shares: number of a candidate -> its share of the ensemble.
        calibration: the calibration of the ensemble's logits.
        held_out: float32 [N, L], calibrated logits of each example by regressions that did not learn from it; of no use for
            examples that lack some of the modalities.
        rows: int, the examples that have all of the modalities, on which the ensemble was chosen.
    """

    modalities: tuple[int, ...]
    shares: Mapping[int, float]
    calibration: Calibration
    held_out: np.ndarray
    rows: np.ndarray


def patterns_of(present: np.ndarray) -> list[tuple[int, ...]]:
    """The sets of modalities that get an answer of their own, small ones first.

    These are all sets of up to four modalities. Of more modalities: each alone, all together, each left out, and those that
    examples have.

    Args:
        present: bool [N, M].
    """
    count = present.shape[1]
    if count <= _MOST_MODALITIES:
        sizes = range(1, count + 1)
        return [modalities for size in sizes for modalities in itertools.combinations(range(count), size)]
    everything = tuple(range(count))
    sets = {(number,) for number in everything} | {everything} | set(itertools.combinations(everything, count - 1))
    sets |= {tuple(np.flatnonzero(row).tolist()) for row in np.unique(present, axis=0) if row.any()}
    return sorted(sets, key=lambda modalities: (len(modalities), modalities))


def make_answers(
    rows: Rows, chosen: Sequence[Chosen], fitted: Mapping[int, Fitted | FittedNeighbours], landmarks: np.ndarray
) -> tuple[Kernels, list[Answer]]:
    """Adds up the candidates of each ensemble to one answer; all linear candidates become one dense layer.

    Args:
        rows: the examples.
        chosen: the chosen ensembles.
        fitted: the chosen candidates, fitted to all examples, by their numbers.
        landmarks: int [K], the examples that kernels may have as landmarks, in rising order.

    Returns:
        (the kernels that were chosen, an answer for each set of modalities).
    """
    kernels, place_of = _make_kernels(rows, fitted, landmarks)
    neighbours = [number for number, fit in fitted.items() if isinstance(fit, FittedNeighbours)]
    answers = []
    for choice in chosen:
        linear: dict[int, np.ndarray] = {}
        duals: dict[int, np.ndarray] = {}
        votes: dict[int, np.ndarray] = {}
        bias = choice.calibration.offset.copy()
        for number, share in choice.shares.items():
            fit, scale = fitted[number], share * choice.calibration.scale
            if isinstance(fit, FittedNeighbours):
                votes[neighbours.index(number)] = scale * fit.calibration.scale
                bias += scale * fit.calibration.offset
                continue
            dual = fit.dual * scale
            # 1 is added to each kernel (see `Similarities.matrix`), which adds the sum over the landmarks to all logits.
            bias += fit.bias * scale + dual.sum(axis=0)
            if fit.kernel.gamma is not None:
                place = place_of[fit.kernel]
                duals.setdefault(place, np.zeros((len(landmarks), dual.shape[1]), np.float32))
                duals[place][np.searchsorted(landmarks, fit.landmarks)] += dual
                continue
            for block in fit.kernel.blocks:
                weights = rows.blocks[block].values[fit.landmarks].T @ dual / len(fit.kernel.blocks)
                linear[block] = linear.get(block, 0) + weights
        answers.append(Answer(choice.modalities, *(dict(sorted(parts.items())) for parts in (linear, duals, votes)), bias))
    return kernels, answers


def _make_kernels(
    rows: Rows, fitted: Mapping[int, Fitted | FittedNeighbours], landmarks: np.ndarray
) -> tuple[Kernels, dict[Kernel, int]]:
    """(the Gaussian kernels that were chosen, with the neighbours that vote by them; the number of each kernel)."""
    gaussian = [fit.kernel for fit in fitted.values() if fit.kernel.gamma is not None]
    place_of = {kernel: number for number, kernel in enumerate(dict.fromkeys(gaussian))}
    blocks = sorted({block for kernel in place_of for block in kernel.blocks})
    values = {block: rows.blocks[block].values[landmarks] for block in blocks}
    neighbours = []
    for fit in fitted.values():
        if isinstance(fit, FittedNeighbours):
            voters = np.where(np.isin(landmarks, fit.landmarks), rows.weights[landmarks], 0).astype("float32")
            neighbours.append(Neighbours(place_of[fit.kernel], voters, fit.prior, fit.pull))
    targets = rows.targets[landmarks] if neighbours else None
    return Kernels(values, [(kernel.blocks, kernel.gamma) for kernel in place_of], targets, neighbours), place_of


def prior_answer(rows: Rows) -> Answer:
    """The answer for examples of which nothing is known: the logits of the prior."""
    all_rows = np.arange(len(rows.targets))
    return Answer((), {}, {}, {}, rows.problem(all_rows).log_prior())


def joined_answers(answers: Sequence[Answer], values: Sequence[float], rows: Rows) -> list[Answer]:
    """Answers for sets of modalities that too few examples have for an ensemble of their own.

    Such an answer adds up the best answers for parts of the set that share no modality, as if these were independent of each
    other: their logits are summed, and the prior is counted once.

    Args:
        answers: the answers of the ensembles.
        values: their scores.
        rows: the examples.
    """
    prior, joined = prior_answer(rows).bias, []
    known = {answer.modalities for answer in answers}
    for modalities in patterns_of(rows.present):
        if modalities in known:
            continue
        parts: list[Answer] = []
        for number in np.argsort([-value for value in values], kind="stable"):
            uncovered = set(modalities) - {modality for part in parts for modality in part.modalities}
            if set(answers[number].modalities) <= uncovered:
                parts.append(answers[number])
        if len(parts) < 2:
            continue
        linear: dict[int, np.ndarray] = {}
        duals: dict[int, np.ndarray] = {}
        votes: dict[int, np.ndarray] = {}
        for part in parts:
            linear |= part.linear  # parts that share no modality share no block
            duals |= part.kernels
            votes |= part.neighbours
        bias = np.sum([part.bias for part in parts], axis=0) - (len(parts) - 1) * prior
        joined.append(Answer(modalities, *(dict(sorted(values.items())) for values in (linear, duals, votes)), bias))
    return joined


def answer_of_each_set(num_modalities: int, sets: Sequence[tuple[int, ...]], values: Sequence[float]) -> list[int]:
    """The number of the answer for each set of modalities: the set's own answer, or else the best one for a part of the set.

    Where there is neither, it is the number of answers, which is that of the prior's answer.

    Args:
        num_modalities: M.
        sets: the modalities of each answer.
        values: the scores of the first answers; the other answers are for their own sets alone.
    """
    numbers = []
    for bits in range(2**num_modalities):
        modalities = tuple(number for number in range(num_modalities) if bits >> number & 1)
        if modalities in sets:
            numbers.append(sets.index(modalities))
            continue
        parts = [(value, -index) for index, value in enumerate(values) if set(sets[index]) <= set(modalities)]
        numbers.append(-max(parts)[1] if parts else len(sets))
    return numbers
