import numpy as np
import pytest
from scipy.special import softmax

from mm_keras.solving import ensemble
from mm_keras.solving.calibration import calibrate
from mm_keras.solving.ensemble import choose_ensemble, mean_loss


def _drawn(multi_label, count=2000, labels=3, seed=0):
    """Targets and the logits that they were drawn from."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, labels)) * 2
    if multi_label:
        targets = rng.random((count, labels)) < 1 / (1 + np.exp(-logits))
    else:
        targets = np.eye(labels)[(logits + rng.gumbel(size=logits.shape)).argmax(axis=1)]
    return targets.astype("float32"), logits.astype("float32"), np.ones(count, np.float32)


def test_best_candidate_is_chosen_and_the_first_of_equals():
    targets, logits, weights = _drawn(False)
    noise = np.random.default_rng(1).normal(size=logits.shape).astype("float32") * 3
    assert choose_ensemble([noise, logits, logits.copy()], targets, weights, False) == {1: 1.0}


@pytest.mark.parametrize("multi_label", [False, True])
def test_candidates_that_know_different_things_are_mixed(multi_label):
    targets, logits, weights = _drawn(multi_label)
    rng = np.random.default_rng(1)
    one, other = (logits + rng.normal(size=logits.shape).astype("float32") for _ in range(2))
    shares = choose_ensemble([one, other], targets, weights, multi_label)
    assert set(shares) == {0, 1}
    assert sum(shares.values()) == pytest.approx(1)
    assert mean_loss(0.5 * (one + other), targets, weights, multi_label) < mean_loss(one, targets, weights, multi_label)


def test_candidate_of_which_half_would_be_too_much_has_a_small_share():
    targets, logits, weights = _drawn(False)
    rng = np.random.default_rng(1)
    good = logits + rng.normal(size=logits.shape).astype("float32")
    poor = logits + 2.5 * rng.normal(size=logits.shape).astype("float32")
    assert mean_loss((good + poor) / 2, targets, weights, False) > mean_loss(good, targets, weights, False)
    shares = choose_ensemble([good, poor], targets, weights, False)
    assert 0.02 < shares[1] < 0.4
    mixed = shares[0] * good + shares[1] * poor
    assert mean_loss(mixed, targets, weights, False) < mean_loss(good, targets, weights, False) * 0.99


def test_of_many_examples_some_decide(monkeypatch):
    targets, logits, weights = _drawn(False)
    odd = np.where(np.arange(2000)[:, None] % 2, logits, -logits)  # right for every second example alone
    assert choose_ensemble([odd, logits], targets, weights, False) == {1: 1.0}
    monkeypatch.setattr(ensemble, "_MOST_ANSWERS", 3000)  # those of the first, third, … example
    assert choose_ensemble([-odd, logits], targets, weights, False) == {0: 1.0}


def test_weights_decide_what_counts():
    targets = np.eye(2, dtype="float32")[[0, 1]]
    knows_first, knows_second = np.array([[3, 0], [3, 0]], np.float32), np.array([[0, 3], [0, 3]], np.float32)
    weights = np.array([0.1, 1.9], np.float32)
    assert choose_ensemble([knows_first, knows_second], targets, weights, False)[1] > 0.5


def test_temperature_undoes_what_made_logits_too_sure():
    targets, logits, weights = _drawn(False)
    calibration = calibrate(logits * 4, targets, weights, False)
    np.testing.assert_allclose(calibration.scale, 0.25, atol=0.02)
    assert not calibration.offset.any()


def _matched(shares):
    """(mean confidence by the log-loss alone, mean confidence that matches the accuracy, ratio of the factors)."""
    targets = np.repeat(np.eye(3, dtype="float32"), shares, axis=0)
    logits, weights = np.tile(np.array([1, 0, -1], np.float32), (200, 1)), np.ones(200, np.float32)
    alone, matched = (calibrate(logits, targets, weights, False, match_accuracy) for match_accuracy in (False, True))
    confidences = (softmax(calibration(logits), axis=1).max(axis=1).mean() for calibration in (alone, matched))
    return *confidences, matched.scale[0] / alone.scale[0]


def test_temperature_is_raised_until_the_confidence_is_the_accuracy():
    alone, matched, _ = _matched((120, 70, 10))
    assert alone > 0.63
    np.testing.assert_allclose(matched, 0.6, atol=0.005)


def test_temperature_is_not_lowered_for_a_confidence_below_the_accuracy():
    alone, _, ratio = _matched((140, 30, 30))
    assert alone < 0.69 and ratio == 1


def test_temperature_is_raised_by_a_fifth_at_most():
    _, matched, ratio = _matched((90, 105, 5))
    assert matched > 0.5
    np.testing.assert_allclose(ratio, np.exp(-0.2), rtol=1e-3)


def test_platt_scaling_finds_slope_and_offset_of_each_label():
    targets, logits, weights = _drawn(True, count=20_000)
    distorted = logits * np.array([2, 0.5, 1]) + np.array([1, 0, -2])
    calibration = calibrate(distorted.astype("float32"), targets, weights, True)
    np.testing.assert_allclose(calibration.scale, [0.5, 2, 1], rtol=0.1)
    np.testing.assert_allclose(calibration.offset, [-0.5, 0, 2], atol=0.15)


def test_label_without_positives_is_calibrated_towards_the_others():
    targets, logits, weights = _drawn(True)
    targets[:, 2] = 0
    calibration = calibrate(logits, targets, weights, True)
    assert np.isfinite(calibration.scale).all() and np.isfinite(calibration.offset).all()
    assert (calibration.scale > 0).all()
    assert calibration(logits)[:, 2].max() < logits[:, 2].max()
