import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mm_keras.solving.regression import ExactRidge, Factor, Problem, logistic, ridge


def _problem(multi_label=False, count=120, width=10, labels=4, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, width)).astype("float32")
    logits = features @ rng.normal(size=(width, labels)) + rng.normal(size=(count, labels))
    targets = (logits > 0.5) if multi_label else np.eye(labels)[logits.argmax(axis=1)]
    weights = rng.uniform(0.5, 1.5, count)
    return Problem(features, targets.astype("float32"), (weights / weights.mean()).astype("float32"), multi_label)


def test_multinomial_regression_equals_scikit_learns():
    problem, penalty = _problem(), 0.7
    ours = logistic(problem, Factor(problem.gram(), penalty / 0.2), curvature=0.2)
    reference = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=1000, fit_intercept=False)
    # The prior is an offset that scikit-learn cannot be given: equal classes have none.
    equal = Problem(problem.features[:100], np.eye(4, dtype="float32")[np.arange(100) % 4], np.ones(100, np.float32), False)
    ours = logistic(equal, Factor(equal.gram(), penalty / 0.2), curvature=0.2)
    theirs = reference.fit(equal.features, equal.targets.argmax(axis=1)).coef_.T
    np.testing.assert_allclose(ours - ours.mean(axis=1, keepdims=True), theirs, atol=0.01)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("curvature", [0.05, 0.25])
def test_regression_is_at_its_minimum_whatever_curvature_is_assumed(multi_label, curvature):
    problem, penalty = _problem(multi_label), 0.5
    found = logistic(problem, Factor(problem.gram(), penalty / curvature), curvature)
    logits = problem.features @ found + problem.log_prior()
    if multi_label:
        probabilities = 1 / (1 + np.exp(-logits))
    else:
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = shares / shares.sum(axis=1, keepdims=True)
    residual = (probabilities - problem.targets) * problem.weights[:, None]
    gradient = problem.features.T @ residual + penalty * found
    at_start = problem.features.T @ ((problem.prior() - problem.targets) * problem.weights[:, None])
    assert np.linalg.norm(gradient) < 0.03 * np.linalg.norm(at_start)


def test_ridge_regression_solves_its_equation():
    problem, penalty = _problem(), 2.0
    found = ridge(problem, Factor(problem.gram(), penalty))
    weights = problem.weights[:, None]
    gradient = problem.features.T @ (weights * (problem.features @ found - problem.targets + problem.prior())) + penalty * found
    assert np.abs(gradient).max() < 1e-3


def test_held_out_answers_are_those_of_regressions_without_the_fold():
    problem, penalty = _problem(), 0.8
    targets, folds = problem.targets - problem.prior(), np.arange(120) % 5
    kernel = problem.features @ problem.features.T
    held_out, _ = ExactRidge(kernel, problem.weights, penalty).held_out(targets, folds)
    for fold in range(5):
        kept, rows = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        dual = ExactRidge(kernel[np.ix_(kept, kept)], problem.weights[kept], penalty).dual(targets[kept])
        np.testing.assert_allclose(held_out[rows], kernel[np.ix_(rows, kept)] @ dual, atol=2e-3)


def test_dual_and_primal_ridge_regressions_are_equal():
    problem, penalty = _problem(), 1.5
    dual = ExactRidge(problem.features @ problem.features.T, problem.weights, penalty).dual(problem.targets - problem.prior())
    np.testing.assert_allclose(problem.features.T @ dual, ridge(problem, Factor(problem.gram(), penalty)), atol=2e-3)


def test_prior_is_the_weighted_share_and_never_certain():
    targets = np.eye(3, dtype="float32")[[0, 0, 1, 1]]
    problem = Problem(np.zeros((4, 1), np.float32), targets, np.array([1.5, 1.5, 0.5, 0.5], np.float32), False)
    np.testing.assert_allclose(problem.prior(), [0.75, 0.25, 0.1])
    np.testing.assert_allclose(problem.log_prior(), np.log([0.75, 0.25, 0.1]), rtol=1e-6)
