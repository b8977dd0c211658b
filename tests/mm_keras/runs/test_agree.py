import csv
import json
import shutil

import numpy as np
import pytest

from mm_keras.runs.agree import best_threshold, check_claims, false_claims, find_reason, measure_agreement
from tfrecords_tools.sources import sample


@pytest.fixture(scope="module")
def run(trained_run, tmp_path_factory):
    return shutil.copytree(trained_run, tmp_path_factory.mktemp("agree") / "run")


@pytest.fixture
def table(tmp_path):
    """A table of a true claim, one of no class, one without a claim and one without any input."""
    example = next(sample.iter_examples(1, seed=3))
    (tmp_path / "1.jpg").write_bytes(example.image)
    with open(tmp_path / "listed.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "image", "title", "claimed"])
        for number, (title, claim) in enumerate([("Solid oak", example.labels[0]), ("x", "teapot"), ("x", "")]):
            rows.writerow([number, "1.jpg", title, claim])
        rows.writerow([3, "", "", example.labels[0]])
    return tmp_path / "listed.csv"


def test_threshold_that_is_measured_is_the_one_that_claims_are_judged_by(run, table):
    report = measure_agreement(run)
    assert 0 <= report["auc"] <= 1 and report["num_examples"] > 20
    answers = [json.loads(line) for line in check_claims(run, table, "claimed").read_text("utf-8").splitlines()]
    assert [str(answer["id"]) for answer in answers] == ["0", "1", "2", "3"]
    good, *bad = answers
    assert good["agrees"] == (good["score"] >= report["threshold"])
    assert set(good["inputs"]) == {"image", "title"}  # the description is not there
    assert good["reason"]
    assert [answer["error"] for answer in bad[:2]] == [
        "claimed label 'teapot' is none of the run's",
        "no claimed label in column 'claimed'",
    ]
    assert "none of the run's inputs" in bad[2]["error"]


def test_claims_without_a_column_or_a_usable_row_are_errors(run, table):
    table.write_text("id,title,claimed\n1,Solid oak,teapot\n")
    with pytest.raises(ValueError, match="no claim was checked: claimed label 'teapot' is none of the run's"):
        check_claims(run, table, "claimed")
    with pytest.raises(ValueError, match=r"within \[0, 1\]. Received: 1.5"):
        check_claims(run, table, "claimed", threshold=1.5)


def test_multi_label_runs_are_refused(multi_label_run):
    with pytest.raises(ValueError, match="is multi-label: a claim is one class"):
        measure_agreement(multi_label_run)


def test_reasons_name_who_is_for_it_and_who_is_against_it():
    of = {
        "image": {"score": 0.88, "says": "mug", "probability": 0.88},
        "title": {"score": 0.01, "says": "chair", "probability": 0.97},
    }
    assert find_reason("mug", False, of, "chair", 0.8) == "title says 'chair' (0.97; 'mug' 0.01), though image (0.88) agrees"
    assert find_reason("mug", True, of, "mug", 0.8) == "image (0.88) agrees, though title says 'chair' (0.97; 'mug' 0.01)"
    both = {name: {"score": 0.4, "says": "mug", "probability": 0.4} for name in of}
    assert find_reason("mug", False, both, "mug", 0.4) == "image (0.40) and title (0.40) agree, but none is sure enough"


def test_false_claims_are_of_other_classes_and_the_threshold_parts_the_two():
    labels = np.array([0] * 50 + [1] * 3 + [2])
    claims = false_claims(labels, seed=0)
    assert (claims != labels).all() and set(claims) <= {0, 1, 2}
    assert best_threshold(np.array([0.9, 0.8, 0.7]), np.array([0.1, 0.2, 0.6, 0.6])) == pytest.approx(0.65)
    with pytest.raises(ValueError, match="two classes or more"):
        false_claims(np.zeros(4, int), seed=0)
