import gzip
import os

import pytest

from tfrecords_tools.sources.files import (
    SourceError,
    iter_csv,
    iter_images,
    iter_lines,
    joined_text,
    open_text,
    read_pairs,
    read_synsets,
    unique_names,
)


def test_lines_have_their_numbers_and_no_white_space(write):
    path = write("l.txt", "\ufeffa b \r\n\r\n\n c\n")
    assert list(iter_lines(path)) == [(1, "a b"), (4, "c")]


def test_gzipped_files_are_read_alike(write):
    path = write("t.csv.gz", gzip.compress(b"id,x\na,1\n"))
    assert list(iter_csv(path, ["id"])) == [("t.csv.gz:2", {"id": "a", "x": "1"})]


@pytest.mark.parametrize("content", [gzip.compress(b"id\n" + os.urandom(9999))[:-20], b"no gzip at all"])
def test_damaged_gzip_file_is_named(write, content):
    path = write("t.txt.gz", content)
    with pytest.raises(SourceError, match=r"t\.txt\.gz is no(t UTF-8| complete gzip file)"):
        list(iter_lines(path))


def test_other_encoding_is_named(write):
    with pytest.raises(SourceError, match=r"l\.txt is not UTF-8"):
        list(iter_lines(write("l.txt", "Café\n".encode("cp1252"))))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"none\.txt does not exist"):
        open_text(tmp_path / "none.txt")


def test_csv_rows_have_quotes_commas_and_their_place(write):
    path = write("t.csv", '\ufeffid, x\r\n/m/a,"Fiat 500 ""topolino"", red"\r\nb\r\n\r\nc,Café\r\n')
    assert list(iter_csv(path, ["x"])) == [
        ("t.csv:2", {"id": "/m/a", "x": 'Fiat 500 "topolino", red'}),
        ("t.csv:3", "malformed row: 1 cell(s) under 2 columns"),
        ("t.csv:5", {"id": "c", "x": "Café"}),
    ]


def test_csv_without_a_column_names_those_it_has(write):
    with pytest.raises(SourceError, match=r"t\.csv has no column 'y'; its columns are \['id', 'x'\]"):
        list(iter_csv(write("t.csv", "id,x\n"), ["id", "y"]))


@pytest.mark.parametrize("header", ["", "LabelName,DisplayName\n", "labelname,other\n"])
def test_pairs_are_read_with_and_without_header(write, header):
    pairs, problems = read_pairs(write("c.csv", header + '/m/a,Tortoise\n/m/b," a, ""b"" "\n'), ("LabelName", "DisplayName"))
    assert pairs == {"/m/a": "Tortoise", "/m/b": 'a, "b"'}
    assert problems == []


def test_pairs_are_the_named_columns_of_a_wider_table(write):
    pairs, problems = read_pairs(write("c.csv", "Text,other,key\none,x,a\ntwo,y,b\nthree,c\n"), ("key", "text"))
    assert pairs == {"a": "one", "b": "two"}
    assert problems == [("c.csv:4", "malformed row: expected 3 cells with a key; found 2")]


@pytest.mark.parametrize(
    ("value", "text"),
    [(["fish", " lake ", "", None], "fish, lake"), (" a ", "a"), (7, "7"), (None, ""), ({"a": 1}, ""), ([], "")],
)
def test_json_values_become_one_text(value, text):
    assert joined_text(value) == text


def test_rows_that_are_no_pairs_are_told_and_the_others_go_on(write):
    pairs, problems = read_pairs(write("c.csv", "a,1\nb\n,2\na,3\nc,4,5\nd,\n"), ("key", "text"))
    assert pairs == {"a": "1", "d": ""}
    assert problems == [
        ("c.csv:2", "malformed row: expected 2 cells with a key; found 1"),
        ("c.csv:3", "malformed row: expected 2 cells with a key; found 2"),
        ("c.csv:4", "key 'a' stands there twice; the first is used"),
        ("c.csv:5", "malformed row: expected 2 cells with a key; found 3"),
    ]


def test_synsets_have_their_first_name_in_order(write):
    synsets = read_synsets(write("s.txt", "n02 tench, Tinca tinca\r\nn01\nn03  great white shark , man-eater\n"))
    assert list(synsets.items()) == [("n02", "tench"), ("n01", ""), ("n03", "great white shark")]
    with pytest.raises(SourceError, match=r"s\.txt:2 repeats 'n1'"):
        read_synsets(write("s.txt", "n1 a\nn1 b\n"))


def test_names_that_several_keys_share_name_the_key():
    assert unique_names({"n1": "crane", "n2": "tench", "n3": "crane", "n4": ""}) == {
        "n1": "crane (n1)",
        "n2": "tench",
        "n3": "crane (n3)",
        "n4": "n4",
    }


def test_images_are_walked_in_order_through_links_but_not_in_circles(tmp_path):
    for name in ("b/2.jpg", "b/10.JPEG", "a.png", "b/notes.txt", "b/.hidden.jpg", ".git/x.jpg", "c/d/e.webp"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "f.gif").touch()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "c" / "circle").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "c" / "itself").symlink_to("itself")
    found = [path.relative_to(tmp_path / "root").as_posix() for path in iter_images(tmp_path / "root")]
    assert found == ["a.png", "b/10.JPEG", "b/2.jpg", "c/d/e.webp", "link/f.gif"]
