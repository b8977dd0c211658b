"""The candidates of a solved head: regressions on kernels, with their answers on held-out folds."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from mm_keras.solving.blocks import Block
from mm_keras.solving.calibration import Calibration, calibrate
from mm_keras.solving.ensemble import mean_loss
from mm_keras.solving.kernels import Kernel, KernelFeatures, take
from mm_keras.solving.regression import ExactRidge, Factor, Problem, logistic, ridge
from mm_keras.solving.rows import Rows

Loss = Literal["logistic", "ridge"]
MOST_EXACT = 2500  # examples of which a whole kernel is solved
MOST_LANDMARKS = 1500  # otherwise
_GAMMAS = (1.0, 2.0)
_PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_FIRST_PENALTY = 3  # the search begins in the middle
_LEAST_CURVATURE = 0.05  # with that of many rare classes, the first steps of L-BFGS would be far too long


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A regression on a kernel, and what it answers where it has not learned.

    Attributes:
        kernel: the kernel.
        loss: which regression.
        penalty: its L2 penalty, in units of the kernel.
        modalities: the modalities that the kernel reads.
        calibration: which its raw answers went through.
        held_out: float32 [N, L], calibrated logits of every example from the folds without it; zeros for examples that have
            none of its modalities.
        loss_value: the mean log-loss of these.
    """

    kernel: Kernel
    loss: Loss
    penalty: float
    modalities: tuple[int, ...]
    calibration: Calibration
    held_out: np.ndarray
    loss_value: float


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A candidate that was fitted to all examples: calibrated logits are the kernel's `dual` products plus `bias`.

    Attributes:
        kernel: the kernel.
        landmarks: int [K], the rows that are its landmarks.
        dual: float32 [K, L].
        bias: float32 [L].
    """

    kernel: Kernel
    landmarks: np.ndarray
    dual: np.ndarray
    bias: np.ndarray


def kernels_of(blocks: Sequence[Block], modalities: Sequence[int]) -> list[Kernel]:
    """The kernels that are tried for a set of modalities, simple ones first.

    Linear ones on the embeddings, on the words, and on both; Gaussian ones on the embeddings, of which an example needs few to
    be like another one, while two texts seldom share their words.
    """
    numbers = [number for number, block in enumerate(blocks) if block.modality in modalities]
    embeddings = tuple(number for number in numbers if not blocks[number].is_words)
    words = tuple(number for number in numbers if blocks[number].is_words)
    kernels = [Kernel(embeddings)]
    if words:
        kernels += [Kernel(embeddings + words), *([Kernel(words)] if len(modalities) == 1 else [])]
    return kernels + [Kernel(embeddings, gamma) for gamma in _GAMMAS]


def candidates_of(rows: Rows, kernel: Kernel, modalities: tuple[int, ...], seed: int) -> list[Candidate]:
    """The candidates on a kernel that reads some modalities, each with the best penalty for its loss.

    Args:
        rows: the examples.
        kernel: one of `kernels_of`.
        modalities: those that it reads.
        seed: of the landmarks.
    """
    used = rows.with_any(modalities)
    # Logistic regressions take longest, and on Gaussian kernels or for several labels they never were the better ones.
    losses = ("ridge",) if kernel.gamma is not None or rows.multi_label else ("ridge", "logistic")
    folds, candidates = None, []
    for loss in losses:
        if _is_exact(loss, used):
            held_out = _exact_ridge(rows, kernel, used)
        else:
            folds = folds or _Folds(rows, kernel, used, _landmarks(used, seed))
            held_out = functools.partial(folds.held_out, loss)
        candidates.append(_search(held_out, rows, kernel, loss, modalities))
    return candidates


def fit(rows: Rows, candidate: Candidate, seed: int) -> Fitted:
    """Fits a candidate to all examples."""
    used = rows.with_any(candidate.modalities)
    kernel = candidate.kernel
    if _is_exact(candidate.loss, used):
        blocks, landmarks = take(rows.blocks, used), used
        problem = rows.problem(used, np.empty((len(used), 0), np.float32))
        solver = ExactRidge(kernel.matrix(blocks, blocks), problem.weights, candidate.penalty)
        dual = solver.dual(problem.targets - problem.prior()) / _spread(problem)
    else:
        landmarks = _landmarks(used, seed)
        features = KernelFeatures.of(kernel, rows.blocks, landmarks)
        problem = rows.problem(used, features.values[used])
        dual = features.dual(_regress(problem, Factor(problem.gram(), candidate.penalty), candidate.loss))
    return Fitted(kernel, landmarks, dual * candidate.calibration.scale, candidate.calibration(problem.log_prior()))


def _is_exact(loss: Loss, used: np.ndarray) -> bool:
    """Whether a regression is solved on the whole kernel of its examples, in its dual."""
    return loss == "ridge" and len(used) <= MOST_EXACT


def _exact_ridge(rows: Rows, kernel: Kernel, used: np.ndarray) -> Callable[[float], np.ndarray]:
    """`(penalty) -> raw logits float32 [n, L]` of each example from the folds without it."""
    blocks = take(rows.blocks, used)
    matrix = kernel.matrix(blocks, blocks)
    problem = rows.problem(used, matrix)

    def held_out(penalty: float) -> np.ndarray:
        solver = ExactRidge(matrix, problem.weights, penalty)
        differences = solver.held_out(problem.targets - problem.prior(), rows.folds[used])
        return differences / _spread(problem) + problem.log_prior()

    return held_out


class _Folds:
    """The regressions of one kernel on all folds; the Gram matrices are computed once for all penalties."""

    def __init__(self, rows: Rows, kernel: Kernel, used: np.ndarray, landmarks: np.ndarray):
        features = KernelFeatures.of(kernel, rows.blocks, landmarks).values[used]
        self._problem = rows.problem(used, features)
        self._held_out = [np.flatnonzero(rows.folds[used] == fold) for fold in np.unique(rows.folds[used])]
        self._total = self._problem.gram()
        self._factors: dict[tuple[int, float], Factor] = {}

    def held_out(self, loss: Loss, penalty: float) -> np.ndarray:
        """float32 [n, L]: raw logits of each example from the folds without it."""
        answers = np.empty_like(self._problem.targets)
        for fold, rows in enumerate(self._held_out):
            learned = self._problem.rows(np.setdiff1d(np.arange(len(answers)), rows, assume_unique=True))
            # A logistic regression only begins from the factor, for which that of all folds together is good enough.
            factor = self._factor(-1 if loss == "logistic" else fold, penalty)
            answers[rows] = self._problem.features[rows] @ _regress(learned, factor, loss) + learned.log_prior()
        return answers

    def _factor(self, fold: int, penalty: float) -> Factor:
        if (fold, penalty) not in self._factors:
            gram = self._total if fold < 0 else self._total - self._problem.rows(self._held_out[fold]).gram()
            self._factors[fold, penalty] = Factor(gram, penalty)
        return self._factors[fold, penalty]


def _regress(problem: Problem, factor: Factor, loss: Loss) -> np.ndarray:
    """Coefficients float32 [m, L] of logits, beside the offset of the prior; those of ridge regressions are not calibrated."""
    if loss == "logistic":
        curvature = float(np.mean(problem.prior() * (1 - problem.prior())))
        return logistic(problem, factor, max(curvature, _LEAST_CURVATURE))
    return ridge(problem, factor) / _spread(problem)


def _spread(problem: Problem) -> np.ndarray | float:
    """A share that is p on average and p + d here has logits that differ by about d / (p (1 - p)), which is this number."""
    spread = problem.prior() * (1 - problem.prior())
    return spread if problem.multi_label else float(spread.mean())


def _search(
    held_out: Callable[[float], np.ndarray],
    rows: Rows,
    kernel: Kernel,
    loss: Loss,
    modalities: tuple[int, ...],
) -> Candidate:
    """Goes from the middle penalty to both sides as long as the held-out loss falls."""
    used = rows.with_any(modalities)
    tried: dict[int, Candidate] = {}

    def at(index: int) -> Candidate:
        if index not in tried:
            penalty = _PENALTIES[index]
            raw = np.zeros_like(rows.targets)
            raw[used] = held_out(penalty)
            calibration = calibrate(raw[used], rows.targets[used], rows.weights[used], rows.multi_label)
            answers = calibration(raw)
            value = mean_loss(answers[used], rows.targets[used], rows.weights[used], rows.multi_label)
            tried[index] = Candidate(kernel, loss, penalty, modalities, calibration, answers, value)
        return tried[index]

    best = at(_FIRST_PENALTY)
    for step in (-1, 1):
        index = _FIRST_PENALTY + step
        while 0 <= index < len(_PENALTIES) and at(index).loss_value < best.loss_value:
            best, index = at(index), index + step
    return best


def _landmarks(used: np.ndarray, seed: int) -> np.ndarray:
    """All examples that are used, or as many of them as make a small model."""
    if len(used) <= MOST_EXACT:
        return used
    return np.sort(np.random.default_rng(seed).choice(used, MOST_LANDMARKS, replace=False))
