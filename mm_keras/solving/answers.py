"""What was chosen for each set of modalities, as the answers of a solved head."""

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

_MOST_MODALITIES = 4  # of which every set gets an answer of its own


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What was chosen for a set of modalities.

    Attributes:
        modalities: their numbers.
        shares: number of a candidate -> its share of the ensemble.
        calibration: what the ensemble's logits go through.
        held_out: float32 [N, L], calibrated logits of examples that were not learned from; of examples that lack some of the
            modalities they are of no use.
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
        return [chosen for size in sizes for chosen in itertools.combinations(range(count), size)]
    everything = tuple(range(count))
    sets = {(number,) for number in everything} | {everything} | set(itertools.combinations(everything, count - 1))
    sets |= {tuple(np.flatnonzero(row).tolist()) for row in np.unique(present, axis=0) if row.any()}
    return sorted(sets, key=lambda chosen: (len(chosen), chosen))


def make_answers(
    rows: Rows, chosen: Sequence[Chosen], fitted: Mapping[int, Fitted | FittedNeighbours], landmarks: np.ndarray
) -> tuple[Kernels, list[Answer]]:
    """Adds up the candidates of each ensemble: all linear ones become one dense layer.

    Args:
        rows: the examples.
        chosen: what was chosen.
        fitted: the chosen candidates, fitted to all examples, by their numbers.
        landmarks: int [K], the examples that kernels may have as landmarks, in their order.

    Returns:
        (the kernels that were chosen, an answer for each set of modalities).
    """
    kernels, place_of = _make_kernels(rows, fitted, landmarks)
    neighbours = [number for number, fit in fitted.items() if isinstance(fit, FittedNeighbours)]
    answers = []
    for c in chosen:
        linear: dict[int, np.ndarray] = {}
        duals: dict[int, np.ndarray] = {}
        votes: dict[int, np.ndarray] = {}
        bias = c.calibration.offset.copy()
        for number, share in c.shares.items():
            fit, scale = fitted[number], share * c.calibration.scale
            if isinstance(fit, FittedNeighbours):
                votes[neighbours.index(number)] = scale * fit.calibration.scale
                bias += scale * fit.calibration.offset
                continue
            dual = fit.dual * scale
            # Each kernel has a constant of 1 added, whose part is the sum over the landmarks.
            bias += fit.bias * scale + dual.sum(axis=0)
            if fit.kernel.gamma is not None:
                place = place_of[fit.kernel]
                duals.setdefault(place, np.zeros((len(landmarks), dual.shape[1]), np.float32))
                duals[place][np.searchsorted(landmarks, fit.landmarks)] += dual
                continue
            for block in fit.kernel.blocks:
                weights = rows.blocks[block].values[fit.landmarks].T @ dual / len(fit.kernel.blocks)
                linear[block] = linear.get(block, 0) + weights
        answers.append(Answer(c.modalities, *(dict(sorted(parts.items())) for parts in (linear, duals, votes)), bias))
    return kernels, answers


def _make_kernels(
    rows: Rows, fitted: Mapping[int, Fitted | FittedNeighbours], landmarks: np.ndarray
) -> tuple[Kernels, dict[Kernel, int]]:
    """(the Gaussian kernels that were chosen with the neighbours that they tell, the number of each kernel)."""
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
    """What is answered where nothing is known of an example."""
    everyone = np.arange(len(rows.targets))
    return Answer((), {}, {}, {}, rows.problem(everyone).log_prior())


def joined_answers(answers: Sequence[Answer], values: Sequence[float], rows: Rows) -> list[Answer]:
    """Answers for sets of modalities that hardly an example has: what the best parts say, as if each knew something else."""
    prior, joined = prior_answer(rows).bias, []
    known = {answer.modalities for answer in answers}
    for modalities in patterns_of(rows.present):
        if modalities in known:
            continue
        parts: list[Answer] = []
        for number in np.argsort([-value for value in values], kind="stable"):
            rest = set(modalities) - {m for part in parts for m in part.modalities}
            if set(answers[number].modalities) <= rest:
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
    """The number of an answer for each set of modalities: its own one, or of those that read a part of it the best one.

    Args:
        num_modalities: M.
        sets: the modalities of each answer.
        values: the scores of the first answers; the others are for their own set alone.
    """
    result = []
    for bits in range(2**num_modalities):
        there = tuple(number for number in range(num_modalities) if bits >> number & 1)
        if there in sets:
            result.append(sets.index(there))
            continue
        parts = [(value, -index) for index, value in enumerate(values) if set(sets[index]) <= set(there)]
        result.append(-max(parts)[1] if parts else len(sets))
    return result
