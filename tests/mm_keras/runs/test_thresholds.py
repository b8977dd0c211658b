import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_curve

from mm_keras.data.pipeline import make_evaluation_batches
from mm_keras.objectives.metrics import evaluate_logits
from mm_keras.runs.evaluate import evaluate
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.thresholds import best_thresholds, load_thresholds, measure_thresholds, shared_threshold, tune_thresholds
from tfrecords_tools.dataset.checksums import forget
from tfrecords_tools.dataset.folder import Split


def _case(seed, number=40, num_labels=5):
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 3, (number, num_labels)).astype("float32")
    return logits, (rng.random(logits.shape) < 0.3).astype("float32")


def _probabilities(logits):
    return 1 / (1 + np.exp(-logits.astype("float64")))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("decimals", [None, 0])  # 0: most scores are shared by several examples
def test_no_threshold_gives_a_better_f1(seed, decimals):
    logits, labels = _case(seed)
    logits = logits if decimals is None else logits.round(decimals)
    thresholds = best_thresholds(logits, labels)
    for label in range(5):
        found = f1_score(labels[:, label], _probabilities(logits[:, label]) > thresholds[label])
        precision, recall, _ = precision_recall_curve(labels[:, label], logits[:, label])
        best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
        assert found == pytest.approx(best)


def test_threshold_lies_midway_between_the_scores_that_it_parts():
    logits = np.float32([[4], [2], [-1], [-2]])
    (threshold,) = best_thresholds(logits, np.float32([[1], [1], [0], [1]]))
    assert threshold == pytest.approx(_probabilities(np.float32(-2.5)))  # below all: F1 6/7; above -1: 4/5
    (threshold,) = best_thresholds(logits, np.float32([[1], [1], [0], [0]]))
    assert threshold == pytest.approx(_probabilities(np.float32(0.5)))


def test_label_without_positives_keeps_one_half():
    logits, labels = _case(0)
    labels[:, 1] = 0
    assert best_thresholds(logits, labels)[1] == 0.5


def test_probabilities_near_one_are_still_parted():
    logits = np.float32([[30], [25], [20]])
    labels = np.float32([[1], [0], [0]])
    metrics = evaluate_logits(logits, labels, True, best_thresholds(logits, labels))
    assert metrics["tuned_micro_f1"] == 1


@pytest.fixture(scope="module")
def run(tmp_path_factory, multi_label_run):
    return shutil.copytree(multi_label_run, tmp_path_factory.mktemp("thresholds") / "run")


def test_training_tunes_them_on_the_validation_split(run, multi_label_dataset):
    model, features = RunFolder(run).load_model()
    batches = make_evaluation_batches(Split.open(multi_label_dataset, "val"), features, batch_size=7)
    parts = [(model.predict_on_batch(inputs), labels.numpy()) for inputs, labels, _ in batches.dataset]
    logits, labels = (np.concatenate(each)[: batches.num_examples] for each in zip(*parts, strict=True))
    kept = load_thresholds(RunFolder(run), features)
    assert kept.split == "val"
    np.testing.assert_allclose(kept.values, best_thresholds(logits, labels), rtol=1e-4)
    content = json.loads((run / "thresholds.json").read_text())
    assert list(content["thresholds"]) == list(features.labels)
    assert len(set(content["thresholds"].values())) > 1


def test_evaluation_uses_them_and_says_so(run):
    report = evaluate(run, split="val")
    assert report["thresholds_from"] == "val"
    *_, row = report["rows"]
    assert row["tuned_macro_f1"] > row["macro_f1"]  # on the split that they were tuned on
    details = (run / "report" / "evaluation.md").read_text()
    assert "above its label's threshold, tuned on val" in details
    assert f"{row['tuned_samples_recall']:.3f}" in details


def test_they_can_be_tuned_anew_on_another_split(run, tmp_path):
    again = shutil.copytree(run, tmp_path / "run")
    thresholds = tune_thresholds(again, split="test")
    _, features = RunFolder(again).load_model()
    kept = load_thresholds(RunFolder(again), features)
    np.testing.assert_array_equal(kept.values, thresholds)
    assert kept.split == "test"
    forget(again / "thresholds.json")
    assert load_thresholds(RunFolder(again), features) is None
    assert not [name for name in evaluate(again)["rows"][0] if name.startswith("tuned")]


def test_multi_class_run_has_none(trained_run):
    assert not (trained_run / "thresholds.json").exists()
    with pytest.raises(ValueError, match="is multi-class"):
        tune_thresholds(trained_run)


@pytest.mark.parametrize("seed", range(3))
def test_no_other_shared_threshold_gives_a_better_micro_f1(seed):
    logits, labels = _case(seed)
    threshold = shared_threshold(logits, labels)
    assert threshold.shape == (5,) and len(set(threshold)) == 1
    f1 = [f1_score(labels, _probabilities(logits) > at, average="micro") for at in np.linspace(0.01, 0.99, 99)]
    assert f1_score(labels, _probabilities(logits) > threshold[0], average="micro") >= max(f1) - 1e-9


def test_table_of_thresholds_is_what_evaluation_says(run, tmp_path):
    again = shutil.copytree(run, tmp_path / "run")
    (at_half,) = [line for line in measure_thresholds(again, split="test").splitlines() if line.startswith("| 0.5 ")]
    *_, row = evaluate(again)["rows"]
    assert at_half == f"| 0.5 | {row['micro_precision']:.3f} | {row['micro_recall']:.3f} | {row['micro_f1']:.3f} |"
    tune_thresholds(again, shared=True)
    assert len(set(load_thresholds(RunFolder(again), RunFolder(again).load_model()[1]).values)) == 1
