import json
import os

import numpy as np
import pandas as pd
import pytest

from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.sources.example import Rejection, SourceExample
from tfrecords_tools.sources.table import Columns, TableError, iter_examples, make_source

TITLE = Columns(text=("title",))
ALL = Columns(image="image", text=("title", "about"), label="label", id="id", split="split", weight="weight")


def _read(table, columns=TITLE, **options):
    """The examples and the rejections of a table that passed the check of its columns."""
    rows = list(make_source([table], columns, **options).examples())
    return (
        [row for row in rows if isinstance(row, SourceExample)],
        [(row.where, row.reason) for row in rows if isinstance(row, Rejection)],
    )


def _titles(table, columns=TITLE, **options):
    examples, rejections = _read(table, columns, **options)
    assert rejections == []
    return [example.texts["title"][0] for example in examples]


def test_every_role_is_read(write, tmp_path):
    path = write(
        "goods.csv",
        "id,image,title,about,label,split,weight,unused\n"
        "a1,pics/1.jpg,Mug,Blue,kitchen,train,0.5,x\n"
        "a2,,Lamp,,,test,2,y\n",
    )  # fmt: skip
    examples, rejections = _read(path, ALL)
    assert rejections == []
    assert examples == [
        SourceExample(
            "a1", "goods.csv:2", tmp_path / "pics/1.jpg", {"title": ["Mug"], "about": ["Blue"]}, ["kitchen"], "train", 0.5
        ),
        SourceExample("a2", "goods.csv:3", None, {"title": ["Lamp"], "about": [""]}, [], "test", 2.0),
    ]


def test_source_declares_what_it_is(write):
    path = write("goods.csv", "title,about,label\n")
    source = make_source([path], Columns(text=("title", "about"), label="label"), derived_from_label=("about",))
    assert source.text_fields == {"title": False, "about": True}
    assert (source.multi_label, source.files) == (False, [path])


def test_image_paths_are_relative_to_the_image_root(write, tmp_path):
    path = write("goods.csv", "image\na.jpg\n/elsewhere/b.jpg\n")
    examples, _ = _read(path, Columns(image="image"), image_root=tmp_path / "pics")
    assert [str(example.image) for example in examples] == [str(tmp_path / "pics" / "a.jpg"), "/elsewhere/b.jpg"]


def test_default_ids_name_the_table_and_the_line(write):
    examples, _ = _read(write("goods.csv", 'title\n"two\nlines"\nb\n'))
    assert [(example.id, example.where) for example in examples] == [("goods:2", "goods.csv:2"), ("goods:4", "goods.csv:4")]


def test_quotes_commas_and_newlines_inside_cells_are_text(write):
    path = write("t.csv", 'title,x\r\n"Mug, ""blue""",1\r\n"two\nlines",2\r\n  padded  ,3\r\n')
    assert _titles(path) == ['Mug, "blue"', "two\nlines", "padded"]


def test_byte_order_mark_is_no_part_of_the_first_column(write):
    assert _titles(write("t.csv", "\ufefftitle\nMug\n")) == ["Mug"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(("name", "content"), [("t.csv", "title\nCafé 第\n"), ("t.jsonl", '{"title": "Café 第"}\n')])
def test_utf16_with_a_byte_order_mark_is_recognised(write, name, content, encoding):
    content = content if encoding == "utf-16" else "\ufeff" + content
    assert _titles(write(name, content.encode(encoding))) == ["Café 第"]


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
        _read(path)
    assert name in str(caught.value)
    assert _titles(path, encoding="cp1252")[-1] in ("Mug", "Café")


def test_other_encoding_deep_inside_json_lines_is_an_error_too(write):
    rows = ['{"title": "x"}'] * 5000 + ['{"title": "Café"}']
    with pytest.raises(TableError, match="--encoding=cp1252"):
        _read(write("t.jsonl", "\n".join(rows).encode("cp1252")))


@pytest.mark.parametrize("encoding", ["utf-16", "klingon"])
def test_encoding_that_does_not_fit_is_an_error(write, encoding):
    with pytest.raises(TableError, match=r"--encoding=cp1252"):
        _read(write("t.csv", "title\nMug and more\n"), encoding=encoding)


@pytest.mark.parametrize("encoding", ["utf-16", "klingon"])
def test_encoding_that_does_not_fit_is_an_error_while_reading_too(write, encoding):
    with pytest.raises(TableError, match=rf"t\.csv is not {encoding}: .*--encoding=cp1252"):
        list(iter_examples(write("t.csv", "title\nMug and more\n"), TITLE, encoding=encoding))


def test_tsv_is_split_at_tabs_and_may_quote(write):
    path = write("t.tsv", 'title\tx\nMug, blue\t1\n"tab\there"\t2\nthe 12" one\t3\n')
    assert _titles(path) == ["Mug, blue", "tab\there", 'the 12" one']


def test_json_lines_hold_lists_numbers_and_missing_keys(write):
    rows = [
        {"id": 7, "title": ["one", "two", None], "label": ["red", "round"], "weight": 0.5},
        {"id": "b", "title": "alone", "label": "red"},
        {"id": "c", "label": None},
    ]
    path = write("t.jsonl", "\n\n".join(map(json.dumps, rows)))
    columns = Columns(text=("title",), label="label", id="id")
    examples, rejections = _read(path, columns, multi_label=True)
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
    examples, rejections = _read(path, Columns(text=("title",), id="id"))
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
        examples, rejections = _read(table, columns, multi_label=True)
        assert rejections == []
        assert [example.where for example in examples] == [f"{name}:{i}" for i in range(3)]
        assert [example.id for example in examples] == ["1", "2", "3"]
        assert [example.texts["title"] for example in examples] == [["Mug"], [""], ["Lamp"]]
        assert [example.texts["captions"] for example in examples] == [["a", "b"], [], ["c"]]
        assert [example.labels for example in examples] == [["x"], ["y", "x"], []]
        assert [example.weight for example in examples] == [1.0, 0.0, 0.5]


def test_data_frame_cells_may_be_arrays_and_missing_values():
    frame = pd.DataFrame({"title": pd.array(["a", pd.NA, "c"], "string"), "tags": [np.array(["x", "y"]), float("nan"), ("z",)]})
    examples, _ = _read(frame, Columns(text=("title",), label="tags"), multi_label=True)
    assert [example.texts["title"] for example in examples] == [["a"], [""], ["c"]]
    assert [example.labels for example in examples] == [["x", "y"], [], ["z"]]
    assert [example.id for example in examples] == ["row:0", "row:1", "row:2"]


def test_data_frame_columns_may_be_numbers():
    assert _titles(pd.DataFrame({0: ["Mug"], 1: ["x"]}).rename(columns={1: "title"})) == ["x"]
    examples, _ = _read(pd.DataFrame({0: ["Mug"]}), Columns(text=("0",)))
    assert examples[0].texts == {"0": ["Mug"]}


def test_file_that_is_no_parquet_is_named(write):
    with pytest.raises(TableError, match=r"t\.parquet is no readable Parquet file"):
        _read(write("t.parquet", "title\n"))


@pytest.mark.parametrize("word", ["NA", "None", "nan", "007", "1e5", "true", "-"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_cell_is_text_as_it_stands(write, word, suffix):
    content = json.dumps({"title": word}) if suffix == "jsonl" else f"title\n{word}\n"
    assert _titles(write(f"t.{suffix}", content)) == [word]


def test_missing_column_is_told_before_work_starts_with_those_there_are(write):
    good, bad = write("good.csv", "title,label\nx,y\n"), write("bad.csv", "Title,label\nx,y\n")
    with pytest.raises(TableError, match=r"bad.csv has no column 'title'; its columns are \['Title', 'label'\]"):
        make_source([good, bad], TITLE)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "DataFrame"])
def test_repeated_column_is_an_error(write, tmp_path, name):
    if name == "t.csv":
        table = write(name, "title,x,title\na,b,c\n")
    elif name == "t.parquet":
        import pyarrow
        import pyarrow.parquet

        table = tmp_path / name
        pyarrow.parquet.write_table(pyarrow.table([["a"], ["c"]], names=["title", "title"]), table)
    else:
        table = pd.DataFrame([["a", "c"]], columns=["title", "title"])
    with pytest.raises(TableError, match=f"{name} has several columns named 'title'"):
        make_source([table], TITLE)


def test_unknown_suffix_is_named_with_the_known_ones(write):
    with pytest.raises(TableError, match=r"tables are \.csv, \.tsv, \.jsonl, \.parquet files\. Received: .*t\.xlsx"):
        make_source([write("t.xlsx", "title\n")], TITLE)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(TableError, match=r"nowhere\.csv does not exist"):
        make_source([tmp_path / "nowhere.csv"], TITLE)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
def test_empty_file_is_an_error(write, name):
    with pytest.raises(TableError, match=f"{name} is empty"):
        make_source([write(name, "")], TITLE)


def test_file_that_was_emptied_after_the_check_yields_nothing(write):
    assert list(iter_examples(write("t.csv", ""), TITLE)) == []


def test_header_without_rows_yields_nothing(write):
    assert _read(write("t.csv", "title,x\n")) == ([], [])


def test_header_with_an_unclosed_quote_is_an_error(write):
    with pytest.raises(TableError, match=r"t\.csv has a malformed header: "):
        _read(write("t.csv", '"title,x\na,b\n'))


def test_rows_of_another_length_are_rejected_with_their_line_and_the_others_go_on(write):
    path = write("t.csv", 'title,x\na,1\nb\n"c\nd",2\n\ne,3,4\nf,5\n')
    examples, rejections = _read(path)
    assert [example.texts["title"] for example in examples] == [["a"], ["c\nd"], ["f"]]
    assert rejections == [
        ("t.csv:3", "malformed row: 1 cell(s) under 2 columns"),
        ("t.csv:7", "malformed row: 3 cell(s) under 2 columns"),
    ]


def test_unclosed_quote_is_rejected_with_the_lines_it_swallowed(write):
    path = write("t.csv", 'title,x\na,1\n"b,2\nc,3\nd,4\n')
    examples, rejections = _read(path)
    assert [example.texts["title"] for example in examples] == [["a"]]
    assert rejections == [("t.csv:3", "malformed row: unexpected end of data (lines 3–5); an unclosed quote, perhaps")]


def test_stray_quote_costs_only_its_own_row(write):
    examples, rejections = _read(write("t.csv", 'title,x\n"b" c,2\nd,4\n'))
    assert [example.texts["title"] for example in examples] == [["d"]]
    assert rejections[0][0] == "t.csv:2"
    assert "(line 2)" in rejections[0][1]


def test_cell_over_the_limit_is_rejected_and_the_others_go_on(write):
    examples, rejections = _read(write("t.csv", f"title\n{'x' * 2_000_000}\nb\n"))
    assert [example.texts["title"] for example in examples] == [["b"]]
    assert "field larger than field limit" in rejections[0][1]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",t,train,1", "empty id in column 'id'"),
        ("  ,t,train,1", "empty id in column 'id'"),
        ("b,t,,1", "empty split in column 'split'"),
        ("b,t,train,", "weight must be a number of at least 0. Received: '' in column 'weight'"),
        ("b,t,train,heavy", "weight must be a number of at least 0. Received: 'heavy' in column 'weight'"),
        ("b,t,train,-1", "weight must be a number of at least 0. Received: '-1' in column 'weight'"),
        ("b,t,train,nan", "weight must be a number of at least 0. Received: 'nan' in column 'weight'"),
        ("b,t,train,inf", "weight must be a number of at least 0. Received: 'inf' in column 'weight'"),
    ],
)
def test_bad_cell_rejects_its_row_and_the_others_go_on(write, row, reason):
    path = write("t.csv", f"id,title,split,weight\na,t,train,1\n{row}\nc,t,test,0\n")
    examples, rejections = _read(path, Columns(text=("title",), id="id", split="split", weight="weight"))
    assert [example.id for example in examples] == ["a", "c"]
    assert rejections == [("t.csv:3", reason)]


@pytest.mark.parametrize(
    ("separator", "cell", "labels"),
    [
        (" ", "1 19", ["1", "19"]),
        (" ", " 1  19 ", ["1", "19"]),
        ("|", "red | very round", ["red", "very round"]),
        ("|", "", []),
    ],
)
def test_label_separator_makes_several_labels(write, separator, cell, labels):
    source = make_source([write("t.csv", f"title,label\nx,{cell}\n")], Columns(text=("title",), label="label"), separator)
    assert source.multi_label
    assert next(source.examples()).labels == labels


def test_white_space_inside_a_label_is_one_space(write):
    examples, _ = _read(write("t.csv", 'title,label\nx,"two\nlines  here"\n'), Columns(text=("title",), label="label"))
    assert examples[0].labels == ["two lines here"]


def test_tables_of_one_name_need_an_id_column(write, tmp_path):
    (tmp_path / "b").mkdir()
    tables = [write("t.csv", "id,title\n1,x\n"), write("b/t.tsv", "id\ttitle\n2\ty\n")]
    with pytest.raises(TableError, match=r"tables of one name give equal ids; name an id column \(--id\).*'t', 't'"):
        make_source(tables, TITLE)
    source = make_source(tables, Columns(text=("title",), id="id"))
    assert [example.id for example in source.examples()] == ["1", "2"]


def test_tables_are_read_one_after_the_other(write):
    source = make_source([write("b.csv", "title\nx\n"), write("a.csv", "title\ny\n")], TITLE)
    assert [example.id for example in source.examples()] == ["b:2", "a:2"]
    assert [example.id for example in source.examples()] == ["b:2", "a:2"]  # afresh each time


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (Columns(label="label"), {}, "name an image column (--image), text columns (--text), or both"),
        (Columns(text=("title", "title")), {}, "text column 'title' is named twice"),
        (Columns(text=("title", "label"), label="label"), {}, "column 'label' is both the label and a text"),
        (TITLE, {"derived_from_label": ("about",)}, "derived_from_label names 'about', which is no text column"),
        (Columns(text=("title",), label="label"), {"label_separator": ""}, "label_separator must not be empty"),
    ],
)
def test_roles_that_contradict_each_other_are_an_error(write, columns, options, message):
    with pytest.raises(TableError) as caught:
        make_source([write("t.csv", "title,label\n")], columns, **options)
    assert message in str(caught.value)


def test_label_may_be_a_text_where_that_is_declared(write):
    columns = Columns(text=("title", "label"), label="label")
    source = make_source([write("t.csv", "title,label\n")], columns, derived_from_label=("label",))
    assert source.text_fields == {"title": False, "label": True}


def test_packed_table_reports_its_bad_rows(write, tmp_path, small_jpeg, read_split):
    write("1.jpg", small_jpeg)
    path = write("t.csv", "image,title,label\n1.jpg,a,x\n2.jpg,b,y\n1.jpg,c\n,d,x\n")
    source = make_source([path], Columns(image="image", text=("title",), label="label"))
    options = PackOptions(fractions={"train": 1.0}, max_bad_fraction=0.5)
    info = pack(source, tmp_path / "dataset", options, progress=False)
    assert info.provenance["files"][0]["name"] == "t.csv"
    records = {record.id: record for record in read_split(tmp_path / "dataset", "train")}
    assert {example_id: bool(record.image) for example_id, record in records.items()} == {
        "t:2": True,
        "t:3": False,
        "t:5": False,
    }
    lines = (tmp_path / "dataset" / "rejected.jsonl").read_text("utf-8").splitlines()
    assert [(r["where"], r["action"]) for r in map(json.loads, lines)] == [
        ("t.csv:3", "kept without its image"),
        ("t.csv:4", "left out"),
    ]
    assert os.fspath(tmp_path) not in (tmp_path / "dataset" / "dataset.json").read_text("utf-8")
