"""The candidates of a solved head: regressions on kernels, with their answers on held-out folds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from mm_keras.solving.blocks import Block
from mm_keras.solving.calibration import Calibration, calibrate
from mm_keras.solving.ensemble import mean_loss
from mm_keras.solving.kernels import Kernel, KernelFeatures, Similarities
from mm_keras.solving.regression import ExactRidge, Factor, Problem, logistic, ridge
from mm_keras.solving.rows import Rows

Loss = Literal["logistic", "ridge"]
MOST_EXACT = 5000  # examples of which a whole kernel is solved
MOST_LANDMARKS = 2000  # otherwise, and for logistic regressions
_SAMPLE = 1500  # examples on which penalties and widths are compared; the best ones hardly depend on how many there are
_ASKED = 250  # of these, held out of logistic regressions
_GAMMAS = (0.5, 1.0, 2.0)
_PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_FIRST_PENALTY = 4  # the search begins in the middle
_MOST_LENGTH = 500.0  # of what a label takes from landmarks: of more, rounding in their kernel is seen in the answers
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


def kernels_of(blocks: Sequence[Block], modalities: Sequence[int]) -> list[list[Kernel]]:
    """The kernels that are tried for a set of modalities, simple ones first; of those in one list the best one is taken.

    Linear ones on the embeddings, on the words, and on both; Gaussian ones of several widths on the embeddings, of which an
    example needs few to be like another one, while two texts seldom share their words.
    """
    numbers = [number for number, block in enumerate(blocks) if block.modality in modalities]
    embeddings = tuple(number for number in numbers if not blocks[number].is_words)
    words = tuple(number for number in numbers if blocks[number].is_words)
    linear = [embeddings]
    if words:
        linear += [embeddings + words, *([words] if len(modalities) == 1 else [])]
    return [[Kernel(chosen)] for chosen in linear] + [[Kernel(embeddings, gamma) for gamma in _GAMMAS]]


def choose_landmarks(rows: Rows, seed: int) -> np.ndarray:
    """The examples, int, of which kernels are made, in random order: all, or as many as make a small model.

    Those with more modalities go before others, so that each modality has landmarks.
    """
    order = np.random.default_rng(seed).permutation(len(rows.targets))
    if len(order) <= MOST_EXACT:
        return order
    return order[np.argsort(-rows.present[order].sum(axis=1), kind="stable")][:MOST_LANDMARKS]


class Regressions:
    """The regressions on kernels of some examples.

    Args:
        rows: the examples.
        landmarks: as `choose_landmarks` gives them.
    """

    def __init__(self, rows: Rows, landmarks: np.ndarray):
        self._rows = rows
        self._landmarks = landmarks
        self._similarities = Similarities(rows.blocks, MOST_EXACT)

    def candidates(self, kernels: Sequence[Kernel], modalities: tuple[int, ...]) -> list[Candidate]:
        """A candidate for each loss, each with its best kernel and penalty.

        Args:
            kernels: one of the lists of `kernels_of`.
            modalities: those that they read.
        """
        rows, used = self._rows, self._rows.with_any(modalities)
        sample = used if len(used) <= _SAMPLE else np.sort(self._landmarks_of(used, _SAMPLE))
        # Logistic regressions take longest, and on Gaussian kernels or for several labels they never were the better ones.
        losses = ("ridge",) if kernels[0].gamma is not None or rows.multi_label else ("ridge", "logistic")
        candidates = []
        for loss in losses:
            tried = [(*self._search(kernel, loss, sample), kernel) for kernel in kernels]
            _, penalty, kernel = min(tried, key=lambda attempt: attempt[0])
            if loss == "ridge" and self._is_exact:
                raw, _ = self._exact(kernel, used)(penalty)
            else:
                raw = self._folds(kernel, used, self._landmarks_of(used, MOST_LANDMARKS)).held_out(loss, penalty)
            calibration, answers, value = _judged(raw, rows, used)
            everyone = np.zeros_like(rows.targets)
            everyone[used] = answers
            candidates.append(Candidate(kernel, loss, penalty, modalities, calibration, everyone, value))
        return candidates

    def fit(self, candidate: Candidate) -> Fitted:
        """Fits a candidate to all examples."""
        kernel, used = candidate.kernel, self._rows.with_any(candidate.modalities)
        if candidate.loss == "ridge" and self._is_exact:
            landmarks = used
            problem = self._rows.problem(used, np.empty((len(used), 0), np.float32))
            solver = ExactRidge(self._similarities.matrix(kernel, used, used), problem.weights, candidate.penalty)
            dual = solver.dual(problem.targets - problem.prior()) / _spread(problem)
        else:
            landmarks = np.sort(self._landmarks_of(used, MOST_LANDMARKS))
            features = self._features(kernel, used, landmarks)
            problem = self._rows.problem(used, features.values)
            dual = features.dual(_regress(problem, Factor(problem.gram(), candidate.penalty), candidate.loss))
        return Fitted(kernel, landmarks, dual * candidate.calibration.scale, candidate.calibration(problem.log_prior()))

    @property
    def _is_exact(self) -> bool:
        return len(self._rows.targets) <= MOST_EXACT

    def _landmarks_of(self, used: np.ndarray, most: int) -> np.ndarray:
        return self._landmarks[np.isin(self._landmarks, used)][:most]

    def _features(self, kernel: Kernel, used: np.ndarray, landmarks: np.ndarray) -> KernelFeatures:
        matrix = self._similarities.matrix(kernel, used, landmarks)
        return KernelFeatures.of(matrix, np.searchsorted(used, landmarks))

    def _exact(self, kernel: Kernel, used: np.ndarray) -> Callable[[float], tuple[np.ndarray, np.ndarray]]:
        """`(penalty) -> (raw logits of each example from the folds without it, what all of them give)`, float32 [n, L] each."""
        matrix = self._similarities.matrix(kernel, used, used)
        problem = self._rows.problem(used, matrix)

        def held_out(penalty: float) -> tuple[np.ndarray, np.ndarray]:
            solver = ExactRidge(matrix, problem.weights, penalty)
            differences, dual = solver.held_out(problem.targets - problem.prior(), self._rows.folds[used])
            return differences / _spread(problem) + problem.log_prior(), dual / _spread(problem)

        return held_out

    def _folds(self, kernel: Kernel, used: np.ndarray, landmarks: np.ndarray) -> _Folds:
        features = self._features(kernel, used, np.sort(landmarks)).values
        return _Folds(self._rows.problem(used, features), self._rows.folds[used])

    def _search(self, kernel: Kernel, loss: Loss, sample: np.ndarray) -> tuple[float, float]:
        """(the lowest held-out loss, its penalty): from the middle penalty to both sides as long as the loss falls."""
        if loss == "ridge":
            exact, asked = self._exact(kernel, sample), sample
        else:
            folds = self._folds(kernel, sample, sample)
            asked = sample[folds.first_rows(_ASKED)]
        losses: dict[int, float] = {}

        def attempt(penalty: float) -> float:
            if loss == "logistic":
                return _judged(folds.held_out(loss, penalty, _ASKED), self._rows, asked)[2]
            raw, dual = exact(penalty)
            calibration, _, value = _judged(raw, self._rows, asked)
            long = np.linalg.norm(dual * calibration.scale, axis=0).max() > _MOST_LENGTH
            return np.inf if long and kernel.gamma is not None else value

        def at(index: int) -> float:
            if index not in losses:
                losses[index] = attempt(_PENALTIES[index])
            return losses[index]

        best = _FIRST_PENALTY
        for step in (-1, 1):
            index = _FIRST_PENALTY + step
            while 0 <= index < len(_PENALTIES) and at(index) < at(best):
                best, index = index, index + step
        return at(best), _PENALTIES[best]


def _judged(raw: np.ndarray, rows: Rows, used: np.ndarray) -> tuple[Calibration, np.ndarray, float]:
    """(the calibration of held-out logits, the calibrated logits, their loss)."""
    targets, weights = rows.targets[used], rows.weights[used]
    calibration = calibrate(raw, targets, weights, rows.multi_label)
    answers = calibration(raw)
    return calibration, answers, mean_loss(answers, targets, weights, rows.multi_label)


class _Folds:
    """The regressions of one problem without each of its folds; the Gram matrix is computed once for all penalties.

    Args:
        problem: what is regressed.
        folds: int [n], the fold of each row.
    """

    def __init__(self, problem: Problem, folds: np.ndarray):
        self._problem = problem
        self._held_out = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
        self._total = problem.gram()
        self._factors: dict[float, Factor] = {}

    def first_rows(self, least: int) -> np.ndarray:
        """The rows, int, of the first folds that have so many of them together."""
        sizes = np.cumsum([len(rows) for rows in self._held_out])
        return np.concatenate(self._held_out[: int(np.searchsorted(sizes, least)) + 1])

    def held_out(self, loss: Loss, penalty: float, least: int | None = None) -> np.ndarray:
        """float32 [n, L]: raw logits of each row, or of `first_rows(least)`, by the regressions without its fold."""
        asked = self.first_rows(least or len(self._problem.targets))
        answers = np.zeros_like(self._problem.targets)
        for rows in self._held_out:
            if rows[0] in asked:
                answers[rows] = self._answers(rows, loss, penalty)
        return answers[asked] if least else answers

    def _answers(self, rows: np.ndarray, loss: Loss, penalty: float) -> np.ndarray:
        learned = self._problem.rows(np.setdiff1d(np.arange(len(self._problem.targets)), rows, assume_unique=True))
        if loss == "ridge":
            factor = Factor(self._total - self._problem.rows(rows).gram(), penalty)
        else:  # it only begins from the factor, for which that of all folds together is good enough
            if penalty not in self._factors:
                self._factors[penalty] = Factor(self._total, penalty)
            factor = self._factors[penalty]
        return self._problem.features[rows] @ _regress(learned, factor, loss) + learned.log_prior()


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
