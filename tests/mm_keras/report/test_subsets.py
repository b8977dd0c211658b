import itertools
import math

import numpy as np
import pytest

from mm_keras.report.subsets import all_subsets, shapley_values, subset_name, with_texts


@pytest.mark.parametrize("num_inputs", [1, 2, 3, 4])
def test_shapley_values_add_up_and_are_the_mean_over_all_orders(num_inputs):
    values = np.random.default_rng(num_inputs).random((1 << num_inputs, 5))
    shares = shapley_values(values)
    assert shares.sum(axis=0) == pytest.approx(values[-1] - values[0])
    expected = np.zeros_like(shares)
    for order in itertools.permutations(range(num_inputs)):
        shown = 0
        for each in order:
            expected[each] += values[shown | 1 << each] - values[shown]
            shown |= 1 << each
    assert shares == pytest.approx(expected / math.factorial(num_inputs))


def test_an_input_that_changes_nothing_gets_nothing():
    assert shapley_values(np.array([0.1, 0.7, 0.1, 0.7])).tolist() == pytest.approx([0.6, 0.0])


def test_answers_for_some_sets_alone_are_refused():
    with pytest.raises(ValueError, match="Received: 3 answers"):
        shapley_values(np.zeros(3))


def test_sets_of_many_inputs_are_those_of_one_and_of_all_but_one():
    assert all_subsets(3) == list(range(8))
    many = all_subsets(8)
    assert len(many) == 1 + 8 + 8 + 1
    names = [subset_name(each, tuple("abcdefgh")) for each in with_texts(many, ("image", *"bcdefgh"))]
    assert names[0] == "nothing"
    assert names[-1] == "all inputs"


def test_sets_have_the_names_of_the_evaluation():
    modalities = ("image", "title", "description")
    assert [subset_name(each, modalities) for each in (0, 1, 2, 3, 6, 7)] == [
        "nothing",
        "image",
        "title",
        "image + title",
        "all texts",
        "all inputs",
    ]
    assert subset_name(1, ("title",)) == "title"
