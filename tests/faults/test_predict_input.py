"""Kind: a failure that is reported as success. What one predicts of is read as packing reads it, or refused with what to do."""

import base64
import gzip
import json

import pandas as pd
import pytest
from PIL import Image

from mm_keras.runs.example_rows import InputOptions
from mm_keras.runs.predict_input import open_examples

MODALITIES = ("image", "name")
ROWS = [("a", "1.png", "red thing", "circle"), ("b", "2.png", "blue thing", "square")]
COLUMNS = ("id", "picture", "name", "kind")


def _frame():
    return pd.DataFrame(ROWS, columns=COLUMNS)


FORMS = {
    "new.csv": lambda frame: frame.to_csv(index=False).encode(),
    "indexed.csv": lambda frame: frame.to_csv().encode(),
    "semicolons.csv": lambda frame: frame.to_csv(index=False, sep=";").encode(),
    "excel.csv": lambda frame: frame.to_csv(index=False, sep="\t").encode("utf-16"),
    "new.TSV": lambda frame: frame.to_csv(index=False, sep="\t").encode(),
    "new.csv.gz": lambda frame: gzip.compress(frame.to_csv(index=False).encode()),
    "new.jsonl": lambda frame: frame.to_json(orient="records", lines=True).encode(),
    "array.json": lambda frame: frame.to_json(orient="records").encode(),
    "columns.json": lambda frame: frame.to_json().encode(),
    "new.parquet": lambda frame: frame.to_parquet(),
}


@pytest.fixture
def folder(tmp_path, encode_image):
    """A folder with the pictures 1.png and 2.png."""
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(encode_image(Image.new("RGB", (9, 9)), "PNG"))
    return tmp_path


def _open(path, content, modalities=MODALITIES, **options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_examples(path, modalities, InputOptions(**options))


@pytest.mark.parametrize("name", FORMS)
def test_any_form_of_table_gives_the_inputs_and_ids(folder, name):
    examples = _open(folder / name, FORMS[name](_frame()))
    rows = list(examples.rows)
    assert [row.error for row in rows] == ["", ""]
    assert [row.id for row in rows] == ["a", "b"]
    assert [row.inputs["name"] for row in rows] == ["red thing", "blue thing"]
    assert [row.inputs["image"] for row in rows] == [str(folder / "1.png"), str(folder / "2.png")]
    notes = "\n".join(examples.notes)
    assert "pictures are those of column 'picture'" in notes
    assert "'kind'" in notes.partition("not used: ")[2]


@pytest.mark.parametrize(
    ("cell", "is_bytes"),
    [("1.png", False), ("1", False), (".\\1.png", False), ("base64", True), ("bytes", True), ("hugging face", True)],
)
def test_picture_may_be_a_path_or_encoded(folder, cell, is_bytes):
    data = (folder / "1.png").read_bytes()
    encoded = {"base64": base64.b64encode(data).decode(), "bytes": data, "hugging face": {"bytes": data, "path": None}}
    frame = pd.DataFrame({"picture": [encoded.get(cell, cell)]})
    (row,) = _open(folder / "t.parquet", frame.to_parquet()).rows
    assert row.inputs == {"image": data if is_bytes else str(folder / "1.png")}


ODD = [
    ('{"id": 7, "image": "1.png"}', 7, {"image": "1.png"}),
    ('{"id": "x", "name": 0}', "x", {"name": "0"}),
    ('{"name": 5.5}', "new:3", {"name": "5.5"}),
    ('{"name": ["", "first", "second"]}', "new:4", {"name": "first"}),
    ('{"image": "1.png", "name": NaN}', "new:5", {"image": "1.png"}),
    ("", "new:6", "a blank line"),
    ('{"image": null, "name": " "}', "new:7", "none of the run's inputs ['image', 'name'] is in it"),
    ('{"naem": "x"}', "new:8", "it has ['naem']"),
    ('{"name": {"en": "x"}}', "new:9", "expected text or a number in column 'name', found dict"),
    ('{"name": "x", "image": 3.5}', "new:10", {"image": "3.5", "name": "x"}),
    ("{broken", "new:11", "malformed row"),
    ("[" * 100_000, "new:12", "nested too deeply"),
    ('{"name": ' + "9" * 5000 + "}", "new:13", "malformed row"),
    ('{"name": "caf\udce9"}', "new:14", "it is not UTF-8"),
    ('{"id": "u", "image": "https://x.org/1.png"}', "u", "is a URL: fetch the pictures first"),
    ('{"id": "m", "image": ["1.png", "2.png"]}', "m", "2 images in column 'image'"),
    ('{"name": "last"}', "new:17", {"name": "last"}),
]


def test_each_line_is_answered_for_itself_in_its_place(folder):
    content = "\n".join(line for line, _, _ in ODD).encode("utf-8", "surrogateescape")
    rows = list(_open(folder / "new.jsonl", content).rows)
    assert len(rows) == len(ODD)
    for row, (line, row_id, expected) in zip(rows, ODD, strict=True):
        assert row.id == row_id, line[:60]
        if isinstance(expected, str):
            assert expected in row.error, line[:60]
        else:
            found = {name: value.removeprefix(f"{folder}/") for name, value in row.inputs.items()}
            assert (found, row.error) == (expected, ""), line[:60]


def test_columns_are_bound_by_options_where_names_differ(folder):
    content = "key,front,back,product\n1,1.png,2.png,red thing\n"
    examples = _open(folder / "t.csv", content, columns={"image": "back", "name": "product"}, id="key")
    (row,) = examples.rows
    assert (row.id, row.inputs) == ("1", {"image": str(folder / "2.png"), "name": "red thing"})
    (row,) = _open(folder / "t.csv", content, image_template="{key}.png").rows
    assert row.inputs == {"image": str(folder / "1.png")}


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("front,back\n1.png,2.png\n", {}, r"several columns with pictures, \['front', 'back'\]: say which one, --image=front"),
        ("a,b\nx,y\n", {}, r"none of the run's inputs \['image', 'name'\]; its columns are \['a', 'b'\]"),
        ("name\nx\n", {"columns": {"title": "name"}}, r"the run has no input 'title'; its inputs are \['image', 'name'\]"),
        ("name\nx\n", {"columns": {"name": "nome"}}, r"t\.csv has no column 'nome'; its columns are \['name'\]"),
        ("name\nx\n", {"id": "key"}, r"t\.csv has no column 'key'"),
        ("", {}, r"t\.csv is empty"),
    ],
)
def test_what_is_not_clear_is_asked_before_the_model_is_loaded(folder, content, options, message):
    with pytest.raises(ValueError, match=message):
        _open(folder / "t.csv", content, **options)


def test_text_columns_called_like_inputs_are_texts(folder):
    modalities = ("image", "text/image", "text/all texts")
    content = "image,photo,all texts\na title,1.png,words\n"
    (row,) = _open(folder / "t.csv", content, modalities).rows
    assert row.inputs == {"image": str(folder / "1.png"), "text/image": "a title", "text/all texts": "words"}
    (row,) = _open(folder / "t.csv", content, modalities, columns={"all texts": "image"}).rows
    assert row.inputs["text/all texts"] == "a title"


def test_inputs_without_a_column_are_told(folder):
    assert any("no column holds pictures" in note for note in _open(folder / "t.csv", "name\nx\n").notes)
    (first, _) = _open(folder / "t.csv", "link,name\nhttps://x.org/1.png,x\n").notes
    assert "Column 'link' holds URLs: fetch the pictures first (tfrecords-tools collect images" in first
    assert any("no column for 'name'" in note for note in _open(folder / "t.csv", "image\n1.png\n").notes)


def test_rows_lost_behind_a_quote_are_counted(folder):
    content = 'name,x\n"open,1\nred thing,2\n"blue" thing,3\nlast,4\n'
    rows = list(_open(folder / "t.csv", content).rows)
    assert [(row.id, row.inputs.get("name"), row.number) for row in rows] == [
        ("t:2", None, 1),
        ("t:3", "red thing", 1),
        ("t:4", None, 1),
        ("t:5", "last", 1),
    ]


def test_folder_is_its_pictures_and_nothing_else(folder):
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "1.png").rename(folder / "sub" / "deep" / "1.JPG")
    (folder / "notes.txt").write_text("x")
    examples = open_examples(folder, MODALITIES)
    assert [row.id for row in examples.rows] == ["2.png", "sub/deep/1.JPG"]
    assert (examples.stem, examples.unit) == (folder.name, "pictures")
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no pictures"):
        open_examples(folder / "empty", MODALITIES)
    with pytest.raises(ValueError, match="is a folder of pictures; --image, --text and --keep name columns"):
        open_examples(folder, MODALITIES, InputOptions(columns={"name": "x"}))
    with pytest.raises(ValueError, match=r"the run sees no pictures; its inputs are \['name'\]"):
        open_examples(folder, ("name",))


def test_input_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.csv does not exist"):
        open_examples(tmp_path / "none.csv", MODALITIES)


def test_ids_of_json_keep_their_type(folder):
    (row,) = _open(folder / "t.jsonl", json.dumps({"id": 12, "name": "x"})).rows
    assert row.id == 12
