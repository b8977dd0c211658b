import numpy as np
import pytest

from mm_keras.solving.folds import assign_folds, group_duplicates


def test_examples_that_share_a_picture_or_a_text_are_one_group():
    pictures = np.array([1, 1, 2, 3, 4])
    texts = np.array([5, 6, 6, 7, -1])
    groups = group_duplicates([pictures, texts], most=10)
    assert groups[0] == groups[1] == groups[2]  # the second one links the first and the third
    assert len(set(groups)) == 3


def test_missing_values_and_placeholders_make_no_group():
    assert len(set(group_duplicates([np.full(6, -1)], most=10))) == 6
    assert len(set(group_duplicates([np.zeros(6, int)], most=5))) == 6
    assert len(set(group_duplicates([np.zeros(6, int)], most=6))) == 1


@pytest.mark.parametrize("seed", [0, 1])
def test_folds_have_the_same_share_of_each_class(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(8, 403, p=np.array([100, 50, 20, 10, 5, 3, 2, 10]) / 200)
    folds = assign_folds(labels, np.arange(403), 5, seed)
    assert np.ptp(np.bincount(folds, minlength=5)) <= 2
    for label in range(8):
        assert np.ptp(np.bincount(folds[labels == label], minlength=5)) <= 1


def test_folds_have_the_same_share_of_each_label_of_several():
    rng = np.random.default_rng(0)
    labels = (rng.random((500, 6)) < [0.5, 0.3, 0.1, 0.05, 0.02, 0.01]).astype("float32")
    folds = assign_folds(labels, np.arange(500), 5, 0)
    counts = np.array([labels[folds == fold].sum(axis=0) for fold in range(5)])
    assert np.ptp(counts, axis=0).max() <= 3
    assert np.ptp(np.bincount(folds)) <= 3


def test_groups_stay_together():
    rng = np.random.default_rng(0)
    groups, labels = rng.integers(0, 60, 300), rng.integers(0, 3, 300)
    groups = np.unique(groups, return_inverse=True)[1]
    folds = assign_folds(labels, groups, 4, 0)
    assert all(len(set(folds[groups == group])) == 1 for group in np.unique(groups))
    assert np.ptp(np.bincount(folds)) <= 20


def test_seed_decides_on_the_folds():
    labels, groups = np.arange(100) % 3, np.arange(100)
    assert (assign_folds(labels, groups, 5, 1) == assign_folds(labels, groups, 5, 1)).all()
    assert (assign_folds(labels, groups, 5, 1) != assign_folds(labels, groups, 5, 2)).any()


def test_fewer_groups_than_folds_are_an_error():
    with pytest.raises(ValueError, match="2 different examples cannot be split into 3 folds"):
        assign_folds(np.array([0, 1, 1]), np.array([0, 0, 1]), 3, 0)
