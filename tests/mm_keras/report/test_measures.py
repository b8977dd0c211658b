import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import average_precision_score, f1_score

from mm_keras.objectives.metrics import evaluate_logits
from mm_keras.report.measures import compare_answers, f1_interval, make_measures, measure_all, value_of, wilson

CENTRES = np.random.default_rng(5).normal(size=(7, 16)) * 0.7


def _draw(count, rng):
    """Labels, and the probabilities of who knows how examples are drawn."""
    labels = rng.integers(7, size=count)
    examples = CENTRES[labels] + rng.normal(size=(count, 16))
    return labels, softmax(examples @ CENTRES.T - 0.5 * (CENTRES**2).sum(axis=1), axis=1)


def test_values_are_those_of_the_evaluation():
    labels, answers = _draw(400, np.random.default_rng(0))
    values = {name: of["value"] for name, of in measure_all(answers, labels, False).items()}
    expected = evaluate_logits(np.log(answers), labels, False)
    assert values["accuracy"] == pytest.approx(expected["top_1"])
    for name in ("top_5", "macro_f1", "ece"):
        assert values[name] == pytest.approx(expected[name], abs=1e-5)


def test_values_of_several_labels_are_those_of_the_evaluation():
    rng = np.random.default_rng(1)
    labels = (rng.random((300, 5)) < 0.3).astype("float32")
    answers = rng.random((300, 5)).round(1) * 0.57 + labels * 0.31 + 0.013  # with ties
    thresholds = np.linspace(0.3, 0.6, 5)
    values = {name: of["value"] for name, of in measure_all(answers, labels, True, thresholds).items()}
    expected = evaluate_logits(np.log(answers) - np.log1p(-answers), labels, True, thresholds)
    assert values["mAP"] == pytest.approx(average_precision_score(labels, answers), abs=1e-6)
    assert values["micro_f1"] == pytest.approx(f1_score(labels, answers > thresholds, average="micro"))
    assert values["macro_f1"] == pytest.approx(expected["tuned_macro_f1"], abs=1e-5)
    assert values["ece"] == pytest.approx(expected["ece"], abs=1e-5)


def test_a_weighted_measure_is_that_of_repeated_examples():
    rng = np.random.default_rng(2)
    labels = (rng.random((40, 3)) < 0.4).astype("float32")
    answers = rng.random((40, 3)).round(1)
    counts = rng.integers(0, 4, size=40)
    rows = np.repeat(np.arange(40), counts)
    whole, repeated = make_measures(answers, labels, True), make_measures(answers[rows], labels[rows], True)
    for name, measure in whole.items():
        assert measure(counts[np.newaxis].astype("float32"))[0] == pytest.approx(value_of(repeated[name], len(rows)), abs=1e-6)


@pytest.mark.ci
def test_intervals_cover_the_truth_in_95_of_100_drawn_test_sets():
    labels, answers = _draw(300_000, np.random.default_rng(0))
    truth = {name: value_of(measure, len(labels)) for name, measure in make_measures(answers, labels, False).items()}
    names, covered = ["accuracy", "macro_f1"], {"accuracy": 0, "macro_f1": 0}
    for seed in range(300):
        drawn = _draw(200, np.random.default_rng(1000 + seed))
        results = measure_all(drawn[1], drawn[0], False, names=names, seed=seed)
        for name in names:
            covered[name] += results[name]["low"] <= truth[name] <= results[name]["high"]
    assert 0.93 <= covered["accuracy"] / 300 <= 0.97
    assert 0.93 <= covered["macro_f1"] / 300 <= 0.97


def test_an_interval_of_many_examples_is_as_narrow_as_their_number_makes_it():
    labels, answers = _draw(20_000, np.random.default_rng(3))
    of = measure_all(answers, labels, False, names=["accuracy"])["accuracy"]
    expected = 1.96 * np.sqrt(of["value"] * (1 - of["value"]) / 20_000)
    assert (of["high"] - of["low"]) / 2 == pytest.approx(expected, rel=0.1)


def test_answers_that_are_all_right_still_have_an_interval():
    of = measure_all(np.eye(3)[[0, 1, 2, 0, 1]], np.array([0, 1, 2, 0, 1]), False)["accuracy"]
    assert of["value"] == of["high"] == 1
    assert of["low"] == pytest.approx(0.566, abs=1e-3)


def test_a_difference_is_paired():
    labels, answers = _draw(500, np.random.default_rng(4))
    assert compare_answers(answers, answers, labels, False) == {"value": 0, "low": 0, "high": 0, "chance": 1}
    worse = answers.copy()
    worse[:25] = np.roll(np.eye(7)[labels[:25]], 1, axis=1)
    of = compare_answers(answers, worse, labels, False)
    right = (answers[:25].argmax(axis=1) == labels[:25]).sum()
    assert of["value"] == pytest.approx(right / 500)
    assert of["low"] > 0
    assert of["chance"] < 0.01
    assert of["high"] - of["low"] < 0.04  # two independent test sets of 500 would leave about 0.09


@pytest.mark.parametrize("labels", [np.array([2, 2, 2, 2, 2]), np.arange(5) % 2])
def test_few_examples_and_one_class_have_measures(labels):
    answers = softmax(np.random.default_rng(0).normal(size=(5, 3)), axis=1)
    for of in measure_all(answers, labels, False).values():
        assert 0 <= of["low"] <= of["value"] + 1e-6
        assert of["value"] - 1e-6 <= of["high"] <= 1


def test_wilson_is_wide_where_nothing_is_known():
    assert wilson(0, 0) == (0, 1)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    low, high = f1_interval(hits=8, predicted=10, true=10)
    assert low < 0.8 < high
