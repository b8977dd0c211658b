import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from mm_keras.objectives.binned_precision import BinnedMeanAveragePrecision
from mm_keras.objectives.losses import make_loss
from mm_keras.objectives.streaming_metrics import AVERAGES, SCORES, CalibrationError, ImageDScore, LabelScore

NAMES = [f"{average}_{score}" for average in AVERAGES for score in SCORES]
every_seed = pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])


def _case(seed, multi_label, num_labels=7, number=90):
    """(logits, labels, weights): a fifth weighs 0, others between 0 and 3."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0, 3, number) * (rng.random(number) < 0.8)
    logits = rng.normal(-0.5, 2, (number, num_labels)).astype("float32")
    labels = (rng.random(logits.shape) < 0.3).astype("float32") if multi_label else rng.integers(0, num_labels - 1, number)
    return logits, labels, weights.astype("float32")


def _stream(metric, logits, labels, weights=None):
    for part in np.array_split(np.arange(len(logits)), 4):
        metric.update_state(labels[part], logits[part], None if weights is None else weights[part])
    return float(metric.result())


def _expected(name, true, predicted, weights):
    average, score = name.split("_")
    scores = precision_recall_fscore_support(true, predicted, average=average, zero_division=0, sample_weight=weights)
    return scores[SCORES.index(score)]


@every_seed
@pytest.mark.parametrize("name", NAMES)
def test_multi_label_scores_agree_with_scikit_learn(name, seed):
    logits, labels, weights = _case(seed, multi_label=True)
    thresholds = np.random.default_rng(seed).uniform(0.2, 0.8, 7)
    predicted = 1 / (1 + np.exp(-logits.astype("float64"))) > thresholds
    found = _stream(LabelScore(name, 7, True, thresholds), logits, labels, weights)
    assert found == pytest.approx(_expected(name, labels, predicted, weights), abs=1e-6)


@every_seed
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("samples")])
def test_multi_class_scores_agree_with_scikit_learn(name, seed):
    """The last label never occurs; in every other case it is never predicted either, and left out of macro averages."""
    logits, labels, weights = _case(seed, multi_label=False)
    if seed % 2:
        logits[:, -1] = -50
    found = _stream(LabelScore(name, 7, False), logits, labels, weights)
    assert found == pytest.approx(_expected(name, labels, logits.argmax(axis=1), weights), abs=1e-6)


def test_label_without_examples_or_predictions_counts_as_zero_in_multi_label_averages():
    logits, labels, _ = _case(0, multi_label=True)
    labels[:, 2] = 0
    logits[:, 2] = -9
    assert _stream(LabelScore("macro_f1", 7, True), logits, labels) == pytest.approx(
        _expected("macro_f1", labels, logits > 0, None), abs=1e-6
    )


def _rule(logits):
    """ImageD's rule, example by example."""
    predicted = np.zeros(logits.shape, bool)
    for row, scores in zip(predicted, 1 / (1 + np.exp(-logits.astype("float64"))), strict=True):
        best = sorted(range(len(scores)), key=lambda label: (-scores[label], label))[:4]
        row[[label for label in best if scores[label] >= 0.3]] = True
    return predicted


@every_seed
@pytest.mark.parametrize("score", SCORES)
def test_rule_of_imaged_agrees_with_scikit_learn(score, seed):
    logits, labels, weights = _case(seed, multi_label=True)
    logits += 1  # more than four labels above 0.3
    assert ((1 / (1 + np.exp(-logits)) >= 0.3).sum(axis=1) > 4).any()
    found = _stream(ImageDScore(score, 7), logits, labels, weights)
    assert found == pytest.approx(_expected(f"micro_{score}", labels, _rule(logits), weights), abs=1e-6)


def test_rule_of_imaged_keeps_scores_of_at_least_three_tenths_and_of_equal_ones_the_first():
    border = np.log(0.3 / 0.7)
    logits = np.float32([[border, border - 1e-3, -9, -9, -9, -9], [2, 2, 2, 2, 2, 2]])
    predicted = np.asarray(ImageDScore("f1", 6).decide(keras.ops.convert_to_tensor(logits)))
    np.testing.assert_array_equal(predicted, [[1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]])
    few = np.asarray(ImageDScore("f1", 2).decide(keras.ops.convert_to_tensor(logits[:, :2])))
    np.testing.assert_array_equal(few, [[1, 0], [1, 1]])


@every_seed
@pytest.mark.parametrize("multi_label", [False, True])
def test_calibration_error_agrees_with_scikit_learns_curve(multi_label, seed):
    logits, labels, weights = _case(seed, multi_label)
    kept = np.repeat(np.arange(len(logits)), (weights > 0) + (weights > 1.5))  # whole weights: scikit-learn's has none
    if multi_label:
        probabilities, true = (1 / (1 + np.exp(-logits[kept].astype("float64")))).ravel(), labels[kept].ravel()
    else:
        exponentials = np.exp(logits[kept].astype("float64"))
        probabilities = (exponentials / exponentials.sum(axis=1, keepdims=True)).max(axis=1)
        true = logits[kept].argmax(axis=1) == labels[kept]
    shares, means = calibration_curve(true, probabilities, n_bins=15)
    sizes = np.histogram(probabilities, np.linspace(0, 1, 16))[0]
    expected = (np.abs(shares - means) * sizes[sizes > 0]).sum() / len(true)
    whole = ((weights > 0) + (weights > 1.5)).astype("float32")
    assert _stream(CalibrationError(multi_label), logits, labels, whole) == pytest.approx(expected, abs=1e-6)


def test_perfectly_calibrated_answers_have_no_error_and_overconfident_ones_have_one():
    logits = np.full((1000, 1), np.log(0.7 / 0.3), "float32")
    labels = (np.arange(1000) % 10 < 7).astype("float32")[:, np.newaxis]
    assert _stream(CalibrationError(True), logits, labels) == pytest.approx(0, abs=1e-6)
    assert _stream(CalibrationError(True), logits * 100, labels) == pytest.approx(0.3, abs=1e-6)


def test_errors_of_the_first_two_bins_do_not_cancel_out():
    """One says 0.05 of what is there, one 0.1 of what is not; bins are a fifteenth wide."""
    logits = np.float32([[np.log(0.05 / 0.95)], [np.log(0.1 / 0.9)]])
    found = _stream(CalibrationError(True), logits, np.float32([[1], [0]]))
    assert found == pytest.approx((0.95 + 0.1) / 2)


@every_seed
def test_binned_map_is_that_of_rounded_logits_and_within_its_bound_of_the_exact_one(seed):
    logits, labels, weights = _case(seed, multi_label=True)
    labels[:, 3] = 0
    whole = (weights > 0).astype("float32")
    metric = BinnedMeanAveragePrecision(7, num_levels=16, limit=4.0)
    found = _stream(metric, logits, labels, whole)
    kept, true = logits[whole > 0], labels[whole > 0]
    rounded = -np.minimum(np.floor((4 - np.clip(kept, -4, 4)) * 2), 15)
    occurring = [0, 1, 2, 4, 5, 6]
    assert found == pytest.approx(average_precision_score(true[:, occurring], rounded[:, occurring]), abs=1e-6)
    exact = average_precision_score(true[:, occurring], kept[:, occurring])
    assert 1e-4 < abs(found - exact) <= float(metric.error_bound())
    fine = BinnedMeanAveragePrecision(7, num_levels=100_000)
    assert _stream(fine, logits, labels, whole) == pytest.approx(exact, abs=1e-6)


def test_bound_of_binned_map_holds_where_it_is_tight():
    """One level: all positives come last, the worst order; or first, the best."""
    for order in (1, -1):
        logits = np.linspace(0.01, 0.02, 6, dtype="float32")[::order, np.newaxis]
        labels = np.float32([[1], [1], [0], [0], [0], [0]])
        metric = BinnedMeanAveragePrecision(1, num_levels=2)
        found = _stream(metric, logits, labels)
        assert found == pytest.approx(2 / 6)
        exact = average_precision_score(labels, logits)
        assert abs(found - exact) <= float(metric.error_bound()) <= 1


METRICS = {
    "macro_f1": (LabelScore("macro_f1", 7, True, threshold=0.3), True),
    "per label": (LabelScore("samples_recall", 7, True, threshold=[0.1 * n for n in range(1, 8)]), True),
    "multi-class": (LabelScore("weighted_precision", 7, False, name="mine"), False),
    "imaged": (ImageDScore("recall", 7), True),
    "ece": (CalibrationError(False, num_bins=10), False),
    "multi-label ece": (CalibrationError(True), True),
    "binned": (BinnedMeanAveragePrecision(7, num_levels=50, limit=5.0), True),
}


@pytest.fixture(params=METRICS, ids=str)
def case(request):
    metric, multi_label = METRICS[request.param]
    metric.reset_state()
    return metric, _case(0, multi_label)


def test_metric_survives_its_config(case):
    metric, data = case
    restored = keras.metrics.deserialize(json.loads(json.dumps(keras.metrics.serialize(metric))))
    assert restored.name == metric.name
    assert _stream(restored, *data) == _stream(metric, *data)


def test_reset_metric_starts_anew_and_half_precision_logits_are_counted_in_float32(case):
    metric, (logits, labels, weights) = case
    once = _stream(metric, logits, labels, weights)
    metric.reset_state()
    assert float(metric.result()) == 0
    half = keras.ops.cast(logits, "bfloat16")
    metric.update_state(labels, half, weights)
    assert float(metric.result()) == pytest.approx(once, abs=0.05)
    assert {variable.dtype for variable in metric.variables} == {"float32"}


def test_memory_does_not_grow_with_the_examples(case):
    metric, data = case
    shapes = [variable.shape for variable in metric.variables]
    _stream(metric, *data)
    assert [variable.shape for variable in metric.variables] == shapes


def test_compiled_metric_equals_the_plain_one(case):
    """XLA, which needs static shapes."""
    metric, (logits, labels, weights) = case
    expected = _stream(metric, logits, labels, weights)
    fresh = keras.metrics.deserialize(keras.metrics.serialize(metric))
    update = tf.function(fresh.update_state, jit_compile=True)
    for part in np.array_split(np.arange(len(logits)), 3):
        update(*(tf.constant(each[part]) for each in (labels, logits, weights)))
    assert float(tf.function(fresh.result, jit_compile=True)()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_compiled_evaluation_equals_the_plain_one(case):
    """XLA, which needs static shapes."""
    metric, (logits, labels, weights) = case
    expected = _stream(metric, logits, labels, weights)
    fresh = keras.metrics.deserialize(keras.metrics.serialize(metric))
    inputs = keras.Input((7,))
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    model.compile(loss=make_loss(labels.ndim > 1), weighted_metrics=[fresh], jit_compile=True)
    found = model.evaluate(logits, labels, batch_size=30, sample_weight=weights, verbose=0, return_dict=True)
    assert found[metric.name] == pytest.approx(expected, abs=1e-6)


# All metrics on one device and on two replicas, with filling; prints both results.
MIRRORED = """
import json
import tensorflow as tf
two = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [two, two])
import keras
import numpy as np
from mm_keras.distribution.strategy import make_strategy
from mm_keras.objectives.losses import make_loss
from mm_keras.objectives.metrics import make_metrics
rng = np.random.default_rng(0)
logits = rng.normal(0, 2, (64, 7)).astype("float32")
weights = (rng.random(64) < 0.7).astype("float32")
names = {
    True: ("micro_f1", "macro_precision", "weighted_recall", "samples_f1", "imaged_f1", "binned_mAP", "ece", "cross_entropy"),
    False: ("top_1", "top_3", "macro_f1", "weighted_precision", "ece", "cross_entropy"),
}
found = {}
for strategy in ("none", "mirrored"):
    for multi_label, chosen in names.items():
        labels = (rng.random((64, 7)) < 0.3).astype("float32") if multi_label else rng.integers(0, 7, 64)
        if strategy == "none":
            found[multi_label] = [labels]
        labels = found[multi_label][0]
        with make_strategy(strategy).scope():
            inputs = keras.Input((7,))
            model = keras.Model(inputs, keras.layers.Identity()(inputs))
            model.compile(loss=make_loss(multi_label), weighted_metrics=make_metrics(multi_label, 7, chosen))
        batches = tf.data.Dataset.from_tensor_slices((logits, labels, weights)).batch(16)
        found[multi_label].append(model.evaluate(batches, verbose=0, return_dict=True))
print(json.dumps([results[1:] for results in found.values()]))
"""


@pytest.mark.slow
def test_two_replicas_measure_what_one_does(run_python):
    multi_label, multi_class = json.loads(run_python(MIRRORED).splitlines()[-1])
    for one, two in (multi_label, multi_class):
        assert len(one) >= 6
        assert two == pytest.approx(one, abs=1e-6)
        assert all(0 < value < 4 for value in one.values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LabelScore("f1", 3, True), "Received: 'f1'"),
        (lambda: LabelScore("mean_f1", 3, True), r"score is one of \('micro', .*Received: 'mean_f1'"),
        (lambda: LabelScore("micro_f1", 3, True, threshold=1.0), "between 0 and 1. Received: 1.0"),
        (lambda: CalibrationError(True, num_bins=0), "Received: 0"),
        (lambda: BinnedMeanAveragePrecision(3, num_levels=1), "num_levels=1"),
        (lambda: BinnedMeanAveragePrecision(3, limit=0.0), "limit=0.0"),
    ],
)
def test_impossible_arguments_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
