import gzip
import json

import pytest

from tfrecords_tools.cli.main import main
from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.sources.example import Rejection, SourceExample
from tfrecords_tools.sources.files import SourceError
from tfrecords_tools.sources.open_images import Options, make_source

CLASSES = '/m/0cat,Cat\n/m/0dog,Dog\n/m/car,"Fiat 500 ""topolino"", car"\n/g/11x,Orange\n/m/0or,Orange\n'
DEFINITIONS = """LabelName,Definition
/m/0cat,"The cat, a small carnivore"
/m/0dog,The dog is a carnivore
/m/car,"A ""small"" car"
/g/11x,
"""
ROWS = [
    "00aa,verification,/m/0dog,1",
    "0001,machine,/m/0cat,0.7",
    "00aa,verification,/m/0cat,0",
    "0002,machine,/m/car,0.4",
    "0001,machine,/m/0dog,0.5",
    "00aa,crowdsource-verification,/m/0dog,1",
    "0003,machine,/m/unknown,1",
    "0001,machine,/m/unknown,1",
]
HEADER = "ImageID,Source,LabelName,Confidence"


@pytest.fixture
def files(write, tmp_path):
    """A function: annotation lines -> options; every option may be given."""

    def make(rows=ROWS, header=HEADER, **options):
        path = write("train.csv", "\r\n".join([header, *rows]) + "\r\n")
        options = {"classes": write("classes.csv", CLASSES), "annotations": [("train", path)]} | options
        return Options(**options)

    return make


def _read(options):
    rows = list(make_source(options).examples())
    examples = {row.id: row for row in rows if isinstance(row, SourceExample)}
    return examples, [(row.id, row.where, row.reason) for row in rows if isinstance(row, Rejection)]


def _labels(options):
    return {key: example.labels for key, example in _read(options)[0].items()}


def test_rows_of_an_image_are_gathered_and_what_is_not_there_is_no_label(files, tmp_path):
    examples, rejections = _read(files(image_root=tmp_path / "images"))
    assert examples == {
        "0001": SourceExample(
            "0001", "train.csv: 0001", tmp_path / "images/0001.jpg", {"class_description": []}, ["Cat", "Dog"], "train"
        ),
        "00aa": SourceExample(
            "00aa", "train.csv: 00aa", tmp_path / "images/00aa.jpg", {"class_description": []}, ["Dog"], "train"
        ),
    }
    assert rejections == [("0002", "train.csv: 0002", "no label of confidence 0.5 or more")]


@pytest.mark.parametrize(("confidence", "labels"), [(0.7, ["Cat"]), (0.4, ["Cat", "Dog"])])
def test_confidence_is_a_threshold_that_counts_itself(files, confidence, labels):
    assert _labels(files(min_confidence=confidence))["0001"] == labels


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        (["1,machine,/m/0cat,0.9", "1,verification,/m/0cat,0", "1,machine,/m/0dog,1"], ["Dog"]),
        (["1,verification,/m/0cat,1", "1,machine,/m/0cat,0.1"], ["Cat"]),
        (["1,machine,/m/0cat,0.1", "1,machine,/m/0cat,0.6"], ["Cat"]),
    ],
)
def test_a_person_overrules_a_machine(files, rows, labels):
    assert _labels(files(rows)) == {"1": labels}


def test_source_column_may_be_absent(files):
    assert _labels(files(["7,/m/0cat,1", "7,/m/0dog,0"], "ImageID,LabelName,Confidence")) == {"7": ["Cat"]}


def test_white_space_around_cells_is_no_part_of_them(files):
    assert _labels(files([" 7 , machine , /m/0cat , 0.9 ", "7,verification,/m/0cat,0", "8,verification,/m/0dog, 1"])) == {
        "8": ["Dog"]
    }


def test_image_ids_stay_text(files):
    assert set(_labels(files(["0012,verification,/m/0cat,1", "1e5,verification,/m/0cat,1"]))) == {"0012", "1e5"}


def test_classes_are_numbered_as_listed_and_names_are_distinct(files):
    source = make_source(files())
    assert source.labels == ["Cat", "Dog", 'Fiat 500 "topolino", car', "Orange (/g/11x)", "Orange (/m/0or)"]
    assert source.multi_label


@pytest.mark.parametrize("header", ["\ufeffLabelName,DisplayName\n", "\ufeff"])
def test_class_list_may_have_a_header_and_a_byte_order_mark(files, write, header):
    assert make_source(files(classes=write("c.csv", header + CLASSES))).labels[0] == "Cat"


def test_without_class_list_labels_are_their_ids(files):
    options = files(classes=None)
    assert make_source(options).labels is None
    assert _labels(options) == {"0001": ["/m/0cat", "/m/0dog", "/m/unknown"], "0003": ["/m/unknown"], "00aa": ["/m/0dog"]}


def test_several_files_a_split_are_merged_also_gzipped(files, write):
    more = write("machine.csv.gz", gzip.compress(f"{HEADER}\n00aa,machine,/m/car,0.9\n".encode()))
    options = files()
    examples, _ = _read(files(annotations=[*options.annotations, ("train", more)]))
    assert examples["00aa"].labels == ["Dog", 'Fiat 500 "topolino", car']


def test_image_in_two_splits_is_rejected(files, write):
    more = write("val.csv", f"{HEADER}\n00aa,machine,/m/car,0.9\nff,machine,/m/car,0.9\n")
    examples, rejections = _read(files(annotations=[*files().annotations, ("val", more)]))
    assert {key: example.split for key, example in examples.items()} == {"0001": "train", "ff": "val"}
    assert rejections[-1] == ("00aa", "train.csv: 00aa", "annotated in several splits: train, val")


def test_split_may_be_left_to_be_drawn(files):
    options = files()
    examples, _ = _read(files(annotations=[("", path) for _, path in options.annotations]))
    assert {example.split for example in examples.values()} == {None}


@pytest.mark.parametrize(("split", "folder"), [("train", "train"), ("validation", "validation"), ("val", "validation")])
def test_images_may_lie_in_folders_by_split(files, tmp_path, split, folder):
    (tmp_path / "images" / folder).mkdir(parents=True)
    options = files(image_root=tmp_path / "images", annotations=[(split, files().annotations[0][1])])
    assert _read(options)[0]["0001"].image == tmp_path / "images" / folder / "0001.jpg"


def test_present_images_alone_are_read_where_asked(files, tmp_path, write):
    write("images/00aa.jpg", b"x")
    examples, rejections = _read(files(image_root=tmp_path / "images", present_images=True))
    assert (list(examples), rejections) == (["00aa"], [])


def test_definitions_are_texts_that_come_from_the_label(files, write):
    options = files(definitions=write("d.csv", DEFINITIONS))
    assert make_source(options).text_fields == {"class_description": True}
    examples, _ = _read(options)
    assert examples["0001"].texts == {"class_description": ["The cat, a small carnivore", "The dog is a carnivore"]}


def test_collected_texts_serve_as_definitions_by_name(files, write):
    lines = [{"label": "Dog", "text": "Dogs bark."}, {"label": "/m/0cat", "text": "Cats purr."}, {"text": "?"}]
    examples, rejections = _read(files(definitions=write("d.jsonl", "\n".join(map(json.dumps, lines)))))
    assert examples["0001"].texts == {"class_description": ["Cats purr.", "Dogs bark."]}
    assert rejections[0] == ("", "d.jsonl:3", "expected label and text: KeyError: 'label'")


def test_tags_of_an_image_are_those_of_all_its_classes(files, write):
    pytest.importorskip("nltk")
    options = files(definitions=write("d.csv", DEFINITIONS), tags=True, max_document_frequency=0.25)
    source = make_source(options)
    assert source.labels == ["car", "cat", "dog", "is"]
    assert _labels(options) == {"0001": ["cat", "dog", "is"], "00aa": ["dog", "is"]}


def test_tags_may_have_letters_of_any_alphabet(files, write):
    pytest.importorskip("nltk")
    options = {"definitions": write("d.csv", "/m/0cat,Kätzchen klein\n/m/0dog,\n"), "tags": True, "max_document_frequency": 0.5}
    assert make_source(files(**options)).labels == ["klein"]
    assert make_source(files(any_alphabet=True, **options)).labels == ["klein", "kätzchen"]


def test_image_whose_classes_have_no_tags_is_rejected(files, write):
    pytest.importorskip("nltk")
    options = files(["1,,/g/11x,1"], definitions=write("d.csv", DEFINITIONS), tags=True, max_document_frequency=0.25)
    assert _read(options) == ({}, [("1", "train.csv: 1", "its classes have no tags")])


@pytest.mark.parametrize(
    "options", [{"few_shot": ("Cat",)}, {"few_shot": ("/m/0cat",)}, {"few_shot_below": 2}], ids=["name", "id", "count"]
)
def test_images_of_few_shot_classes_are_a_split_of_their_own(files, options):
    examples, _ = _read(files(**options))
    assert {key: example.split for key, example in examples.items()} == {"0001": "few_shot", "00aa": "train"}
    assert examples["0001"].labels == ["Cat", "Dog"]


def test_images_are_counted_once_a_class(files):
    rows = ["1,verification,/m/0cat,1", "1,machine,/m/0cat,1", "1,verification,/m/0dog,1", "2,verification,/m/0dog,1"]
    assert {key: e.split for key, e in _read(files(rows, few_shot_below=2))[0].items()} == {"1": "few_shot", "2": "train"}


def test_unknown_few_shot_class_is_an_error(files):
    with pytest.raises(SourceError, match=r"few-shot class 'Wolf' is not in .*classes\.csv"):
        make_source(files(few_shot=("Wolf",)))


@pytest.mark.parametrize(
    "row", ["1,x,/m/0cat,high", "1,x,/m/0cat,7", ",x,/m/0cat,1", "1,x,,1", "1,x,/m/0cat,nan", "1,/m/0cat,1"]
)
def test_row_that_cannot_be_read_is_rejected_and_the_others_go_on(files, row):
    examples, rejections = _read(files([row, *ROWS]))
    assert len(examples) == 2
    assert rejections[0][1] == "train.csv:2"


def test_malformed_rows_of_class_files_are_told(files, write):
    rejections = _read(files(classes=write("c.csv", CLASSES + "/m/1\n")))[1]
    assert rejections[0] == ("", "c.csv:6", "malformed row: expected 2 cells with a LabelName; found 1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"annotations": []}, "name files of image-level labels"),
        ({"min_confidence": 0}, "min_confidence must be above 0 and at most 1. Received: 0"),
        ({"tags": True}, "tags come from definitions"),
        ({"present_images": True}, "present_images needs the folder"),
    ],
)
def test_options_that_cannot_be_are_errors(files, options, message):
    with pytest.raises(SourceError, match=message):
        make_source(files(**options))


def test_missing_files_and_columns_are_named(files, tmp_path):
    with pytest.raises(SourceError, match=r"none\.csv does not exist"):
        make_source(files(annotations=[("train", tmp_path / "none.csv")]))
    with pytest.raises(SourceError, match=r"train\.csv has no column 'Confidence'"):
        _read(files(header="ImageID,Source,LabelName,Score"))


def test_command_line_packs_it(files, write, tmp_path, small_jpeg, read_split):
    files([*ROWS, *(f"1{i},verification,/m/car,1" for i in range(8))])
    for name in ("0001", "00aa", *(f"1{i}" for i in range(8))):
        write(f"images/{name}.jpg", small_jpeg)
    arguments = [f"--classes={tmp_path / 'classes.csv'}", f"--definitions={write('d.csv', DEFINITIONS)}", "--few_shot=Cat"]
    arguments += [f"--annotations=train={tmp_path / 'train.csv'}", f"--images={tmp_path / 'images'}"]
    assert main(["pack", "open_images", *arguments, f"--output={tmp_path / 'out'}"]) == 0
    info = DatasetInfo.load(tmp_path / "out")
    assert {split: info.num_examples(split) for split in info.splits} == {"train": 9, "few_shot": 1}
    assert len(info.labels) == 5
    assert str(tmp_path) not in json.dumps(info.provenance)
    record = read_split(tmp_path / "out", "few_shot")[0]
    assert (record.id, record.label_ids, len(record.texts["class_description"])) == ("0001", (0, 1), 2)
