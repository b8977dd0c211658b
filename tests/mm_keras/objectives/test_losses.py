import keras
import numpy as np
import pytest

from mm_keras.objectives.losses import class_balanced_weights, make_asymmetric_loss, make_focal_loss, make_loss, make_mse_loss

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (6, 4)).astype("float32")
WEIGHTS = np.array([1, 2, 0, 1, 0.5, 3], "float32")
HOT = (RNG.random((6, 4)) < 0.4).astype("float32")
IDS = RNG.integers(0, 4, 6).astype("int32")
ONE_HOT = np.eye(4)[IDS]
SIGMOID = 1 / (1 + np.exp(-LOGITS.astype("float64")))
SOFTMAX = np.exp(LOGITS.astype("float64")) / np.exp(LOGITS.astype("float64")).sum(axis=1, keepdims=True)
OF_TRUE = SOFTMAX[np.arange(6), IDS]
COUNTS = (1000, 10, 0, 100)


def _binary(target):
    return -(target * np.log(SIGMOID) + (1 - target) * np.log(1 - SIGMOID))


def _asymmetric(negative, positive, margin):
    shifted = np.maximum(SIGMOID - margin, 0)
    return np.where(HOT, (1 - SIGMOID) ** positive * -np.log(SIGMOID), shifted**negative * -np.log(1 - shifted))


# Loss -> (multi-label, the same per example in NumPy).
CASES = {
    "softmax": (make_loss(False), -np.log(OF_TRUE)),
    "softmax, smoothed": (
        make_loss(False, label_smoothing=0.2),
        -((0.8 * ONE_HOT + 0.2 / 4) * np.log(SOFTMAX)).sum(axis=1),
    ),
    "sigmoid": (make_loss(True), _binary(HOT).mean(axis=1)),
    "sigmoid, smoothed": (make_loss(True, label_smoothing=0.2), _binary(HOT * 0.8 + 0.1).mean(axis=1)),
    "softmax, squared": (make_mse_loss(False), ((SOFTMAX - ONE_HOT) ** 2).mean(axis=1)),
    "sigmoid, squared": (make_mse_loss(True), ((SIGMOID - HOT) ** 2).mean(axis=1)),
    "softmax, focal": (make_focal_loss(False), -np.log(OF_TRUE) * (1 - OF_TRUE) ** 2),
    "sigmoid, focal": (
        make_focal_loss(True, gamma=1.5, alpha=0.25),
        (_binary(HOT) * np.where(HOT, 0.25 * (1 - SIGMOID) ** 1.5, 0.75 * SIGMOID**1.5)).mean(axis=1),
    ),
    "focal of gamma 0": (make_focal_loss(True, gamma=0), _binary(HOT).mean(axis=1)),
    "asymmetric": (make_asymmetric_loss(True), _asymmetric(4, 0, 0.05).mean(axis=1)),
    "asymmetric, without margin": (
        make_asymmetric_loss(True, gamma_negative=2, gamma_positive=1, margin=0),
        _asymmetric(2, 1, 0).mean(axis=1),
    ),
}


def _labels(loss):
    return HOT if loss.multi_label else IDS


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return CASES[request.param]


def test_loss_is_its_formula(case):
    loss, each = case
    assert float(loss(_labels(loss), LOGITS)) == pytest.approx(each.mean(), rel=1e-5)


def test_example_of_weight_two_counts_twice_and_of_weight_zero_not_at_all(case):
    loss, each = case
    labels = _labels(loss)
    assert float(loss(labels, LOGITS, WEIGHTS)) == pytest.approx((WEIGHTS * each).sum() / 6, rel=1e-5)
    changed = LOGITS.copy()
    changed[2] = -50 * changed[2]  # the one of weight 0
    assert float(loss(labels, changed, WEIGHTS)) == float(loss(labels, LOGITS, WEIGHTS))


def test_shares_of_classes_give_the_mean_of_what_each_would_alone(case):
    loss, each = case
    if loss.multi_label:
        pytest.skip("shares of several labels are labels")
    assert float(loss(ONE_HOT.astype("float32"), LOGITS)) == pytest.approx(each.mean(), rel=1e-5)
    shares = RNG.dirichlet(np.ones(4), 6).astype("float32")
    of_classes = [float(loss(np.full(6, label), LOGITS, 6 * shares[:, label])) / 6 for label in range(4)]
    assert float(loss(shares, LOGITS)) == pytest.approx(sum(of_classes), rel=1e-5)


def test_an_example_s_weight_multiplies_its_gradient_and_no_other(case):
    import tensorflow as tf

    loss, _ = case
    gradients = []
    for weights in (None, WEIGHTS):
        logits = tf.constant(LOGITS)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(_labels(loss), logits, weights)
        gradients.append(tape.gradient(value, logits).numpy())
    assert np.abs(gradients[0]).max() > 1e-3
    np.testing.assert_allclose(gradients[1], gradients[0] * WEIGHTS[:, None], rtol=1e-4, atol=1e-7)


def test_large_and_zero_logits_give_a_finite_loss_and_gradient(case):
    import tensorflow as tf

    loss, _ = case
    for logits in (1e4 * LOGITS, -1e4 * LOGITS, 0 * LOGITS):
        logits = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(_labels(loss), logits)
        assert np.isfinite(float(value))
        assert np.isfinite(tape.gradient(value, logits)).all()


def test_loss_in_half_precision_is_a_float32(case):
    loss, each = case
    value = loss(_labels(loss), keras.ops.cast(LOGITS, "bfloat16"), WEIGHTS)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    assert float(value) == pytest.approx((WEIGHTS * each).sum() / 6, rel=0.05)


def test_loss_is_computed_in_float32_even_where_all_else_is_in_half_precision():
    keras.config.set_floatx("bfloat16")
    try:
        loss = make_loss(True)
    finally:
        keras.config.set_floatx("float32")
    assert float(loss(HOT, LOGITS)) == float(make_loss(True)(HOT, LOGITS))


def test_loss_survives_its_config(case):
    loss, _ = case
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert float(restored(_labels(loss), LOGITS, WEIGHTS)) == float(loss(_labels(loss), LOGITS, WEIGHTS))


def test_compiled_loss_and_gradient_equal_the_plain_ones(case):
    """XLA, which needs static shapes."""
    import tensorflow as tf

    loss, _ = case

    def value_and_gradient(logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(_labels(loss), logits, WEIGHTS)
        return value, tape.gradient(value, logits)

    plain = value_and_gradient(tf.constant(LOGITS))
    compiled = tf.function(value_and_gradient, jit_compile=True)(tf.constant(LOGITS))
    for found, expected in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_compiled_training_steps_equal_plain_ones(case):
    """XLA, which needs static shapes."""
    loss, _ = case
    losses = []
    for jit_compile in (False, True):
        inputs = keras.Input((4,))
        model = keras.Model(inputs, keras.layers.Dense(4, kernel_initializer="identity")(inputs))
        model.compile(keras.optimizers.SGD(0.5), loss, jit_compile=jit_compile)
        losses.append([float(model.train_on_batch(LOGITS, _labels(loss), WEIGHTS)) for _ in range(3)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    assert losses[0][2] < losses[0][0]


@pytest.mark.parametrize("make", [make_loss, make_mse_loss, make_focal_loss])
def test_class_balance_weighs_the_examples_of_a_class(make):
    weights = class_balanced_weights(COUNTS, 0.99)
    plain, balanced = make(False), make(False, COUNTS, class_balance=0.99)
    for label in range(4):
        ids = np.full(6, label)
        expected = weights[label] * float(plain(ids, LOGITS))
        assert float(balanced(ids, LOGITS)) == pytest.approx(expected, rel=1e-5)
    restored = keras.losses.deserialize(keras.losses.serialize(balanced))
    assert float(restored(IDS, LOGITS)) == float(balanced(IDS, LOGITS))


@pytest.mark.parametrize("make", [make_loss, make_mse_loss, make_focal_loss, make_asymmetric_loss])
def test_class_balance_weighs_the_columns_of_the_labels(make):
    weights = class_balanced_weights(COUNTS, 0.99)
    columns = [float(make(True)(HOT[:, [label]], LOGITS[:, [label]])) for label in range(4)]
    balanced = make(True, COUNTS, class_balance=0.99)
    assert float(balanced(HOT, LOGITS)) == pytest.approx(np.mean(weights * columns), rel=1e-5)


def test_class_balanced_weights_are_the_papers():
    weights = class_balanced_weights(COUNTS, 0.99)
    effective = np.array([(1 - 0.99**n) / (1 - 0.99) for n in (1000, 10, 1, 100)])
    np.testing.assert_allclose(weights / weights[2], effective[2] / effective, rtol=1e-5)
    assert weights.mean() == pytest.approx(1)
    np.testing.assert_array_equal(class_balanced_weights(COUNTS, 0), np.ones(4))
    inverse = class_balanced_weights(COUNTS, 1 - 1e-9)
    np.testing.assert_allclose(inverse / inverse[0], [1, 100, 1000, 10], rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: make_loss(True, label_smoothing=1.0),
            r"label_smoothing must be within \[0, 1\). Received: label_smoothing=1.0",
        ),
        (lambda: make_loss(True, COUNTS, class_balance=1.0), r"class_balance must be within \[0, 1\). Received: 1.0"),
        (lambda: make_loss(True, class_balance=0.9), "class_balance needs label_counts"),
        (lambda: make_focal_loss(True, gamma=0.5), "gamma must be 0, or 1 or more. Received: gamma=0.5"),
        (lambda: make_focal_loss(True, alpha=1.5), r"alpha must be within \(0, 1\). Received: alpha=1.5"),
        (lambda: make_focal_loss(False, alpha=0.25), "alpha=0.25; set class_balance instead"),
        (lambda: make_asymmetric_loss(False), "use make_focal_loss"),
        (lambda: make_asymmetric_loss(True, margin=1.0), "margin"),
        (lambda: make_asymmetric_loss(True, gamma_negative=-1), "gamma_negative=-1"),
    ],
)
def test_impossible_arguments_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
