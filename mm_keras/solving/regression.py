"""Ridge and logistic regressions that share one factorisation: the linear algebra of the solver."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import spotri
from scipy.special import expit, log_softmax, softmax

_MEMORY = 6  # pairs that L-BFGS remembers
_MOST_ITERATIONS = 40
_TOLERANCE = 1e-4  # the part of the first loss that an iteration has to gain for another one to follow


@dataclasses.dataclass(frozen=True)
class Problem:
    """A regression problem: rows of features with their targets.

    Attributes:
        features: float32 [N, m].
        targets: 0 and 1, float32 [N, L].
        weights: float32 [N], how much each row counts; 1 on average.
        multi_label: whether labels are independent of each other (sigmoid) or exclude each other (softmax).
    """

    features: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    multi_label: bool

    def rows(self, chosen: np.ndarray) -> Problem:
        """The same problem for some of its rows."""
        return Problem(self.features[chosen], self.targets[chosen], self.weights[chosen], self.multi_label)

    def gram(self) -> np.ndarray:
        """float32 [m, m]: the weighted inner products of the features."""
        return (self.features * self.weights[:, None]).T @ self.features

    def prior(self) -> np.ndarray:
        """float32 [L]: the weighted share of each label, kept off 0 and 1."""
        shares = np.average(self.targets, axis=0, weights=self.weights)
        return np.clip(shares, 0.5 / (len(self.targets) + 1), 1 - 0.5 / (len(self.targets) + 1)).astype("float32")

    def log_prior(self) -> np.ndarray:
        """float32 [L]: the logits that answer with the prior."""
        prior = self.prior()
        return np.log(prior / (1 - prior)) if self.multi_label else np.log(prior)


class Factor:
    """The Cholesky factor of `gram + penalty x identity`; both regressions solve with it.

    Args:
        gram: float32 [m, m].
        penalty: above 0.
    """

    def __init__(self, gram: np.ndarray, penalty: float):
        damped = gram.copy()
        damped.flat[:: len(gram) + 1] += penalty
        self._factor = cho_factor(damped, lower=True, overwrite_a=True, check_finite=False)
        self.penalty = penalty

    def solve(self, right: np.ndarray) -> np.ndarray:
        """float32 [m, L] -> [m, L]."""
        return cho_solve(self._factor, right, check_finite=False)


class ExactRidge:
    """The ridge regression on a whole kernel, in its dual form. One inverse gives its answers without each fold, for all folds.

    Reference: Pahikkala, Boberg and Salakoski, "Fast n-Fold Cross-Validation for Regularized Least-Squares" (2006), theorem 1.

    Args:
        kernel: float32 [N, N], the kernel of all examples with each other.
        weights: float32 [N], how much each example counts.
        penalty: above 0.
    """

    def __init__(self, kernel: np.ndarray, weights: np.ndarray, penalty: float):
        damped = kernel.copy(order="F")
        damped.flat[:: len(kernel) + 1] += penalty / np.maximum(weights, 1e-6)
        factor, _ = cho_factor(damped, lower=True, overwrite_a=True, check_finite=False)
        inverse, failed = spotri(factor, lower=True, overwrite_c=True)
        if failed:
            raise np.linalg.LinAlgError("the kernel's matrix could not be inverted")
        self._inverse = np.tril(inverse) + np.tril(inverse, -1).T

    def dual(self, targets: np.ndarray) -> np.ndarray:
        """Targets float32 [N, L] -> the coefficients of the kernel [N, L]."""
        return self._inverse @ targets

    def held_out(self, targets: np.ndarray, folds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The answer for each example by the regression without its fold, and the `dual` of all examples; float32 [N, L] each.

        Args:
            targets: float32 [N, L].
            folds: int [N].
        """
        answers, dual = targets.copy(), self.dual(targets)
        for fold in np.unique(folds):
            rows = np.flatnonzero(folds == fold)
            answers[rows] -= np.linalg.solve(self._inverse[np.ix_(rows, rows)], dual[rows])
        return answers, dual


def ridge(problem: Problem, factor: Factor) -> np.ndarray:
    """The ridge regression of the targets, less their prior, on the features.

    Returns:
        float32 [m, L], whose products with features estimate how much likelier than usual each label is.
    """
    differences = (problem.targets - problem.prior()) * problem.weights[:, None]
    return factor.solve(problem.features.T @ differences)


def logistic(problem: Problem, factor: Factor, curvature: float) -> np.ndarray:
    """The L2-regularised logistic regression: multinomial, or one against the rest for several labels.

    It starts at the prior, which is an offset that is not penalised. L-BFGS begins from the Hessian that the loss would have if
    its curvature were the same everywhere; that Hessian's factor is the ridge regression's. It ends when an iteration gains
    almost nothing.

    Reference: Nocedal and Wright, "Numerical Optimization" (2006), algorithm 7.4, with a Hessian as in Böhning, "Multinomial
    logistic regression algorithm" (1992).

    Args:
        problem: what to regress.
        factor: the factor of the problem's Gram matrix, or of one that is like it, with the penalty penalty / curvature.
        curvature: the second derivative of the loss that is assumed at first, above 0.

    Returns:
        float32 [m, L]: the logits of features x are x @ result + `problem.log_prior()`.
    """
    penalty = factor.penalty * curvature
    features, offset = problem.features, problem.log_prior()
    coefficients = np.zeros((features.shape[1], problem.targets.shape[1]), np.float32)
    logits = np.tile(offset, (len(features), 1))
    value, residual = _loss(logits, problem)
    gradient = features.T @ residual
    first_value, pairs = value, []
    for _ in range(_MOST_ITERATIONS):
        direction = -_two_loops(gradient, pairs, lambda right: factor.solve(right) / curvature)
        change = features @ direction
        slope = float(np.vdot(gradient, direction))
        square, cross = float(np.vdot(direction, direction)), float(np.vdot(coefficients, direction))
        norm = float(np.vdot(coefficients, coefficients))
        step = 1.0
        while True:  # the products are known already, so that another step costs a softmax only
            new_value, residual = _loss(logits + step * change, problem)
            new_value += penalty / 2 * (norm + 2 * step * cross + step * step * square)
            if new_value <= value + 1e-4 * step * slope or step < 1e-3:
                break
            step /= 2
        if not new_value < value:
            break
        coefficients += step * direction
        logits += step * change
        new_gradient = features.T @ residual + penalty * coefficients
        weight_change, gradient_change = step * direction, new_gradient - gradient
        if (product := float(np.vdot(weight_change, gradient_change))) > 0:
            pairs = [*pairs[1 - _MEMORY :], (weight_change, gradient_change, product)]
        gain, value, gradient = value - new_value, new_value, new_gradient
        if gain < _TOLERANCE * first_value:
            break
    return coefficients


def _loss(logits: np.ndarray, problem: Problem) -> tuple[float, np.ndarray]:
    """(the weighted sum of the losses, its gradient by the logits [N, L])."""
    weights = problem.weights[:, None]
    if problem.multi_label:
        losses = np.logaddexp(0, logits) - problem.targets * logits
        return float(np.sum(losses * weights, dtype="float64")), (expit(logits) - problem.targets) * weights
    losses = -log_softmax(logits, axis=1) * problem.targets
    return float(np.sum(losses * weights, dtype="float64")), (softmax(logits, axis=1) - problem.targets) * weights


def _two_loops(gradient: np.ndarray, pairs: list, first_inverse) -> np.ndarray:
    """The product of L-BFGS's inverse Hessian with a gradient."""
    remainder = gradient.copy()
    shares = []
    for weight_change, gradient_change, product in reversed(pairs):
        shares.append(float(np.vdot(weight_change, remainder)) / product)
        remainder -= shares[-1] * gradient_change
    result = first_inverse(remainder)
    for (weight_change, gradient_change, product), share in zip(pairs, reversed(shares), strict=True):
        result += (share - float(np.vdot(gradient_change, result)) / product) * weight_change
    return result
