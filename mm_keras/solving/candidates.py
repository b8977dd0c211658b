"""The candidates of a solved head: regressions on kernels, and neighbours, with their answers on held-out folds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from mm_keras.solving.calibration import Calibration, calibrate
from mm_keras.solving.ensemble import mean_loss
from mm_keras.solving.kernels import Kernel, KernelFeatures, Similarities
from mm_keras.solving.neighbours import Votes
from mm_keras.solving.regression import ExactRidge, Factor, Problem, logistic, ridge
from mm_keras.solving.rows import Rows

Method = Literal["logistic", "ridge", "neighbours"]
MOST_EXACT = 5000  # with at most so many examples, ridge regressions are solved on the whole kernel
MOST_LANDMARKS = 2000  # of kernels otherwise, and of logistic regressions
_SAMPLE = 1500  # examples on which penalties and widths are compared; the best ones hardly depend on how many there are
_ASKED = 250  # of these, on which logistic regressions are compared
_GAMMAS = (0.5, 1.0, 2.0)
_GAMMAS_OF_NEIGHBOURS = (4.0, 8.0, 16.0)
_PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_FIRST_PENALTY = 4  # the search begins in the middle
_MOST_LENGTH = 500.0  # of a label's coefficients of landmarks: with more, rounding of the kernel is seen in the logits
_LEAST_CURVATURE = 0.05  # many rare classes have less, with which the first steps of L-BFGS would be far too long


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A regression on a kernel, or the votes of neighbours by a kernel, with its logits of held-out examples.

    Attributes:
        kernel: the kernel.
        method: which regression, or "neighbours".
        penalty: its L2 penalty, in units of the kernel; of neighbours, the votes of the prior.
        modalities: the modalities that the kernel reads.
        calibration: the calibration that its raw logits went through.
        held_out: float32 [N, L], calibrated logits of every example from the folds without it; zeros for examples that have
            none of its modalities.
        loss_value: the mean log-loss of these logits, over the examples that have some of its modalities.
    """

    kernel: Kernel
    method: Method
    penalty: float
    modalities: tuple[int, ...]
    calibration: Calibration
    held_out: np.ndarray
    loss_value: float


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A regression that was fitted to all examples: its calibrated logits are (kernel + 1) @ `dual` + `bias`.

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


@dataclasses.dataclass(frozen=True)
class FittedNeighbours:
    """Neighbours that vote, among all examples.

    Attributes:
        kernel: the kernel.
        landmarks: int [K], the rows that vote.
        prior: float32 [L], the share of each label, see `Votes`.
        pull: the number of votes that the prior has.
        calibration: the calibration of their logits.
    """

    kernel: Kernel
    landmarks: np.ndarray
    prior: np.ndarray
    pull: float
    calibration: Calibration


class Family(NamedTuple):
    """Kernels that are compared, of which the best one for each method becomes a candidate."""

    kernels: Sequence[Kernel]
    methods: Sequence[Method]


def families_of(rows: Rows, modalities: Sequence[int]) -> list[Family]:
    """The families of candidates that are tried for a set of modalities, simple ones first.

    There are linear kernels on the embeddings, on the words, and on both; and Gaussian kernels of several widths on the
    embeddings alone, since two texts seldom share their words. Logistic regressions take longest, and on Gaussian kernels or
    for several labels they never were the better ones. Neighbours are tried only where all examples are landmarks: among a part
    of the examples, the nearest one would be far away.
    """
    blocks = rows.blocks
    numbers = [number for number, block in enumerate(blocks) if block.modality in modalities]
    embeddings = tuple(number for number in numbers if not blocks[number].is_words)
    words = tuple(number for number in numbers if blocks[number].is_words)
    linear = [embeddings]
    if words:
        linear += [embeddings + words, *([words] if len(modalities) == 1 else [])]
    families = [Family([Kernel(chosen)], ["ridge"] if rows.multi_label else ["ridge", "logistic"]) for chosen in linear]
    families.append(Family([Kernel(embeddings, gamma) for gamma in _GAMMAS], ["ridge"]))
    if len(rows.targets) <= MOST_EXACT:
        families.append(Family([Kernel(embeddings, gamma) for gamma in _GAMMAS_OF_NEIGHBOURS], ["neighbours"]))
    return families


def choose_landmarks(rows: Rows, seed: int) -> np.ndarray:
    """The examples that kernels have as landmarks, int in random order: all, or as many as make a small model.

    In the second case, examples with more modalities go before others, so that each modality has landmarks.
    """
    order = np.random.default_rng(seed).permutation(len(rows.targets))
    if len(order) <= MOST_EXACT:
        return order
    return order[np.argsort(-rows.present[order].sum(axis=1), kind="stable")][:MOST_LANDMARKS]


class Regressions:
    """Makes the candidates of some examples, and fits those that are chosen.

    Args:
        rows: the examples.
        landmarks: as `choose_landmarks` gives them.
    """

    def __init__(self, rows: Rows, landmarks: np.ndarray):
        self._rows = rows
        self._landmarks = landmarks
        self._similarities = Similarities(rows.blocks, MOST_EXACT)

    def candidates(self, family: Family, modalities: tuple[int, ...]) -> list[Candidate]:
        """A candidate for each method of a family, each with its best kernel and penalty.

        Args:
            family: one of `families_of`.
            modalities: the modalities that the family reads.
        """
        rows, used = self._rows, self._rows.with_any(modalities)
        sample = used if len(used) <= _SAMPLE else np.sort(self._landmarks_of(used, _SAMPLE))
        candidates = []
        for method in family.methods:
            attempts = [(*self._search(kernel, method, sample), kernel) for kernel in family.kernels]
            _, penalty, kernel = min(attempts, key=lambda attempt: attempt[0])
            if method == "neighbours":
                raw = self._votes(kernel, used).logits(penalty)
            elif method == "ridge" and self._is_exact:
                raw, _ = self._exact(kernel, used)(penalty)
            else:
                raw = self._folds(kernel, used, self._landmarks_of(used, MOST_LANDMARKS)).held_out(method, penalty)
            calibration, answers, value = _judged(raw, rows, used)
            held_out = np.zeros_like(rows.targets)
            held_out[used] = answers
            candidates.append(Candidate(kernel, method, penalty, modalities, calibration, held_out, value))
        return candidates

    def fit(self, candidate: Candidate) -> Fitted | FittedNeighbours:
        """Fits a candidate to all examples."""
        kernel, used = candidate.kernel, self._rows.with_any(candidate.modalities)
        if candidate.method == "neighbours":
            prior = self._rows.problem(used).prior()
            return FittedNeighbours(kernel, used, prior, candidate.penalty, candidate.calibration)
        if candidate.method == "ridge" and self._is_exact:
            landmarks = used
            problem = self._rows.problem(used)
            solver = ExactRidge(self._similarities.matrix(kernel, used, used), problem.weights, candidate.penalty)
            dual = solver.dual(problem.targets - problem.prior()) / _spread(problem)
        else:
            landmarks = np.sort(self._landmarks_of(used, MOST_LANDMARKS))
            features = self._features(kernel, used, landmarks)
            problem = self._rows.problem(used, features.values)
            dual = features.dual(_regress(problem, Factor(problem.gram(), candidate.penalty), candidate.method))
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
        """`(penalty) -> (raw logits of each example from the folds without it, dual of all examples)`, float32 [n, L] each."""
        matrix = self._similarities.matrix(kernel, used, used)
        problem = self._rows.problem(used, matrix)

        def held_out(penalty: float) -> tuple[np.ndarray, np.ndarray]:
            solver = ExactRidge(matrix, problem.weights, penalty)
            differences, dual = solver.held_out(problem.targets - problem.prior(), self._rows.folds[used])
            return differences / _spread(problem) + problem.log_prior(), dual / _spread(problem)

        return held_out

    def _votes(self, kernel: Kernel, used: np.ndarray) -> Votes:
        """The votes for each example, of all those outside of its fold."""
        exponents, folds = self._similarities.exponents(kernel, used, used), self._rows.folds[used]
        exponents[folds[:, None] == folds[None, :]] = -np.inf
        problem = self._rows.problem(used)
        return Votes.of(exponents, problem.targets, problem.weights, problem.prior(), problem.multi_label)

    def _folds(self, kernel: Kernel, used: np.ndarray, landmarks: np.ndarray) -> _Folds:
        features = self._features(kernel, used, np.sort(landmarks)).values
        return _Folds(self._rows.problem(used, features), self._rows.folds[used])

    def _search(self, kernel: Kernel, method: Method, sample: np.ndarray) -> tuple[float, float]:
        """Searches from the middle penalty to both sides as long as the loss falls: (the lowest held-out loss, its penalty)."""
        compared = sample
        if method == "neighbours":
            votes = self._votes(kernel, sample)
        elif method == "ridge":
            exact = self._exact(kernel, sample)
        else:
            folds = self._folds(kernel, sample, sample)
            compared = sample[folds.first_rows(_ASKED)]
        losses: dict[int, float] = {}

        def attempt(penalty: float) -> float:
            if method != "ridge":
                raw = votes.logits(penalty) if method == "neighbours" else folds.held_out(method, penalty, _ASKED)
                return _judged(raw, self._rows, compared)[2]
            raw, dual = exact(penalty)
            calibration, _, value = _judged(raw, self._rows, compared)
            is_too_long = np.linalg.norm(dual * calibration.scale, axis=0).max() > _MOST_LENGTH
            return np.inf if is_too_long and kernel.gamma is not None else value

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
    calibration = calibrate(raw, targets, weights, rows.multi_label, match_accuracy=False)
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
        """The rows, int, of the first folds: of as many folds as have at least `least` rows together."""
        sizes = np.cumsum([len(rows) for rows in self._held_out])
        return np.concatenate(self._held_out[: int(np.searchsorted(sizes, least)) + 1])

    def held_out(self, method: Method, penalty: float, least: int | None = None) -> np.ndarray:
        """float32 [n, L]: raw logits of each row, or of `first_rows(least)`, by the regressions without its fold."""
        wanted = self.first_rows(least or len(self._problem.targets))
        answers = np.zeros_like(self._problem.targets)
        for rows in self._held_out:
            if rows[0] in wanted:
                answers[rows] = self._answers(rows, method, penalty)
        return answers[wanted] if least else answers

    def _answers(self, rows: np.ndarray, method: Method, penalty: float) -> np.ndarray:
        training = self._problem.rows(np.setdiff1d(np.arange(len(self._problem.targets)), rows, assume_unique=True))
        if method == "ridge":
            factor = Factor(self._total - self._problem.rows(rows).gram(), penalty)
        else:  # L-BFGS only begins with the factor: the one of all folds together is good enough
            if penalty not in self._factors:
                self._factors[penalty] = Factor(self._total, penalty)
            factor = self._factors[penalty]
        return self._problem.features[rows] @ _regress(training, factor, method) + training.log_prior()


def _regress(problem: Problem, factor: Factor, method: Method) -> np.ndarray:
    """Coefficients float32 [m, L] of logits, beside the offset of the prior; those of ridge regressions are not calibrated."""
    if method == "logistic":
        curvature = float(np.mean(problem.prior() * (1 - problem.prior())))
        return logistic(problem, factor, max(curvature, _LEAST_CURVATURE))
    return ridge(problem, factor) / _spread(problem)


def _spread(problem: Problem) -> np.ndarray | float:
    """p (1 - p) for the share p of each label, or its mean over the classes.

    An estimate of p + d in place of p raises the logit by about d / (p (1 - p)).
    """
    spread = problem.prior() * (1 - problem.prior())
    return spread if problem.multi_label else float(spread.mean())
