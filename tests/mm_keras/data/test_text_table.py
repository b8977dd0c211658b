import numpy as np
import pyarrow as pa
import pytest

from mm_keras.data.text_table import TextTable

RECORDS = [["oak mug", "steel mug"], [], ["steel mug"], [" \t"], ["oak mug", "red", "blue", "steel mug"]]


def _texts(table, rows):
    return [table.texts[int(row)].as_py().decode() for row in rows]


@pytest.fixture(params=[1, 2], ids=["one chunk", "several chunks"])
def table(request):
    chunks = [RECORDS] if request.param == 1 else [RECORDS[:2], RECORDS[2:]]
    return TextTable(pa.chunked_array(chunks, pa.list_(pa.string())))


def test_each_distinct_text_is_there_once_after_the_empty_one(table):
    assert _texts(table, range(len(table.texts))) == ["", "oak mug", "steel mug", " \t", "red", "blue"]
    np.testing.assert_array_equal(table.counts, [2, 0, 1, 1, 4])


def test_blank_text_counts_as_missing(table):
    np.testing.assert_array_equal(table.present, [False, True, True, False, True, True])


def test_first_text_of_a_record_is_taken_and_the_empty_one_where_it_has_none(table):
    assert _texts(table, table.rows(np.arange(5))) == ["oak mug", "", "steel mug", " \t", "oak mug"]


@pytest.mark.parametrize(("drawn", "expected"), [(0.0, "oak mug"), (0.25, "red"), (0.5, "blue"), (0.999, "steel mug")])
def test_number_that_is_drawn_chooses_the_text(table, drawn, expected):
    assert _texts(table, table.rows(np.array([4, 4]), np.array([drawn, drawn]))) == [expected, expected]


def test_records_come_in_any_order_and_repeatedly(table):
    assert _texts(table, table.rows(np.array([2, 0, 1, 0]), np.array([0.9, 0.9, 0.9, 0.0]))) == [
        "steel mug",
        "steel mug",
        "",
        "oak mug",
    ]


def test_field_without_any_text_has_the_empty_one():
    table = TextTable(pa.chunked_array([[[], []]], pa.list_(pa.string())))
    assert _texts(table, table.rows(np.arange(2), np.array([0.0, 0.9]))) == ["", ""]
    np.testing.assert_array_equal(table.present, [False])
