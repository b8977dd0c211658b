import json
import os

import pandas as pd
import pytest

from tests.tfrecords_tools.sources.read_tables import ALL, TITLE, read_table
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.sources.example import SourceExample
from tfrecords_tools.sources.table import Columns, TableError, make_source


def test_every_role_is_read(write, tmp_path):
    path = write(
        "goods.csv",
        "id,image,title,about,label,split,weight,unused\n"
        "a1,pics/1.jpg,Mug,Blue,kitchen,train,0.5,x\n"
        "a2,,Lamp,,,test,2,y\n",
    )  # fmt: skip
    examples, rejections = read_table(path, ALL)
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
    examples, _ = read_table(path, Columns(image="image"), image_root=tmp_path / "pics")
    assert [str(example.image) for example in examples] == [str(tmp_path / "pics" / "a.jpg"), "/elsewhere/b.jpg"]


def test_default_ids_name_the_table_and_the_line(write):
    examples, _ = read_table(write("goods.csv", 'title\n"two\nlines"\nb\n'))
    assert [(example.id, example.where) for example in examples] == [("goods:2", "goods.csv:2"), ("goods:4", "goods.csv:4")]


def test_missing_column_is_told_before_work_starts_with_those_there_are(write):
    good, bad = write("good.csv", "title,label\nx,y\n"), write("bad.csv", "Title,label\nx,y\n")
    with pytest.raises(
        TableError, match=r"bad.csv has no column 'title'; its columns are \['Title', 'label'\]\. Did you mean 'Title'\?"
    ):
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
    with pytest.raises(TableError, match=r"tables are \.csv, .*\.parquet, .* files, .*\. Received: .*t\.xlsx"):
        make_source([write("t.xlsx", "title\n")], TITLE)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(TableError, match=r"nowhere\.csv does not exist"):
        make_source([tmp_path / "nowhere.csv"], TITLE)


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
    examples, rejections = read_table(path, Columns(text=("title",), id="id", split="split", weight="weight"))
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
    examples, _ = read_table(write("t.csv", 'title,label\nx,"two\nlines  here"\n'), Columns(text=("title",), label="label"))
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
