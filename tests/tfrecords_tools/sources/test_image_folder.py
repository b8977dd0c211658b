import pytest

from tfrecords_tools.cli.main import main
from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.sources.example import Rejection, SourceExample
from tfrecords_tools.sources.files import SourceError
from tfrecords_tools.sources.image_folder import make_source


@pytest.fixture
def folder(write, tmp_path):
    """A function: paths -> a folder with empty files of these names."""

    def make(*names):
        for name in names:
            write(f"root/{name}", b"")
        return tmp_path / "root"

    return make


def _read(root, **options):
    rows = list(make_source(root, **options).examples())
    examples = [row for row in rows if isinstance(row, SourceExample)]
    return examples, [(row.id, row.reason, row.action) for row in rows if isinstance(row, Rejection)]


def test_folders_are_labels_and_files_of_other_kinds_no_images(folder):
    root = folder("cat/1.jpg", "cat/2.PNG", "dog/1.webp", "dog/notes.md", "dog/.3.jpg", ".cache/x.jpg", "Thumbs.db")
    examples, rejections = _read(root)
    assert rejections == []
    assert examples == [
        SourceExample("cat/1.jpg", "cat/1.jpg", root / "cat/1.jpg", {}, ["cat"]),
        SourceExample("cat/2.PNG", "cat/2.PNG", root / "cat/2.PNG", {}, ["cat"]),
        SourceExample("dog/1.webp", "dog/1.webp", root / "dog/1.webp", {}, ["dog"]),
    ]


@pytest.mark.parametrize(("name", "split"), [("train", "train"), ("Validation", "val"), ("dev", "val"), ("testing", "test")])
def test_folders_with_names_of_splits_are_splits(folder, name, split):
    examples, _ = _read(folder(f"{name}/cat/1.jpg", "test/dog/1.jpg"))
    assert {(example.id, example.split, *example.labels) for example in examples} == {
        (f"{name}/cat/1.jpg", split, "cat"),
        ("test/dog/1.jpg", "test", "dog"),
    }


@pytest.mark.parametrize("beside", ["cat/1.jpg", "1.jpg"])
def test_folders_beside_other_folders_or_images_are_labels(folder, beside):
    examples, _ = _read(folder("train/1.jpg", "test/1.jpg", beside))
    assert {(example.split, *example.labels) for example in examples} >= {(None, "train"), (None, "test")}


def test_splits_may_be_said_or_denied(folder):
    assert {e.split for e in _read(folder("a/cat/1.jpg", "b/cat/1.jpg"), splits=True)[0]} == {"a", "b"}
    examples, _ = _read(folder("a/cat/1.jpg"), splits=False)
    assert (examples[0].split, examples[0].labels) == (None, ["a/cat"])


@pytest.mark.parametrize(("label", "name"), [("path", "fruit/apple"), ("first", "fruit"), ("last", "apple")])
def test_label_is_one_of_the_folders_or_all(folder, label, name):
    assert _read(folder("train/fruit/apple/1.jpg"), label=label)[0][0].labels == [name]


def test_images_in_the_root_or_a_split_itself_have_no_label(folder):
    assert [example.labels for example in _read(folder("1.jpg"))[0]] == [[]]
    assert [(e.split, e.labels) for e in _read(folder("test/2.jpg"), splits=True)[0]] == [(None, []), ("test", [])]


def test_captions_are_the_lines_of_the_text_beside_an_image(folder, write):
    root = folder("cat/1.jpg", "cat/2.jpg", "cat/3.jpg")
    write("root/cat/1.txt", "\ufeffA cat .\r\n\r\n Another one. \r\n")
    write("root/cat/3.txt", "Café".encode("cp1252"))
    examples, rejections = _read(root, captions=True)
    assert [example.texts for example in examples] == [{"caption": ["A cat .", "Another one."]}, {}, {}]
    assert [(key, action) for key, _, action in rejections] == [("cat/3.jpg", "kept without its captions")]
    assert make_source(root, captions=True).text_fields == {"caption": False}
    assert _read(root)[0][0].texts == {}


def test_texts_of_classes_are_derived_from_the_label(folder, write):
    texts = write("classes.csv", "label,description\ncat,A small carnivore\nx\n")
    source = make_source(folder("cat/1.jpg", "dog/1.jpg"), class_texts=texts)
    assert source.text_fields == {"class_description": True}
    rejection, *examples = source.examples()
    assert rejection.where == "classes.csv:3"
    assert [example.texts for example in examples] == [{"class_description": ["A small carnivore"]}, {}]


def test_what_is_not_there_is_an_error(folder, tmp_path):
    with pytest.raises(SourceError, match="nowhere is no folder"):
        make_source(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"label must be one of path, first, last\. Received: 'second'"):
        make_source(folder("a/1.jpg"), label="second")
    with pytest.raises(SourceError, match=r"none\.csv does not exist"):
        make_source(folder("a/1.jpg"), class_texts=tmp_path / "none.csv")


def test_command_line_packs_it(write, tmp_path, small_jpeg):
    for split, count in (("train", 4), ("val", 2)):
        for i in range(count):
            write(f"pets/{split}/{'cat' if i % 2 else 'dog'}/{i}.jpg", small_jpeg)
    assert main(["pack", "image_folder", str(tmp_path / "pets"), f"--output={tmp_path / 'out'}"]) == 0
    info = DatasetInfo.load(tmp_path / "out")
    assert ({split: info.num_examples(split) for split in info.splits}, info.labels.names) == (
        {"train": 4, "val": 2},
        ["cat", "dog"],
    )
    assert main(["pack", "image_folder", str(tmp_path / "pets"), "--no-splits", f"--output={tmp_path / 'flat'}"]) == 0
    assert DatasetInfo.load(tmp_path / "flat").labels.names == ["train/cat", "train/dog", "val/cat", "val/dog"]
