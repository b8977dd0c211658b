from collections import Counter

import pytest

from tfrecords_tools.dataset.splits import Holdout, check_fractions, check_split_name, draw_split, hash_id, parse_fractions

FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}


def test_hash_of_an_id_never_changes():
    # Pinned: another value would silently move every example of every dataset to another place.
    assert hash_id("a1", "split", 0) == 7439559407024191341
    assert hash_id("a1", "order", 0) != hash_id("a1", "split", 0)
    assert hash_id("a1", "split", 1) != hash_id("a1", "split", 0)


def test_hashes_fit_63_bits():
    assert all(0 <= hash_id(str(i), "order", 0) < 2**63 for i in range(1000))


def test_splits_are_drawn_at_the_given_fractions():
    drawn = [draw_split(str(i), FRACTIONS, seed=0) for i in range(10_000)]
    for split, fraction in FRACTIONS.items():
        assert abs(drawn.count(split) / 10_000 - fraction) < 0.02  # 4 standard errors at most


def test_split_of_an_example_depends_on_its_id_and_seed_alone():
    assert [draw_split(str(i), FRACTIONS, 3) for i in range(50)] == [draw_split(str(i), FRACTIONS, 3) for i in range(50)]
    assert [draw_split(str(i), FRACTIONS, 3) for i in range(50)] != [draw_split(str(i), FRACTIONS, 4) for i in range(50)]


def test_a_fraction_of_zero_draws_nothing():
    assert {draw_split(str(i), {"none": 0.0, "all": 1.0}, 0) for i in range(500)} == {"all"}


def test_fractions_are_parsed_in_order():
    assert list(parse_fractions("train=0.8, test=0.2").items()) == [("train", 0.8), ("test", 0.2)]


@pytest.mark.parametrize("text", ["train", "train=", "train=x", "", "train=0.5,test"])
def test_part_that_is_no_name_and_fraction_is_rejected(text):
    with pytest.raises(ValueError, match=rf"splits are given as .* Received: '{text}'"):
        parse_fractions(text)


@pytest.mark.parametrize("text", ["train=0.8,test=0.1", "train=1.5,test=-0.5", "train=nan"])
def test_fractions_that_do_not_divide_the_data_are_rejected(text):
    with pytest.raises(ValueError, match=r"add up to 1\. Received: .*train"):
        parse_fractions(text)


def test_split_given_twice_is_rejected():
    with pytest.raises(ValueError, match="split 'train' is given twice"):
        parse_fractions("train=0.5,train=0.5,test=0.5")


def test_no_splits_at_all_are_rejected():
    with pytest.raises(ValueError, match=r"add up to 1\. Received: {}"):
        check_fractions({})


@pytest.mark.parametrize("name", ["", "a-b", "../x", "träin", "train\n", "a b"])
def test_split_name_that_cannot_stand_in_a_file_name_is_rejected(name):
    with pytest.raises(ValueError, match="split names are letters, digits and '_'"):
        check_split_name(name)


def _held_out(sizes, fraction, seed=0):
    members = [(name, f"{name}/{i}") for name, size in sizes.items() for i in range(size)]
    holdout = Holdout(lambda: iter(members), fraction, seed)
    return {key: holdout.split(name, key) for name, key in members}


def test_holdout_takes_its_share_of_each_class_half_val_half_test():
    splits = _held_out({"a": 100, "b": 75, "c": 12, "d": 25}, 0.04)
    counts = {name: Counter(split for key, split in splits.items() if key[0] == name) for name in "abcd"}
    assert counts["a"] == {"train": 96, "val": 2, "test": 2}
    assert counts["b"] == {"train": 72, "val": 2, "test": 1}
    assert counts["c"] == {"train": 12}
    assert counts["d"] == {"train": 24, "val": 1}


def test_holdout_depends_on_the_keys_and_the_seed_alone():
    members = [("a", f"k{i}") for i in range(100)]
    draws = [Holdout(lambda members=order: iter(members), 0.2, 0) for order in (members, members[::-1])]
    first, second = ([draw.split(*member) for member in members] for draw in draws)
    assert first == second
    other = Holdout(lambda: iter(members), 0.2, 1)
    assert first != [other.split(*member) for member in members]


@pytest.mark.parametrize("fraction", [-0.1, 1.5])
def test_holdout_outside_its_range_is_an_error(fraction):
    with pytest.raises(ValueError, match=rf"within 0–1\. Received: {fraction}"):
        Holdout(lambda: iter([]), fraction, 0)
