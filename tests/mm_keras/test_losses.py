import keras
import numpy as np
import pytest

from mm_keras.losses import make_loss

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (6, 4)).astype("float32")
WEIGHTS = np.array([1, 2, 0, 1, 0.5, 3], "float32")


def _each(multi_label):
    """(labels, cross-entropy of each example), computed in NumPy."""
    if multi_label:
        labels = (RNG.random((6, 4)) < 0.4).astype("float32")
        return labels, (np.logaddexp(0, LOGITS) - labels * LOGITS).mean(axis=1)
    labels = RNG.integers(0, 4, 6).astype("int32")
    return labels, np.log(np.exp(LOGITS).sum(axis=1)) - LOGITS[np.arange(6), labels]


@pytest.mark.parametrize("multi_label", [True, False])
def test_loss_is_the_cross_entropy_of_logits(multi_label):
    labels, each = _each(multi_label)
    assert float(make_loss(multi_label)(labels, LOGITS)) == pytest.approx(each.mean(), rel=1e-5)


@pytest.mark.parametrize("multi_label", [True, False])
def test_example_of_weight_two_counts_twice_and_of_weight_zero_not_at_all(multi_label):
    labels, each = _each(multi_label)
    loss = make_loss(multi_label)
    assert float(loss(labels, LOGITS, WEIGHTS)) == pytest.approx((WEIGHTS * each).sum() / 6, rel=1e-5)
    changed = LOGITS.copy()
    changed[2] = -50 * changed[2]  # the one of weight 0
    assert float(loss(labels, changed, WEIGHTS)) == float(loss(labels, LOGITS, WEIGHTS))


@pytest.mark.parametrize("multi_label", [True, False])
def test_large_logits_give_a_finite_loss(multi_label):
    labels, _ = _each(multi_label)
    assert np.isfinite(float(make_loss(multi_label)(labels, 1e4 * LOGITS)))


def test_loss_in_half_precision_is_a_float32():
    labels, _ = _each(False)
    assert keras.backend.standardize_dtype(make_loss(False)(labels, LOGITS).dtype) == "float32"
