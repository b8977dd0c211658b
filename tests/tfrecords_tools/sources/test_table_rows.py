import json

import numpy as np
import pandas as pd
import pytest

from tests.tfrecords_tools.sources.read_tables import TITLE, read_table, read_titles
from tfrecords_tools.sources.table import Columns, TableError, iter_examples, make_source
from tfrecords_tools.sources.table_file import TextFormat
from tfrecords_tools.sources.table_rows import open_table


def test_quotes_commas_and_newlines_inside_cells_are_text(write):
    path = write("t.csv", 'title,x\r\n"Mug, ""blue""",1\r\n"two\nlines",2\r\n  padded  ,3\r\n')
    assert read_titles(path) == ['Mug, "blue"', "two\nlines", "padded"]


def test_byte_order_mark_is_no_part_of_the_first_column(write):
    assert read_titles(write("t.csv", "\ufefftitle\nMug\n")) == ["Mug"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(("name", "content"), [("t.csv", "title\nCafé 第\n"), ("t.jsonl", '{"title": "Café 第"}\n')])
def test_utf16_with_a_byte_order_mark_is_recognised(write, name, content, encoding):
    content = content if encoding == "utf-16" else "\ufeff" + content
    assert read_titles(write(name, content.encode(encoding))) == ["Café 第"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("header.csv", "title,größe\nMug,1\n"),
        ("row.csv", "title\nMug\nCafé\n"),
        ("row.tsv", "title\tx\nCafé\ty\n"),
        ("row.jsonl", '{"title": "Café"}\n'),
    ],
)
def test_other_encoding_is_an_error_that_names_the_option(write, name, content):
    path = write(name, content.encode("cp1252"))
    with pytest.raises(TableError, match="Name its encoding, for example --encoding=cp1252") as caught:
        read_table(path)
    assert name in str(caught.value)
    assert read_titles(path, encoding="cp1252")[-1] in ("Mug", "Café")


def test_other_encoding_deep_inside_json_lines_is_an_error_too(write):
    rows = ['{"title": "x"}'] * 5000 + ['{"title": "Café"}']
    with pytest.raises(TableError, match="--encoding=cp1252"):
        read_table(write("t.jsonl", "\n".join(rows).encode("cp1252")))


@pytest.mark.parametrize("encoding", ["utf-16", "klingon"])
def test_encoding_that_does_not_fit_is_an_error(write, encoding):
    with pytest.raises(TableError, match=r"--encoding=cp1252"):
        read_table(write("t.csv", "title\nMug and more\n"), encoding=encoding)


@pytest.mark.parametrize("encoding", ["utf-16", "klingon"])
def test_encoding_that_does_not_fit_is_an_error_while_reading_too(write, encoding):
    with pytest.raises(TableError, match=rf"t\.csv is not {encoding}: .*--encoding=cp1252"):
        list(open_table(write("t.csv", "title\nMug and more\n"), TextFormat(encoding)).iter_rows(["title"]))


def test_tsv_is_split_at_tabs_and_may_quote(write):
    path = write("t.tsv", 'title\tx\nMug, blue\t1\n"tab\there"\t2\nthe 12" one\t3\n')
    assert read_titles(path) == ["Mug, blue", "tab\there", 'the 12" one']


def test_json_lines_hold_lists_numbers_and_missing_keys(write):
    rows = [
        {"id": 7, "title": ["one", "two", None], "label": ["red", "round"], "weight": 0.5},
        {"id": "b", "title": "alone", "label": "red"},
        {"id": "c", "label": None},
    ]
    path = write("t.jsonl", "\n\n".join(map(json.dumps, rows)))
    columns = Columns(text=("title",), label="label", id="id")
    examples, rejections = read_table(path, columns, multi_label=True)
    assert rejections == []
    assert [example.id for example in examples] == ["7", "b", "c"]
    assert [example.texts["title"] for example in examples] == [["one", "two", ""], ["alone"], [""]]
    assert [example.labels for example in examples] == [["red", "round"], ["red"], []]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"title": "x"', "malformed row: Expecting ',' delimiter"),
        ('["x"]', "malformed row: expected a JSON object, found list"),
        ('{"id": "x", "title": {"en": "x"}}', "expected text or a number in column 'title', found dict: {'en': 'x'}"),
        ('{"title": "x", "id": ["a"]}', "expected text or a number in column 'id', found list: ['a']"),
        ('{"title": "x"}', "empty id in column 'id'"),
    ],
)
def test_broken_json_line_is_rejected_and_the_others_go_on(write, line, reason):
    path = write("t.jsonl", f'{{"title": "a", "id": 1}}\n{line}\n{{"title": "b", "id": 2}}\n')
    examples, rejections = read_table(path, Columns(text=("title",), id="id"))
    assert [example.id for example in examples] == ["1", "2"]
    assert [where for where, _ in rejections] == ["t.jsonl:2"]
    assert rejections[0][1].startswith(reason)


def test_parquet_and_data_frame_read_alike(tmp_path):
    frame = pd.DataFrame(
        {
            "id": [1, 2, 3],
            "title": ["Mug", None, "Lamp"],
            "captions": [["a", "b"], [], ["c"]],
            "label": [["x"], ["y", "x"], None],
            "weight": [1.0, 0.0, 0.5],
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    columns = Columns(text=("title", "captions"), label="label", id="id", weight="weight")
    for table, name in ((tmp_path / "t.parquet", "t.parquet"), (frame, "DataFrame")):
        examples, rejections = read_table(table, columns, multi_label=True)
        assert rejections == []
        assert [example.where for example in examples] == [f"{name}:{i}" for i in range(3)]
        assert [example.id for example in examples] == ["1", "2", "3"]
        assert [example.texts["title"] for example in examples] == [["Mug"], [""], ["Lamp"]]
        assert [example.texts["captions"] for example in examples] == [["a", "b"], [], ["c"]]
        assert [example.labels for example in examples] == [["x"], ["y", "x"], []]
        assert [example.weight for example in examples] == [1.0, 0.0, 0.5]


def test_data_frame_cells_may_be_arrays_and_missing_values():
    frame = pd.DataFrame({"title": pd.array(["a", pd.NA, "c"], "string"), "tags": [np.array(["x", "y"]), float("nan"), ("z",)]})
    examples, _ = read_table(frame, Columns(text=("title",), label="tags"), multi_label=True)
    assert [example.texts["title"] for example in examples] == [["a"], [""], ["c"]]
    assert [example.labels for example in examples] == [["x", "y"], [], ["z"]]
    assert [example.id for example in examples] == ["row:0", "row:1", "row:2"]


def test_data_frame_columns_may_be_numbers():
    assert read_titles(pd.DataFrame({0: ["Mug"], 1: ["x"]}).rename(columns={1: "title"})) == ["x"]
    examples, _ = read_table(pd.DataFrame({0: ["Mug"]}), Columns(text=("0",)))
    assert examples[0].texts == {"0": ["Mug"]}


def test_file_that_is_no_parquet_is_named(write):
    with pytest.raises(TableError, match=r"t\.parquet is no readable Parquet file"):
        read_table(write("t.parquet", "title\n"))


@pytest.mark.parametrize("word", ["NA", "None", "nan", "007", "1e5", "true", "-"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_cell_is_text_as_it_stands(write, word, suffix):
    content = json.dumps({"title": word}) if suffix == "jsonl" else f"title\n{word}\n"
    assert read_titles(write(f"t.{suffix}", content)) == [word]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
def test_empty_file_is_an_error(write, name):
    with pytest.raises(TableError, match=f"{name} is empty"):
        make_source([write(name, "")], TITLE)


def test_file_that_was_emptied_after_the_check_yields_nothing(write):
    assert list(iter_examples(write("t.csv", ""), TITLE)) == []


def test_header_without_rows_yields_nothing(write):
    assert read_table(write("t.csv", "title,x\n")) == ([], [])


def test_header_with_an_unclosed_quote_is_an_error(write):
    with pytest.raises(TableError, match=r"t\.csv has a malformed header: "):
        read_table(write("t.csv", '"title,x\na,b\n'))


def test_rows_of_another_length_are_rejected_with_their_line_and_the_others_go_on(write):
    path = write("t.csv", 'title,x\na,1\nb\n"c\nd",2\n\ne,3,4\nf,5\n')
    examples, rejections = read_table(path)
    assert [example.texts["title"] for example in examples] == [["a"], ["c\nd"], ["f"]]
    assert rejections == [
        ("t.csv:3", "malformed row: 1 cell(s) under 2 columns"),
        ("t.csv:7", "malformed row: 3 cell(s) under 2 columns"),
    ]


def test_unclosed_quote_costs_its_own_row_and_names_the_lines_it_would_swallow(write):
    path = write("t.csv", 'title,x\na,1\n"b,2\nc,3\nd,4\n')
    examples, rejections = read_table(path)
    assert [example.texts["title"] for example in examples] == [["a"], ["c"], ["d"]]
    reason = "malformed row: a quote in line 3 is not closed in it; the lines up to 5 that it would swallow are read as rows of"
    assert rejections == [("t.csv:3", f"{reason} their own (--no_quotes takes quotes for characters)")]


def test_stray_quote_costs_only_its_own_row(write):
    examples, rejections = read_table(write("t.csv", 'title,x\n"b" c,2\nd,4\n'))
    assert [example.texts["title"] for example in examples] == [["d"]]
    assert rejections[0][0] == "t.csv:2"
    assert "(line 2)" in rejections[0][1]


def test_cell_over_the_limit_is_rejected_and_the_others_go_on(write):
    examples, rejections = read_table(write("t.csv", f"title\n{'x' * 2_000_000}\nb\n"))
    assert [example.texts["title"] for example in examples] == [["b"]]
    assert "a cell of 2,000,000 characters (line 2); the limit is 1,048,576" in rejections[0][1]
