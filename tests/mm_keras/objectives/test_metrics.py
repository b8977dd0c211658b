import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from mm_keras.objectives.metrics import evaluate_logits, make_metrics, mean_logits, probabilities_of


def _multi_class(seed, num_labels=8, number=60):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 2, (number, num_labels)).astype("float32"), np.arange(number, dtype="int32") % num_labels


def _multi_label(seed, num_labels=6, number=60):
    rng = np.random.default_rng(seed)
    labels = (rng.random((number, num_labels)) < 0.3).astype("float32")
    return rng.normal(-0.5, 2, labels.shape).astype("float32"), labels


def _by_average(prefix, true, predicted, averages):
    """<prefix><average>_<score> -> scikit-learn's value."""
    found = {}
    for average in averages:
        scores = precision_recall_fscore_support(true, predicted, average=average, zero_division=0)
        names = (f"{prefix}{average}_{score}" for score in ("precision", "recall", "f1"))
        found |= dict(zip(names, scores[:3], strict=True))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_multi_class_metrics_agree_with_scikit_learn(seed):
    logits, labels = _multi_class(seed)
    metrics = evaluate_logits(logits, labels, multi_label=False)
    expected = {f"top_{k}": top_k_accuracy_score(labels, logits, k=k) for k in (1, 5)}
    expected |= _by_average("", labels, logits.argmax(axis=1), ("macro", "weighted"))
    assert set(metrics) == {*expected, "ece"}
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_multi_label_metrics_agree_with_scikit_learn(seed):
    logits, labels = _multi_label(seed)
    thresholds = np.random.default_rng(seed).uniform(0.1, 0.9, 6)
    metrics = evaluate_logits(logits, labels, True, thresholds)
    probabilities = 1 / (1 + np.exp(-logits.astype("float64")))
    averages = ("micro", "macro", "weighted", "samples")
    expected = _by_average("", labels, probabilities > 0.5, averages)
    expected |= _by_average("tuned_", labels, probabilities > thresholds, averages)
    expected["mAP"] = np.mean([average_precision_score(labels[:, i], logits[:, i]) for i in range(6)])
    best = np.argsort(np.argsort(-logits, axis=1), axis=1) < 4
    of_rule = _by_average("", labels, best & (probabilities >= 0.3), ("micro",))
    expected |= {name.replace("micro", "imaged"): value for name, value in of_rule.items()}
    assert set(metrics) == {*expected, "ece", *(f"imaged_example_{score}" for score in ("precision", "recall", "f1"))}
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert not [name for name in evaluate_logits(logits, labels, True) if name.startswith("tuned")]


def test_constant_logits_are_right_no_more_often_than_by_naming_one_label():
    labels = np.arange(80, dtype="int32") % 8
    metrics = evaluate_logits(np.zeros((80, 8), "float32"), labels, multi_label=False)
    assert (metrics["top_1"], metrics["top_5"]) == (1 / 8, 5 / 8)


def test_ties_are_broken_by_the_smaller_id_as_argmax_does():
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 3, (200, 8)).astype("float32")
    labels = rng.integers(0, 8, 200).astype("int32")
    metrics = evaluate_logits(logits, labels, multi_label=False)
    assert metrics["top_1"] == pytest.approx((logits.argmax(axis=1) == labels).mean())
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    assert metrics["top_5"] == pytest.approx((best == labels[:, np.newaxis]).any(axis=1).mean())


def test_constant_logits_have_the_mean_frequency_as_map():
    _, labels = _multi_label(0)
    metrics = evaluate_logits(np.ones_like(labels), labels, multi_label=True)
    assert metrics["mAP"] == pytest.approx(labels.mean())
    assert evaluate_logits(np.zeros_like(labels), labels, multi_label=True)["micro_f1"] == 0


def test_few_labels_have_no_top_5():
    logits, labels = _multi_class(0, num_labels=5)
    assert "top_5" not in evaluate_logits(logits, labels, multi_label=False)
    assert [metric.name for metric in make_metrics(False, 5)] == ["top_1", "cross_entropy"]
    assert [metric.name for metric in make_metrics(False, 6)] == ["top_1", "top_5", "cross_entropy"]


def test_labels_that_do_not_occur_are_left_out_of_map_but_not_of_macro_f1():
    logits, labels = _multi_label(0)
    labels[:, 2] = 0
    metrics = evaluate_logits(logits, labels, multi_label=True)
    others = [average_precision_score(labels[:, i], logits[:, i]) for i in range(6) if i != 2]
    assert metrics["mAP"] == pytest.approx(np.mean(others))
    assert metrics["macro_f1"] == pytest.approx(f1_score(labels, logits > 0, average="macro", zero_division=0))


def test_one_example_can_be_evaluated():
    assert evaluate_logits(np.float32([[0, 1]]), np.int32([1]), multi_label=False) == {
        **dict.fromkeys(("top_1", *(f"{a}_{s}" for a in ("macro", "weighted") for s in ("precision", "recall", "f1"))), 1.0),
        "ece": pytest.approx(1 - 1 / (1 + np.exp(-1))),
    }
    assert evaluate_logits(np.float32([[-1, 1]]), np.float32([[0, 1]]), multi_label=True)["mAP"] == 1


def test_no_label_at_all_gives_zeros():
    metrics = evaluate_logits(np.float32([[-1, 1]]), np.float32([[0, 0]]), multi_label=True)
    assert metrics.pop("ece") == pytest.approx(0.5)  # (0.269 + 0.731) / 2
    assert set(metrics.values()) == {0}


@pytest.mark.parametrize("seed", range(3))
def test_map_of_equal_scores_agrees_with_scikit_learn(seed):
    logits, labels = _multi_label(seed)
    logits = logits.round()
    expected = average_precision_score(labels, logits)
    assert evaluate_logits(logits, labels, multi_label=True)["mAP"] == pytest.approx(expected, abs=1e-6)


def test_logits_that_are_no_numbers_are_an_error():
    logits, labels = _multi_class(0)
    logits[[3, 3, 5], [0, 1, 0]] = np.nan
    with pytest.raises(ValueError, match="answers 2 of 60 examples with no number"):
        evaluate_logits(logits, labels, multi_label=False)


def test_examples_beyond_one_chunk_count(monkeypatch):
    monkeypatch.setattr("mm_keras.objectives.metrics._CHUNK", 40)
    for multi_label, (logits, labels) in ((True, _multi_label(0)), (False, _multi_class(0))):
        chunked = evaluate_logits(logits, labels, multi_label)
        monkeypatch.undo()
        assert chunked == pytest.approx(evaluate_logits(logits, labels, multi_label), abs=1e-6)
        monkeypatch.setattr("mm_keras.objectives.metrics._CHUNK", 40)


@pytest.mark.parametrize("multi_label", [False, True])
def test_streaming_metrics_agree_with_the_exact_ones_and_honour_weights(multi_label):
    logits, labels = _multi_label(1) if multi_label else _multi_class(1)
    weights = (np.arange(60) % 4 > 0).astype("float32")  # a quarter is filling
    exact = evaluate_logits(logits[weights > 0], labels[weights > 0], multi_label)
    metrics = make_metrics(multi_label, logits.shape[1])
    for metric in metrics:
        for part in np.array_split(np.arange(60), 4):
            metric.update_state(labels[part], logits[part], sample_weight=weights[part])
    found = {metric.name: float(metric.result()) for metric in metrics}
    kept, true = logits[weights > 0].astype("float64"), labels[weights > 0]
    if multi_label:
        cross_entropy = np.mean(np.logaddexp(0, kept) - true * kept)
    else:
        cross_entropy = log_loss(true, np.exp(kept) / np.exp(kept).sum(axis=1, keepdims=True), labels=range(8))
    assert found.pop("cross_entropy") == pytest.approx(cross_entropy, rel=1e-5)
    assert found == pytest.approx({name: exact[name] for name in found}, abs=1e-6)


@pytest.mark.parametrize(
    ("multi_label", "names", "message"),
    [
        (True, ["top_1"], r"metrics of multi-label data are binned_mAP, .*weighted_recall\. Received: \['top_1'\]"),
        (False, ["micro_f1", "imaged_f1"], r"metrics of multi-class data are .* top_1, .*Received: \['imaged_f1'\]"),
        (True, [], r"Received: \[\]"),
        (False, ["ece", "top_1"], "chooses the best epoch, the higher the better. Received: 'ece'"),
        (True, ["cross_entropy"], "Received: 'cross_entropy'"),
    ],
)
def test_unknown_or_unfit_names_are_errors(multi_label, names, message):
    with pytest.raises(ValueError, match=message):
        make_metrics(multi_label, 6, names)


def test_every_name_gives_the_metric_of_that_name():
    for multi_label in (False, True):
        with pytest.raises(ValueError, match="metrics of") as caught:
            make_metrics(multi_label, 6, ["none"])
        names = str(caught.value).partition(" are ")[2].partition(". Received")[0].split(", ")
        names.sort(key=lambda name: name in ("ece", "cross_entropy"))
        assert [metric.name for metric in make_metrics(multi_label, 6, names)] == names
        assert len(names) == (18 if multi_label else 19)


@pytest.mark.parametrize("multi_label", [False, True])
def test_mean_logits_give_the_mean_of_the_probabilities(multi_label):
    one, other = (np.random.default_rng(seed).normal(0, 3, (5, 4)) for seed in (0, 1))
    expected = (probabilities_of(one, multi_label) + probabilities_of(other, multi_label)) / 2
    np.testing.assert_allclose(probabilities_of(mean_logits([one, other], multi_label), multi_label), expected)
    assert mean_logits([one], multi_label) is one


@pytest.mark.parametrize("multi_label", [False, True])
def test_metrics_of_mixed_examples_are_those_of_what_has_the_largest_part(multi_label):
    logits, labels = (_multi_label if multi_label else _multi_class)(0)
    rng = np.random.default_rng(1)
    if multi_label:
        shares = np.where(labels > 0, rng.uniform(0.5, 1, labels.shape), rng.uniform(0, 0.49, labels.shape))
        names = ["macro_f1", "imaged_f1", "binned_mAP", "ece"]
    else:
        shares = rng.uniform(0, 0.5, logits.shape)
        shares[np.arange(len(labels)), labels] = 0.6
        names = ["top_1", "top_3", "cross_entropy", "macro_f1", "ece"]
    for name in names:
        plain, mixed = (make_metrics(multi_label, logits.shape[1], ["micro_f1", name])[1] for _ in range(2))
        plain.update_state(labels, logits)
        mixed.update_state(shares.astype("float32"), logits)
        assert float(mixed.result()) == pytest.approx(float(plain.result()), rel=1e-6)


def test_imaged_counts_by_example_as_the_paper_does():
    """Of five labels: at least 0.3 and among the four best."""
    sure, low = 3.0, -3.0
    logits = np.float32(
        [
            [sure, low, low, low, low],  # right, and all that is true is found: true positive
            [sure, sure, low, low, low],  # one of the two is wrong: false positive
            [sure, low, low, low, low],  # right, but the second true label is missed: true positive and false negative
            [low, low, low, low, low],  # nothing is predicted, and a label is missed: false negative alone
            [5, 4, 3.5, 3.2, sure],  # the fifth is true and above the threshold: the rule of four is left aside
        ]
    )
    labels = np.float32([[1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    found = evaluate_logits(logits, labels, True)
    assert found["imaged_example_precision"] == 3 / 4
    assert found["imaged_example_recall"] == 3 / 5
    assert found["imaged_example_f1"] == pytest.approx(2 * 0.75 * 0.6 / 1.35)
