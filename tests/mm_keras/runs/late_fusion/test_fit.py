import numpy as np
import pytest
from scipy.special import softmax

from mm_keras.runs.late_fusion.fit import fit_stacking, fit_weights, fit_weights_per_label

ALL = np.ones((4000, 3), bool)
BOTH = ALL[:1, :2]


def _multi_class(quality, num_examples=4000, num_labels=5, seed=0):
    """(logits [N, M, L], labels [N]): calibrated answers to independent hints of the given clarity."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_labels, num_examples)
    truth = np.eye(num_labels)[labels]
    logits = [clarity * rng.normal(truth * clarity, 1) for clarity in quality]
    return np.stack(logits, axis=1), labels


def _multi_label(quality, num_examples=4000, seed=0):
    """(logits [N, M, L], labels [N, L]): `quality` [M, L] says how clear each model's hints to each label are."""
    rng = np.random.default_rng(seed)
    quality = np.asarray(quality, float)
    labels = rng.integers(0, 2, (num_examples, quality.shape[1])).astype("float32")
    hints = rng.normal((labels[:, None] * 2 - 1) * quality, 1)
    return 2 * quality * hints, labels


def _accuracy(weights, logits, labels):
    return (np.einsum("m,nml->nl", weights, softmax(logits, axis=2)).argmax(axis=1) == labels).mean()


def test_shared_weights_score_as_the_best_of_a_grid():
    logits, labels = _multi_class([2.0, 1.5, 1.0])
    logits[:, 0] *= 0.3  # the best model is the least sure
    weights = fit_weights(logits, ALL, labels, False)[:, 0]
    assert weights.sum() == pytest.approx(1)
    grid = [(a, b, 1 - a - b) for a in np.linspace(0, 1, 21) for b in np.linspace(0, 1 - a, 21)]
    assert _accuracy(weights, logits, labels) > max(_accuracy(each, logits, labels) for each in grid) - 0.005


def test_models_that_know_half_each_share_the_weight_though_one_is_surer():
    """The first leaves 3 of 12 labels, the second 4. The plain log loss is least with the first alone, which names 1 of 3."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 12, 2000)
    told = [np.where(rng.random(2000) < 0.95, labels, rng.integers(0, 12, 2000)) for _ in range(2)]
    groups = [np.arange(12) // 3, np.arange(12) % 3]
    logits = np.stack([np.where(g[t][:, None] == g, 4.0, 0) for g, t in zip(groups, told, strict=True)], axis=1)
    weights = fit_weights(logits + rng.normal(0, 0.1, logits.shape), ALL[:2000, :2], labels, False)[:, 0]
    assert weights.min() > 0.3
    assert _accuracy(weights, logits, labels) > 0.85


@pytest.mark.parametrize("multi_label", [False, True])
def test_useless_model_weighs_next_to_nothing(multi_label):
    quality = [2.0, 0.0, 1.9]
    logits, labels = _multi_label([[q] * 4 for q in quality]) if multi_label else _multi_class(quality)
    logits[:, 1] = np.random.default_rng(5).normal(0, 3, logits[:, 1].shape)  # sure, and of nothing
    weights = fit_weights(logits, ALL, labels, multi_label)[:, 0]
    assert 0 < weights[1] < 0.02
    assert min(weights[[0, 2]]) > 0.2
    (stacked,) = fit_stacking(logits, ALL, labels, multi_label, ALL[:1])
    assert stacked[1].min() >= 0
    assert stacked[1].max() < 0.05 < 0.5 < stacked[0].min()


@pytest.mark.parametrize("multi_label", [False, True])
def test_weights_of_a_label_follow_the_model_that_knows_it(multi_label):
    rng = np.random.default_rng(1)
    if multi_label:
        logits, labels = _multi_label([[2, 0.1], [0.1, 2]])
    else:  # the first model knows which of 0 and 1 it is, or that it is 2 or 3; the second the other way round
        labels = rng.integers(0, 4, 4000)
        logits = np.full((4000, 2, 4), -4.0)
        for model, pairs in enumerate([((0,), (1,), (2, 3)), ((0, 1), (2,), (3,))]):
            for group in pairs:
                logits[np.ix_(np.isin(labels, group), [model], group)] = 0
    weights = fit_weights_per_label(logits, ALL[:, :2], labels, multi_label)
    half = weights.shape[1] // 2
    np.testing.assert_allclose(weights.sum(axis=0), 1)
    assert weights[0, :half].min() > 0.85
    assert weights[1, half:].min() > 0.85


def test_label_with_few_examples_keeps_the_shared_weights():
    logits, labels = _multi_label(np.tile([[2.0], [0.5]], 6))
    labels[:, 5] = 0
    logits[:, :, 5] = -6 + logits[:, :, 5] / 10
    labels[:2, 5] = 1
    logits[:2, 1, 5] = -3  # by chance the weak model found both of them less unlikely
    shared = fit_weights(logits, ALL[:, :2], labels, True)[0, 0]
    rare = fit_weights_per_label(logits, ALL[:, :2], labels, True)[0, 5]
    alone = fit_weights(logits[:, :, 5:], ALL[:, :2], labels[:, 5:], True)[0, 0]
    assert alone < 0.1
    assert abs(rare - shared) < 0.4 * abs(alone - shared)


@pytest.mark.parametrize("multi_label", [False, True])
def test_stacking_undoes_a_wrong_temperature_and_adds_evidence(multi_label):
    """Of independent hints, log-probabilities add up: the right weights are 1, or 4 where a model is four times too unsure."""
    quality = [1.5, 1.0]
    logits, labels = _multi_label([[q] * 3 for q in quality]) if multi_label else _multi_class(quality)
    (stacked,) = fit_stacking(logits / np.array([1, 4])[:, None], ALL[:, :2], labels, multi_label, BOTH)
    np.testing.assert_allclose(stacked[0], 1, atol=0.2)
    np.testing.assert_allclose(stacked[1], 4, atol=0.6)
    np.testing.assert_allclose(stacked[2], 0, atol=0.5)


def test_stacking_learns_a_bias():
    logits, labels = _multi_label([[1.5, 1.5]])
    (stacked,) = fit_stacking(logits + np.array([2.0, -1.0]), ALL[:, :1], labels, True, ALL[:1, :1])
    np.testing.assert_allclose(stacked, [[1, 1], [-2, 1]], atol=0.15)


@pytest.mark.parametrize("multi_label", [False, True])
def test_examples_count_only_for_the_models_that_have_an_input(multi_label):
    quality = [2.0, 1.5]
    logits, labels = _multi_label([[q] * 4 for q in quality]) if multi_label else _multi_class(quality)
    patterns = np.array([[True, True], [True, False], [False, True]])
    both = fit_weights(logits, ALL[:, :2], labels, multi_label)
    stacked = fit_stacking(logits, ALL[:, :2], labels, multi_label, patterns)
    rng = np.random.default_rng(3)
    hidden = rng.random(4000) < 0.5
    voting = np.stack([np.ones(4000, bool), ~hidden], axis=1)
    logits[hidden, 1] = rng.normal(0, 30, logits[hidden, 1].shape)  # what a model says of nothing
    np.testing.assert_allclose(fit_weights(logits, voting, labels, multi_label), both, atol=0.2)
    found = fit_stacking(logits, voting, labels, multi_label, patterns)
    np.testing.assert_allclose(found[1], stacked[1], atol=1e-6)  # all examples tell of the first model alone
    np.testing.assert_allclose(found[:, :2], stacked[:, :2], atol=0.5)
    np.testing.assert_allclose(found[:, :2].mean(axis=2), [[1, 1], [1, 0], [0, 1]], atol=0.3)
    assert not found[1, 1].any()


def test_answers_that_are_sure_and_wrong_leave_all_fits_finite():
    logits, labels = _multi_label([[2.0, 2.0], [1.0, 1.0]], 200)
    logits[0] = [[90, -90], [-90, 90]]
    for fit in (fit_weights, fit_weights_per_label):
        assert np.isfinite(fit(logits, ALL[:200, :2], labels, True)).all()
    assert np.isfinite(fit_stacking(logits, ALL[:200, :2], labels, True, BOTH)).all()


def test_pattern_that_no_example_shows_takes_the_mean_of_its_models():
    logits, labels = _multi_label([[1.5], [1.5]], 50)
    never = np.array([[True, True], [False, True]])
    voting = np.tile([True, False], (50, 1))
    np.testing.assert_allclose(fit_stacking(logits, voting, labels, True, never), [[[0.5], [0.5], [0]], [[0], [1], [0]]])
