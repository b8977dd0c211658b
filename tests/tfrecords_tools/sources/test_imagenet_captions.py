import json

import pytest

from tfrecords_tools.cli.main import main
from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.sources.example import Rejection, SourceExample
from tfrecords_tools.sources.files import SourceError
from tfrecords_tools.sources.imagenet_captions import Options, make_source

SYNSETS = "n02012849 crane\nn01440764 tench, Tinca tinca\nn03126707 crane\n"
ENTRIES = [
    {
        "filename": "n01440764_1.JPEG",
        "title": "My tench ",
        "tags": ["fish", "new york"],
        "description": "",
        "wnid": "n01440764",
    },
    {"filename": "n02012849_7.JPEG", "wnid": "n02012849", "title": "\u00c9tang", "tags": [], "description": "<b>A</b> bird"},
    {"filename": "n09999999_1.JPEG", "title": "Class that is not there", "wnid": "n09999999"},
]
FILES = ["n01440764/n01440764_1.JPEG", "n01440764/n01440764_10.JPEG", "n02012849/n02012849_7.JPEG"]


@pytest.fixture
def imagenet(write, tmp_path, small_jpeg):
    """A function: entries, paths of images -> options; every option may be given."""

    def make(entries=ENTRIES, files=FILES, **options):
        for name in files:
            write(f"train/{name}", small_jpeg)
        options = {"captions": write("imagenet_captions.json", entries), "images": {"": tmp_path / "train"}} | options
        return Options(**options)

    return make


def _read(options):
    rows = list(make_source(options).examples())
    examples = {row.id: row for row in rows if isinstance(row, SourceExample)}
    return examples, [(row.id, row.reason, row.action) for row in rows if isinstance(row, Rejection)]


def _texts(options):
    return {key: {field: text for field, (text,) in e.texts.items()} for key, e in _read(options)[0].items()}


def test_images_have_the_texts_of_their_entries(imagenet, tmp_path):
    options = imagenet()
    examples, rejections = _read(options)
    assert rejections == []
    assert _texts(options) == {
        "n01440764/n01440764_1.JPEG": {"title": "My tench", "description": "", "tags": "fish, new york"},
        "n01440764/n01440764_10.JPEG": {},
        "n02012849/n02012849_7.JPEG": {"title": "Étang", "description": "<b>A</b> bird", "tags": ""},
    }
    assert {key: example.labels for key, example in examples.items()} == {path: [path.split("/")[0]] for path in FILES}
    assert examples[FILES[0]].image == tmp_path / "train" / FILES[0]


def test_flat_folders_are_read_by_the_names_of_images(imagenet):
    files = ["n01440764_1.JPEG", "n01440764_tench.JPEG", "n02012849_7.JPEG", "photo.jpg"]
    options = imagenet(files=files)
    examples, rejections = _read(options)
    assert list(examples) == ["n01440764/n01440764_1.JPEG", "n01440764/n01440764_tench.JPEG", "n02012849/n02012849_7.JPEG"]
    assert examples["n01440764/n01440764_1.JPEG"].texts["title"] == ["My tench"]
    assert rejections == [("photo.jpg", "neither its name nor that of its folder begins with a wnid", "left out")]


def test_captioned_images_alone_are_read_where_asked(imagenet):
    assert list(_read(imagenet(captioned_only=True))[0]) == [FILES[0], FILES[2]]


def test_fields_are_chosen(imagenet):
    options = imagenet(fields=("tags",))
    assert make_source(options).text_fields == {"tags": False}
    assert _texts(options)[FILES[0]] == {"tags": "fish, new york"}


def test_entry_whose_image_is_missing_is_an_example_that_packing_reports(imagenet, tmp_path):
    options = imagenet(files=FILES[1:])
    examples, rejections = _read(options)
    assert rejections == []
    assert examples[FILES[0]].image == tmp_path / "train" / FILES[0]
    assert not examples[FILES[0]].image.exists()


def test_captions_belong_to_the_first_folder(imagenet, tmp_path, write, small_jpeg):
    write("val/n01440764/ILSVRC2012_val_00000001.JPEG", small_jpeg)
    examples, rejections = _read(imagenet(images={"train": tmp_path / "train", "val": tmp_path / "val"}))
    assert rejections == []
    assert {key: example.split for key, example in examples.items()} == dict.fromkeys(FILES, "train") | {
        "n01440764/ILSVRC2012_val_00000001.JPEG": "val"
    }


def test_synset_file_orders_labels_and_may_name_them(imagenet, write):
    synsets = write("synset_words.txt", SYNSETS)
    assert make_source(imagenet()).labels is None
    assert make_source(imagenet(synsets=synsets)).labels == ["n02012849", "n01440764", "n03126707"]
    options = imagenet(synsets=synsets, label_names=True)
    assert make_source(options).labels == ["crane (n02012849)", "tench", "crane (n03126707)"]
    assert _read(options)[0][FILES[2]].labels == ["crane (n02012849)"]


def test_images_of_classes_outside_the_synset_file_are_rejected(imagenet, write):
    options = imagenet(synsets=write("s.txt", "n01440764 tench\n"))
    assert _read(options)[1] == [("n02012849/n02012849_7.JPEG", "n02012849 is not in s.txt", "left out")]


@pytest.mark.parametrize("key", ["n01440764", "tench"])
def test_texts_of_classes_are_derived_from_the_label(imagenet, write, key):
    texts, synsets = write("texts.csv", f"wnid,description\n{key},A fish of lakes\n"), write("s.txt", SYNSETS)
    options = imagenet(class_texts=texts, synsets=synsets)
    assert make_source(options).text_fields["class_description"] is True
    examples, _ = _read(options)
    assert examples[FILES[1]].texts == {"class_description": ["A fish of lakes"]}
    assert "class_description" not in examples[FILES[2]].texts


def test_odd_rows_of_class_texts_are_told(imagenet, write):
    rejections = _read(imagenet(class_texts=write("texts.csv", "n01440764,A fish\nn02012849\n")))[1]
    assert rejections == [("", "malformed row: expected 2 cells with a wnid; found 1", "row not used")]


def test_odd_entries_are_told_and_the_others_go_on(imagenet):
    entries = [{"title": "x"}, 5, ENTRIES[0], ENTRIES[0] | {"title": "again", "tags": None, "description": 7}, *ENTRIES[1:]]
    options = imagenet(entries)
    rejections = _read(options)[1]
    assert [reason for _, reason, _ in rejections] == [
        "an entry needs a filename and a wnid",
        "an entry needs a filename and a wnid",
        "has several entries; the first is used",
    ]
    assert _texts(options)[FILES[0]]["title"] == "My tench"


def test_images_alone_are_a_source_without_texts(imagenet):
    options = imagenet(captions=None)
    assert make_source(options).text_fields == {}
    assert list(_read(options)[0]) == FILES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": ("caption",)}, "fields must be of title, description, tags. Received: 'caption'"),
        ({"label_names": True}, "names of the classes come from a synset file"),
        ({"captions": None, "captioned_only": True}, "which images have captions"),
        ({"images": {}}, "name the folder of the images"),
    ],
)
def test_options_that_cannot_be_are_errors(imagenet, options, message):
    with pytest.raises(SourceError, match=message):
        make_source(imagenet(**options))


def test_what_is_not_there_is_an_error(imagenet, tmp_path):
    with pytest.raises(SourceError, match=r"none\.json does not exist"):
        make_source(imagenet(captions=tmp_path / "none.json"))
    with pytest.raises(SourceError, match="nowhere is no folder"):
        make_source(imagenet(images={"": tmp_path / "nowhere"}))


def test_command_line_packs_it(imagenet, write, tmp_path, read_split):
    options = imagenet()
    arguments = [f"--images=train={options.images['']}", f"--captions={options.captions}", "--fields=title,tags"]
    arguments += [f"--synsets={write('s.txt', SYNSETS)}", "--label_names", f"--output={tmp_path / 'out'}"]
    assert main(["pack", "imagenet_captions", *arguments]) == 0
    info = DatasetInfo.load(tmp_path / "out")
    assert (info.num_examples("train"), len(info.labels), info.text_fields) == (3, 3, {"title": False, "tags": False})
    assert str(tmp_path) not in json.dumps(info.provenance)
    records = {record.id: record for record in read_split(tmp_path / "out", "train")}
    assert records[FILES[0]].texts == {"title": ("My tench",), "tags": ("fish, new york",)}
    assert records[FILES[2]].texts == {"title": ("Étang",), "tags": ()}
