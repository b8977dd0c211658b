"""Finds how to bring the answers of trained models together, from answers to examples that none of them learned from.

Everything is fitted by log losses, which take into account how sure a model is; a score such as F1 changes in steps, and says
little about a few hundred examples. But for the weighted sum of probabilities its own log loss is not enough. Where models know
different things, each of them gives the truth some probability, and their sum names the truth; yet the loss is least if the
surest of them has all the weight. So half of what is minimised is the log loss of the sum after its best rescaling (a
temperature, and for yes or no a bias), which asks for the right order and not for confidence. The rescaling is then dropped;
thresholds are tuned afterwards.

The functions take

    logits   float [N, M, L]   of M models
    voting   bool  [N, M]      False where a model has none of its inputs: the others share its weight
    labels   int   [N]         multi-class; 0 or 1 [N, L] for multi-label data

and hold some copies of the logits in memory.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_softmax

from tfrecords_tools.progress import progress_bar

_LEAST = 1e-6  # the least weight; not 0, so that a model still counts where it is the only one that votes
_LEAST_PROBABILITY = 1e-12
_PRIOR_EXAMPLES = 10.0  # that the shared lambdas count as, beside those of a label
_RIDGE = 1.0  # the default of scikit-learn's logistic regression


def fit_weights(logits: np.ndarray, voting: np.ndarray, labels: np.ndarray, multi_label: bool) -> np.ndarray:
    """Lambdas for the weighted sum of probabilities, shared by all labels.

    Returns:
        float64 [M, 1], above 0, with a sum of 1.
    """
    truth = labels if multi_label else labels[:, None] == np.arange(logits.shape[2])
    return _fit_mixture(_probabilities(logits, multi_label), _voters(voting), truth, multi_label)[:, None]


def fit_weights_per_label(logits: np.ndarray, voting: np.ndarray, labels: np.ndarray, multi_label: bool) -> np.ndarray:
    """Lambdas for each label, fitted to whether an example has that label, in multi-class data too.

    A label's few examples do not determine its lambdas: the shared ones of `fit_weights` count as ten more examples.

    Returns:
        float64 [M, L], above 0; each column has a sum of 1.
    """
    shared = fit_weights(logits, voting, labels, multi_label)[:, 0]
    probabilities, voting, num_labels = _probabilities(logits, multi_label), _voters(voting), logits.shape[2]
    weights = np.empty(logits.shape[1:])
    with progress_bar("tuning weights", "labels", num_labels, shown=num_labels > 100) as bar:
        for label in range(num_labels):
            truth = (labels[:, label] if multi_label else labels == label)[:, None]
            weights[:, label] = _fit_mixture(probabilities[:, :, label : label + 1], voting, truth, True, shared)
            bar.update()
    return weights


def fit_stacking(
    logits: np.ndarray, voting: np.ndarray, labels: np.ndarray, multi_label: bool, patterns: np.ndarray
) -> np.ndarray:
    """A logistic layer over the models' log-probabilities (multi-class) or logits (multi-label), for each pattern of voters.

    A model's answer deserves another weight where another model has no inputs. So each pattern has a layer of its own, fitted
    to all examples in which the pattern's models have inputs, with the answers of the other models hidden.

    Args:
        patterns: bool [P, M], which models vote.

    Returns:
        float64 [P, M + 1, L]: weights, 0 and above, then the biases.
    """
    _, num_models, num_labels = logits.shape
    scores = np.asarray(logits, "float64") if multi_label else log_softmax(logits.astype("float64"), axis=2)
    truth = labels if multi_label else labels[:, None] == np.arange(num_labels)
    values = np.zeros((len(patterns), num_models + 1, num_labels))
    for row, pattern in zip(values, patterns, strict=True):
        has_inputs = voting[:, pattern].all(axis=1)
        row[np.append(pattern, True)] = _fit_logistic(scores[has_inputs][:, pattern], truth[has_inputs], multi_label)
    return values


def _fit_logistic(scores: np.ndarray, truth: np.ndarray, multi_label: bool) -> np.ndarray:
    """Weights, 0 and above, and biases [M + 1, L] for scores [N, M, L] and what is true, 0 or 1 [N, L].

    First one weight a model is found, then those of each label, held to the first ones by a ridge, and its bias, held to 0.
    These are M + 1 numbers a label; a full layer would have M times L + 1, too many for most held-out splits.
    """
    _, num_models, num_labels = scores.shape

    def log_loss(weights: np.ndarray, bias: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """The sum over all examples, and its gradients."""
        loss, error = _log_loss(bias + (weights * scores).sum(axis=1), truth, multi_label)
        return loss, (error[:, None] * scores).sum(axis=0), error.sum(axis=0)

    def shared_loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        loss, slopes, _ = log_loss(np.tile(values[:, None], num_labels), np.zeros(num_labels))
        return loss, slopes.sum(axis=1)

    shared = _minimize(shared_loss, np.full(num_models, 1 / num_models), num_models)
    start = np.zeros((num_models + 1, num_labels))
    start[:-1] = shared[:, None]

    def ridge_loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        values = values.reshape(start.shape)
        loss, slopes, bias_slopes = log_loss(values[:-1], values[-1])
        gradient = np.concatenate([slopes, bias_slopes[None]]) + _RIDGE * (values - start)
        return loss + _RIDGE / 2 * ((values - start) ** 2).sum(), gradient.ravel()

    return _minimize(ridge_loss, start.ravel(), num_models * num_labels).reshape(start.shape)


def _minimize(loss: Callable, start: np.ndarray, num_weights: int) -> np.ndarray:
    """Minimises a loss by L-BFGS-B; the first `num_weights` values stay at 0 or above."""
    bounds = [(0, None)] * num_weights + [(None, None)] * (len(start) - num_weights)
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500}).x


def _fit_mixture(
    probabilities: np.ndarray, voting: np.ndarray, truth: np.ndarray, yes_or_no: bool, prior: np.ndarray | None = None
) -> np.ndarray:
    """Lambdas [M] of a weighted sum q of probabilities, which minimise the log loss of q rescaled, plus that of q.

    Args:
        probabilities: [N, M, L].
        voting: 0 or 1 [N, M].
        truth: 0 or 1 [N, L].
        yes_or_no: rescale to sigmoid(a logit(q) + b), else to softmax(a log(q)).
        prior: lambdas [M] that count as `_PRIOR_EXAMPLES` more examples.
    """
    num_models = probabilities.shape[1]
    probabilities = np.clip(probabilities, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    voting = voting[:, :, None]
    pull = np.zeros(num_models) if prior is None else _PRIOR_EXAMPLES * prior

    def log_loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        weights, scale, bias = values[:-2], values[-2], values[-1]
        weight = voting * weights[:, None]
        voters = weight.sum(axis=1)
        q = (weight * probabilities).sum(axis=1) / voters
        score = np.log(q) - np.log1p(-q) if yes_or_no else np.log(q)
        losses, errors = zip(*(_log_loss(z, truth, yes_or_no) for z in (scale * score + bias, score)), strict=True)
        slope = (scale * errors[0] + errors[1]) / (q * (1 - q) if yes_or_no else q)  # the derivative of the loss by q
        slopes = (voting * (probabilities - q[:, None]) * (slope / voters)[:, None]).sum(axis=(0, 2))
        loss = sum(losses) - pull @ np.log(weights / weights.sum())
        slopes += pull.sum() / weights.sum() - pull / weights
        bias_slope = errors[0].sum() if yes_or_no else 0
        return loss / len(truth), np.array([*slopes, (errors[0] * score).sum(), bias_slope]) / len(truth)

    start = np.full(num_models, 1 / num_models) if prior is None else prior
    bounds = [(_LEAST, 1)] * num_models + [(0.1, 100), (None, None)]
    mixture = minimize(log_loss, [*start, 1, 0], jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-10}).x[:-2]
    return mixture / mixture.sum()


def _log_loss(z: np.ndarray, truth: np.ndarray, yes_or_no: bool) -> tuple[float, np.ndarray]:
    """The sum over examples and labels of the loss of logits [N, L], and its gradient."""
    if yes_or_no:
        return (np.logaddexp(0, z) - truth * z).sum(), expit(z) - truth
    log_probabilities = log_softmax(z, axis=1)
    return -(log_probabilities * truth).sum(), np.exp(log_probabilities) - truth


def _probabilities(logits: np.ndarray, multi_label: bool) -> np.ndarray:
    logits = logits.astype("float64")
    return expit(logits) if multi_label else np.exp(log_softmax(logits, axis=2))


def _voters(voting: np.ndarray) -> np.ndarray:
    """0 or 1 [N, M]: which models vote; where none has an input, all do."""
    return (voting | ~voting.any(axis=1, keepdims=True)).astype("float64")
