"""Kind: tables as they come out of other programs. What is unambiguous is read, and told; for the rest the option is named."""

import base64
import bz2
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tfrecords_tools.sources.example import Rejection
from tfrecords_tools.sources.table import Columns, TableError, make_source

COLUMNS = Columns(image="image", text=("title",), label="label")
FRAME = pd.DataFrame(
    {"image": ["1.png", "2.png", "3.png"], "title": ["Mug, blue", "Größe 第", "a|b;c"], "label": ["x", "y", "x"]},
)
CSV = FRAME.to_csv(index=False)


def _zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _joined(delimiter, **options):
    return FRAME.to_csv(index=False, sep=delimiter, **options)


READ = {  # file name -> (content, what is told of it)
    "plain.csv": (CSV, ""),
    "UPPER.CSV": (CSV, ""),
    "crlf.csv": (CSV.replace("\n", "\r\n"), ""),
    "semicolons.csv": (_joined(";"), "read as cells between semicolons"),
    "tabs.csv": (_joined("\t"), "read as cells between tabs"),
    "bars.txt": (_joined("|"), "read as cells between bars"),
    "commas.tsv": (CSV, "read as cells between commas"),
    "marked.csv": ("sep=;\n" + _joined(";"), "read as cells between semicolons"),
    "marked_as_usual.csv": ("sep=,\r\n" + CSV, ""),
    "excel.csv": (_joined("\t").encode("utf-16"), "read as cells between tabs, UTF-16"),
    "unmarked.csv": (CSV.encode("utf-16-le"), "read as UTF-16-LE"),
    "wide.csv": (CSV.encode("utf-32"), "read as UTF-32"),
    "quoted.csv": (_joined(",", quoting=1), ""),
    "indexed.csv": (FRAME.to_csv(), ""),
    "empty_cells.csv": ("\n".join(f"{line},," for line in CSV.splitlines()) + "\n,,,,\n", ""),
    "empty_in_rows.csv": (CSV.replace("x\n", "x,\n"), ""),
    "spaced.csv": (_joined(",", quoting=1).replace('","', '", "'), "read as spaces before quotes"),
    "padded.csv": (CSV.replace("image,title,label", " image , title,label "), ""),
    "t.csv.gz": (gzip.compress(CSV.encode()), ""),
    "t.csv.bz2": (bz2.compress(CSV.encode()), ""),
    "t.csv.xz": (lzma.compress(CSV.encode()), ""),
    "t.zip": (_zipped({"shop.csv": CSV, "__MACOSX/x.csv": "x", "README.txt": "x"}), ""),
    "t.csv.zip": (_zipped({"data/shop.jsonl": FRAME.to_json(orient="records", lines=True)}), ""),
    "secretly.csv": (gzip.compress(CSV.encode()), "read as compressed by gz"),
    "t.jsonl": (FRAME.to_json(orient="records", lines=True, force_ascii=False), ""),
    "t.ndjson": (FRAME.to_json(orient="records", lines=True), ""),
    "indented.jsonl": ("\n".join(json.dumps(row, indent=2) for row in FRAME.to_dict("records")), "read as one JSON document"),
    "lines.csv": (FRAME.to_json(orient="records", lines=True), "read as a JSON object a line"),
    "array.jsonl": (FRAME.to_json(orient="records"), "read as one JSON document"),
    "array.json": (FRAME.to_json(orient="records", indent=2), ""),
    "lines.json": (FRAME.to_json(orient="records", lines=True), "read as a JSON object a line"),
    "columns.json": (FRAME.to_json(), ""),
    "lists.json": (json.dumps(FRAME.to_dict("list")), ""),
    "split.json": (FRAME.to_json(orient="split"), ""),
    "table.json": (FRAME.to_json(orient="table"), ""),
    "nested.json": (json.dumps({"version": 1, "items": FRAME.to_dict("records")}), ""),
    "t.pq": (FRAME.to_parquet(), ""),
    "secret_parquet.csv": (FRAME.to_parquet(), "read as Parquet"),
}


def _write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", READ)
def test_table_is_read_and_told_how(tmp_path, name):
    content, told = READ[name]
    source = make_source([_write(tmp_path, name, content)], COLUMNS)
    examples = list(source.examples())
    assert [example.texts["title"] for example in examples] == [[title] for title in FRAME["title"]]
    assert [example.image for example in examples] == [tmp_path / image for image in FRAME["image"]]
    assert [example.labels for example in examples] == [["x"], ["y"], ["x"]]
    assert [note for note in source.notes if "name no file" not in note] == ([f"{name}: {told}"] if told else [])


REFUSED = {  # file name -> (content, what is said)
    "shop.xlsx": (_zipped({"xl/workbook.xml": ""}), r"Excel workbook; save it as CSV"),
    "old.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1", r"old Excel workbook; save it as CSV"),
    "two.zip": (_zipped({"a.csv": CSV, "b.csv": CSV}), r"holds 2 tables, .*unpack it.*a\.csv"),
    "none.zip": (_zipped({"a.png": "x"}), r"holds 0 tables"),
    "cut.csv.gz": (gzip.compress(CSV.encode())[:-9], r"cut\.csv\.gz is no complete compressed file"),
    "cut.json": (FRAME.to_json(orient="records")[:-9], r"cut\.json is no complete JSON document"),
    "page.csv": ("\n<!DOCTYPE html><html>", r"is a web page and not a table"),
    "pointer.csv": ("version https://git-lfs.github.com/spec/v1\noid sha256:1\n", r"git lfs pull"),
    "t.feather": (b"ARROW1\0\0", r"Feather file; .*to_parquet"),
    "t.zst": (b"\x28\xb5\x2f\xfd", r"zstd -d"),
    "cp1252.csv": (CSV.replace("第", "").encode("cp1252"), r"is not UTF-8: .*--encoding=cp1252"),
    "hash.csv": (_joined("#"), r"has no column 'image'.*--delimiter=';'"),
    "no_lines.jsonl": (CSV, r"no row of no_lines\.jsonl can be read; the first, no_lines\.jsonl:1: malformed row"),
    "scalar.json": ('{"a": {"b": 1}, "c": 2}', r"the JSON holds no table: expected an array of objects"),
    "t.dat": (CSV, r"tables are \.csv, .*--delimiter=';'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_says_what_to_do(tmp_path, name):
    content, said = REFUSED[name]
    with pytest.raises(TableError, match=said):
        list(make_source([_write(tmp_path, name, content)], COLUMNS).examples())


def test_folder_in_place_of_a_table_is_told(tmp_path):
    with pytest.raises(TableError, match=r"is a folder; name the tables in it"):
        make_source([tmp_path], COLUMNS)


@pytest.mark.parametrize(("name", "delimiter"), [("hash.csv", "#"), ("t.dat", ","), ("tabs.csv", "\t")])
def test_delimiter_can_be_named(tmp_path, name, delimiter):
    source = make_source([_write(tmp_path, name, _joined(delimiter))], COLUMNS, delimiter=delimiter)
    assert len(list(source.examples())) == 3
    assert not any("read as" in note for note in source.notes)
    with pytest.raises(ValueError, match="delimiter must be one character"):
        make_source([tmp_path / name], COLUMNS, delimiter="::")


def test_stray_delimiters_in_texts_do_not_mislead(tmp_path):
    content = "id,title\n" + "".join(f"{index},a;b;c|d\n" for index in range(9))
    source = make_source([_write(tmp_path, "t.csv", content)], Columns(text=("title",), id="id"))
    assert [example.texts["title"] for example in source.examples()] == [["a;b;c|d"]] * 9


@pytest.fixture
def pictures(tmp_path, encode_image):
    """The bytes of a PNG, which lies as 1.png, 2.JPG and 007.png in images/."""
    data = encode_image(Image.new("RGB", (9, 9)), "PNG")
    (tmp_path / "images").mkdir()
    for name in ("1.png", "2.JPG", "007.png", "both.png", "both.jpg", "with space.png", "semi;colon.png"):
        (tmp_path / "images" / name).write_bytes(data)
    return data


def _image(folder, cell, **options):
    """The image in a cell, or what is wrong with it; a path is relative to the folder."""
    frame = pd.DataFrame({"image": [cell, *[None] * 20], "id": ["7"] * 21, "title": ["x"] * 21})
    try:
        source = make_source([frame], Columns(image="image", text=("title",)), image_root=folder, **options)
    except TableError as error:
        return str(error)
    example = next(source.examples())
    if isinstance(example, Rejection):
        return example.reason
    return example.image.relative_to(folder).as_posix() if isinstance(example.image, Path) else example.image


CELLS = {
    "images/1.png": "images/1.png",
    "images/gone.png": "images/gone.png",  # is found missing when it is packed
    "images/1": "images/1.png",
    "images/2": "images/2.JPG",
    "images/gone": "images/gone",
    "images\\1.png": "images/1.png",
    ".\\images\\2": "images/2.JPG",
    "images/with space.png": "images/with space.png",
    "images/semi;colon.png": "images/semi;colon.png",
    "images/with%20space.png": "images/with space.png",
    "images/both": "'both' may be any of ['both.jpg', 'both.png']",
    "images/1.png;images/2.JPG": "--first_image takes the first",
    "images/1.png|images/2.JPG": "--first_image",
    "images/1.png, images/2.JPG": "--first_image",
    "['images/1.png', 'images/2.JPG']": "--first_image",
    "['images/1.png']": "images/1.png",
    "https://x.org/1.png": "tfrecords-tools collect images",
    "s3://bucket/1.png": "tfrecords-tools collect images",
    "data:image/png;base64,AAA": "does not decode",
    "x" * 5000: "x" * 5000,
}


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell[:30])
def test_image_cell_is_read_or_says_what_to_do(tmp_path, pictures, cell):
    found = _image(tmp_path, cell)
    assert CELLS[cell] in found if " " in CELLS[cell] or CELLS[cell].startswith("--") else found == CELLS[cell]


def test_image_cell_may_hold_the_picture(tmp_path, pictures):
    encoded = base64.b64encode(pictures).decode()
    for cell in (
        pictures,
        bytearray(pictures),
        {"bytes": pictures, "path": "1.png"},
        encoded,
        f"data:image/png;base64,{encoded}",
    ):
        assert _image(tmp_path, cell) == pictures
    assert _image(tmp_path, {"bytes": None, "path": "images/1.png"}) == "images/1.png"
    assert _image(tmp_path, {"bytes": None, "path": None}) is None


def test_what_is_no_image_and_names_none_is_told(tmp_path, pictures):
    assert "holds the pixels of an image" in _image(tmp_path, Image.new("RGB", (9, 9)))
    source = make_source([_write(tmp_path, "t.csv", "image\ngone/1.png\n,\ngone/2.png\n")], Columns(image="image"))
    assert "name no file: " in source.notes[0]
    assert "--image_root" in source.notes[0]


def test_first_of_several_images_is_taken_where_that_is_said(tmp_path, pictures):
    for cell in ("images/2.JPG;images/1.png", ["images/2.JPG", "images/1.png"], "['images/2.JPG', 'images/1.png']"):
        assert _image(tmp_path, cell, first_image=True) == "images/2.JPG"


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("images/{id:03d}.png", "images/007.png"),
        ("images/{id:03d}", "images/007.png"),
        ("images/{image}.png", "images/1.png"),
        ("{id}/{image}.png", "7/1.png"),
        ("images/{title:03d}.png", "'x' in column 'title' does not fit {title:03d}"),
        ("images/{key}.png", "has no column 'key'"),
        ("images/1.png", "image_template names columns in braces"),
        ("images/{id.png", "image_template 'images/{id.png'"),
    ],
)
def test_template_makes_paths_of_columns(tmp_path, pictures, template, found):
    try:
        image = _image(tmp_path, "1", image_template=template)
    except ValueError as error:
        image = str(error)
    assert found in image if " " in found else image == found


def test_numbers_of_parquet_have_the_names_that_the_file_gives_them(tmp_path):
    import pyarrow
    import pyarrow.parquet

    names = ["square", "full  circle", "dot"]
    features = {"label": {"names": names, "_type": "ClassLabel"}, "tags": {"feature": {"names": names, "_type": "ClassLabel"}}}
    rows = {"title": ["a", "b", "c", "d"], "label": [1, 0, -1, 9], "tags": [[0, 1], [], [2], [0]]}
    table = pyarrow.table(rows).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    source = make_source([tmp_path / "t.parquet"], Columns(text=("title",), label="label"))
    assert source.labels == ["square", "full circle", "dot"]
    assert "0 is 'square', of 3" in source.notes[0]
    first, second, third, fourth = source.examples()
    assert [first.labels, second.labels, third.labels] == [["full circle"], ["square"], []]
    assert "label '9' in column 'label' is none of the 3" in fourth.reason
    source = make_source([tmp_path / "t.parquet"], Columns(text=("title",), label="tags"), multi_label=True)
    assert [example.labels for example in source.examples()] == [["square", "full circle"], [], ["dot"], ["square"]]


def test_frames_are_known_by_their_values(tmp_path):
    """A DataFrame has no file whose checksum would tell whether a dataset was packed of it."""
    rows = {"title": ["a", None], "tags": [["x", "y"], []], "price": [1.0, float("nan")], "unused": [1, 2]}
    columns = Columns(text=("title",), label="tags", weight="price")

    def digest(**changes):
        (one,) = make_source([pd.DataFrame(rows | changes)], columns, multi_label=True).options["frames"]
        return one

    assert digest() == digest() == digest(unused=[3, 4])
    others = [digest(title=["a", ""]), digest(tags=[["x"], ["y"]]), digest(price=[1.0, 2.0]), digest(title=[None, "a"])]
    assert len({digest(), *others}) == 5
    assert "frames" not in make_source([_write(tmp_path, "t.csv", CSV)], COLUMNS).options
