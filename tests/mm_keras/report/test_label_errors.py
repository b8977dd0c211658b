import numpy as np
import pytest

from mm_keras.report.label_errors import disagreeing_neighbours, find_label_errors, held_out_probabilities


def _draw(num_labels, spread, several=False):
    """1,000 examples in 16 dimensions, and 50 wrong labels: embeddings, labels, which are wrong."""
    rng = np.random.default_rng(num_labels)
    centres = rng.normal(size=(num_labels, 16)) * spread
    true = rng.integers(num_labels, size=1000)
    given = true.copy()
    wrong = rng.choice(1000, 50, replace=False)
    given[wrong] = (true[wrong] + rng.integers(1, num_labels, size=50)) % num_labels
    return centres[true] + rng.normal(size=(1000, 16)), given, wrong


@pytest.mark.parametrize(("num_labels", "spread"), [(3, 1.0), (5, 1.0), (10, 1.2), (20, 1.3)])
def test_planted_label_noise_is_found(num_labels, spread):
    embeddings, given, wrong = _draw(num_labels, spread)
    found = find_label_errors(held_out_probabilities(embeddings, given, num_labels), given, False)
    hits = np.isin(found.rows, wrong).sum()
    assert hits / 50 >= 0.8
    assert hits / len(found.rows) >= 0.5
    assert len(set(found.rows.tolist())) == len(found.rows)
    assert (np.diff(found.scores) <= 0).all()
    near = disagreeing_neighbours(embeddings, given)
    assert np.isin(near.rows, wrong).mean() >= 0.5


def test_planted_noise_among_several_labels_is_found():
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(4, 16))
    embeddings = rng.normal(size=(1000, 16))
    true = (embeddings @ directions.T > 1.5).astype("float32")
    embeddings += 1.5 * true @ directions
    given = true.copy()
    rows, labels = rng.choice(1000, 50, replace=False), rng.integers(4, size=50)
    given[rows, labels] = 1 - given[rows, labels]
    found = find_label_errors(held_out_probabilities(embeddings, given, 4), given, True)
    planted = set(zip(rows.tolist(), labels.tolist(), strict=True))
    hits = len(planted & set(zip(found.rows.tolist(), found.labels.tolist(), strict=True)))
    assert hits / 50 >= 0.8
    assert hits / len(found.rows) >= 0.5
    assert (found.suggested == 1 - given[found.rows, found.labels]).all()


def test_clean_labels_raise_few_suspicions():
    embeddings, given, wrong = _draw(5, 1.5)
    clean = np.setdiff1d(np.arange(1000), wrong)
    answers = held_out_probabilities(embeddings[clean], given[clean], 5)
    assert len(find_label_errors(answers, given[clean], False).rows) <= 10


@pytest.mark.parametrize(
    ("labels", "num_labels"),
    [(np.zeros(5, int), 3), (np.zeros(60, int), 3), (np.arange(60) % 1000, 1000), (np.zeros((60, 4), "float32"), 4)],
    ids=["5 examples", "one class", "1,000 classes", "no labels at all"],
)
def test_odd_labels_are_no_trouble(labels, num_labels):
    embeddings = np.random.default_rng(0).normal(size=(len(labels), 8))
    answers = held_out_probabilities(embeddings, labels, num_labels)
    assert answers.shape == (len(labels), num_labels)
    assert np.isfinite(answers).all()
    find_label_errors(answers, labels, labels.ndim == 2)
    if labels.ndim == 1:
        disagreeing_neighbours(embeddings, labels)
