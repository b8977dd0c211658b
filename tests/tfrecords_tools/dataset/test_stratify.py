from collections import Counter

import numpy as np
import pytest

from tfrecords_tools.dataset.stratify import draw_within_classes, quotas, stratify

FRACTIONS = (0.8, 0.1, 0.1)


@pytest.mark.parametrize("offset", [0, 0.3, 0.999])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 6, 10, 11, 99, 1000])
def test_quotas_are_the_fractions_rounded_and_leave_no_split_without_an_example(count, offset):
    sizes = quotas(count, FRACTIONS, offset)
    assert sum(sizes) == count
    assert sizes[0] >= min(count, 1)
    if count >= 3:
        assert min(sizes) >= 1
    if count >= 20:
        assert all(abs(size - count * fraction) < 1 for size, fraction in zip(sizes, FRACTIONS, strict=True))


def test_quotas_hold_over_many_small_classes():
    sizes = np.array([quotas(2, FRACTIONS, offset) for offset in np.arange(0, 1, 0.01)])
    assert sizes.sum(axis=0) == pytest.approx([160, 20, 20], abs=1)
    assert quotas(5, (0.5, 0.0, 0.5), 0.5)[1] == 0


def _draw(classes, seed=0):
    hashes = np.random.default_rng(7).permutation(1000)[: len(classes)]
    return draw_within_classes(classes, hashes, FRACTIONS, seed)


def test_every_class_stands_in_every_split():
    classes = [f"class {number % 50}" for number in range(300)]
    for split in range(3):
        assert {classes[number] for number in np.flatnonzero(_draw(classes) == split)} == set(classes)


def test_one_more_example_moves_few_others():
    classes = [f"class {number % 4}" for number in range(400)]
    assert (_draw(classes) != _draw([*classes, "class 0"])[:400]).sum() <= 2


def test_labels_of_several_are_spread_by_the_fractions():
    rng = np.random.default_rng(0)
    labels = rng.random((400, 6)) < [0.5, 0.3, 0.1, 0.05, 0.02, 0.01]
    parts = stratify(*np.nonzero(labels), np.arange(400), FRACTIONS, rng.permutation(400), rng.random(6).tolist())
    counts = np.array([labels[parts == part].sum(axis=0) for part in range(3)])
    assert np.abs(counts - np.outer(FRACTIONS, labels.sum(axis=0))).max() <= 3
    assert (counts >= 1).all()
    assert np.bincount(parts) == pytest.approx([320, 40, 40], abs=4)


def test_groups_stay_together_and_small_classes_stand_everywhere():
    groups = np.repeat(np.arange(60), 3)
    classes = groups % 12
    parts = stratify(np.arange(180), classes, groups, FRACTIONS, np.random.default_rng(1).permutation(60), [0.5] * 12)
    assert all(len(set(parts[groups == group])) == 1 for group in range(60))
    assert all(set(parts[classes == each]) == {0, 1, 2} for each in range(12))
    assert Counter(parts.tolist())[0] > 90
