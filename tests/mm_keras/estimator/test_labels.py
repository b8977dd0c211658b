import numpy as np
import pandas
import pytest

from mm_keras.estimator.columns import label_columns
from mm_keras.estimator.data import label_cells
from mm_keras.estimator.labels import LabelCodec, LabelForm
from mm_keras.estimator.packed_frames import make_part

FRAME = pandas.DataFrame(
    {"tags": ["red|round", None, "", "round"], "lists": [["red"], [], None, ["red", "round"]], "red": [1, 0, None, 1.0]},
    index=list("abcd"),
)
FRAME["round"] = [True, False, None, 0]


@pytest.mark.parametrize(
    ("y", "form", "cells", "several"),
    [
        ("tags", LabelForm("|"), [["red", "round"], None, None, ["round"]], True),
        ("tags", LabelForm("|", empty_means_none=True), [["red", "round"], [], [], ["round"]], True),
        ("tags", LabelForm(empty_means_none=True), [["red|round"], None, None, ["round"]], False),
        ("lists", LabelForm(), [["red"], [], None, ["red", "round"]], True),
        (["red", "round"], LabelForm(), [["red", "round"], [], None, ["red"]], True),
        ([3, np.nan, 2.0, "x"], LabelForm(), [[3], None, [2], ["x"]], False),
    ],
)
def test_labels_are_read_in_every_form_and_empty_cells_are_unknown(y, form, cells, several):
    assert label_cells(FRAME, y, form) == (cells, several)


def test_examples_of_unknown_labels_are_left_out_and_others_may_have_none():
    cells, several = label_cells(FRAME, "lists", LabelForm())
    with pytest.warns(UserWarning, match="1 of 4 examples have no label and are left out; .*empty_means_none=True"):
        part = make_part(FRAME, None, cells, LabelCodec.learn(cells, several))
    assert part.labels == [["red"], [], ["red", "round"]]
    assert part.frame.index.tolist() == ["a", "b", "d"]


def test_column_that_is_no_flag_is_an_error():
    with pytest.raises(ValueError, match=r"label column 'tags' holds 1 or 0 .* Received: 'red\|round'"):
        label_cells(FRAME, ["red", "tags"], LabelForm())


@pytest.mark.parametrize(
    ("y", "expected"),
    [("kind", "kind"), (["red", "blue"], None), (["wood", "steel"], ["wood", "steel"]), ([["wood"], []], None), ([1, 0], None)],
)
def test_strings_are_label_columns_only_if_the_frame_has_them(y, expected):
    frame = pandas.DataFrame({"kind": ["a", "b"], "wood": [1, 0], "steel": [0, 1]})
    assert label_columns(y, frame) == expected
    assert label_columns(["wood", "steel"], "table.csv") == ["wood", "steel"]
