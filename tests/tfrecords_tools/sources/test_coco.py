import pytest

from tfrecords_tools.cli.main import main
from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.sources.coco import make_source
from tfrecords_tools.sources.example import Rejection, SourceExample
from tfrecords_tools.sources.files import SourceError

IMAGES = [
    {"id": 9, "width": 4, "height": 4, "file_name": "000000000009.jpg", "license": 3, "date_captured": "2013-11-14 17:02:52"},
    {"id": 25, "file_name": "000000000025.jpg"},
]
CAPTIONS = {
    "info": {"year": 2017},
    "licenses": [{"id": 3, "name": "x", "url": "u"}],
    "images": IMAGES,
    "annotations": [
        {"image_id": 9, "id": 48, "caption": "A plate of food.\n"},
        {"image_id": 25, "id": 49, "caption": "  A giraffe \n eating  leaves "},
        *({"image_id": 9, "id": 50 + i, "caption": f"Caption {i}"} for i in range(5)),
        {"image_id": 9, "id": 60, "caption": "A plate of food.\n"},
    ],
}
INSTANCES = {
    "images": [*IMAGES, {"id": 30, "file_name": "000000000030.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 9, "category_id": 51, "bbox": [1, 2, 3, 4], "iscrowd": 0, "segmentation": [[1.5, 2, 3, 4]]},
        {"id": 2, "image_id": 9, "category_id": 90, "iscrowd": 1, "segmentation": {"counts": [1, 2], "size": [4, 4]}},
        {"id": 3, "image_id": 9, "category_id": 51},
        {"id": 4, "image_id": 25, "category_id": 90},
    ],
    "categories": [
        {"id": 51, "name": "bowl", "supercategory": "kitchen"},
        {"id": 90, "name": "toothbrush", "supercategory": "indoor"},
    ],
}


def _read(captions, instances, images):
    rows = list(make_source(captions, instances, images).examples())
    examples = {row.id: row for row in rows if isinstance(row, SourceExample)}
    return examples, [(row.id, row.reason, row.action) for row in rows if isinstance(row, Rejection)]


def test_captions_and_instances_are_joined_by_image(write, tmp_path):
    files = {"train": write("captions_train2017.json", CAPTIONS)}, {"train": write("instances_train2017.json", INSTANCES)}
    examples, rejections = _read(*files, {"train": tmp_path / "train2017"})
    assert rejections == []
    assert examples == {
        "000000000009.jpg": SourceExample(
            id="000000000009.jpg",
            where="captions_train2017.json + instances_train2017.json: image 9",
            image=tmp_path / "train2017/000000000009.jpg",
            texts={"caption": ["A plate of food.", *(f"Caption {i}" for i in range(5))]},
            labels=["bowl", "toothbrush"],
            split="train",
        ),
        "000000000025.jpg": SourceExample(
            id="000000000025.jpg",
            where="captions_train2017.json + instances_train2017.json: image 25",
            image=tmp_path / "train2017/000000000025.jpg",
            texts={"caption": ["A giraffe eating leaves"]},
            labels=["toothbrush"],
            split="train",
        ),
        "000000000030.jpg": SourceExample(  # neither captions nor objects
            id="000000000030.jpg",
            where="captions_train2017.json + instances_train2017.json: image 30",
            image=tmp_path / "train2017/000000000030.jpg",
            texts={"caption": []},
            split="train",
        ),
    }


def test_captions_alone_are_an_unlabelled_source(write, tmp_path):
    path = write("c.json", CAPTIONS)
    source = make_source({"": path}, {}, {"": tmp_path})
    assert (source.text_fields, source.multi_label, source.files) == ({"caption": False}, False, [path])
    assert {(example.split, *example.labels) for example in source.examples()} == {(None,)}


def test_instances_alone_are_a_multi_label_source_without_texts(write, tmp_path):
    source = make_source({}, {"val": write("i.json", INSTANCES)}, {"": tmp_path})
    assert (source.text_fields, source.multi_label) == ({}, True)
    assert [example.labels for example in source.examples()] == [["toothbrush"], [], ["bowl", "toothbrush"]]


def test_splits_may_share_a_folder_or_have_their_own(write, tmp_path):
    path = write("c.json", CAPTIONS | {"images": IMAGES[:1]})
    other = write("d.json", CAPTIONS | {"images": IMAGES[1:]})
    examples, _ = _read({"train": path, "val": other}, {}, {"": tmp_path / "all", "val": tmp_path / "val2017"})
    assert {example.image.parent.name: example.split for example in examples.values()} == {"all": "train", "val2017": "val"}


def test_what_refers_to_nothing_is_told_and_the_others_go_on(write, tmp_path):
    instances = INSTANCES | {
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 12},
            {"id": 2, "image_id": 77, "category_id": 51},
            {"id": 3, "category_id": 51},
            "x",
            {"id": 4, "image_id": 9, "category_id": 51},
        ],
        "images": [*IMAGES, {"id": 30}],
    }
    examples, rejections = _read({}, {"train": write("i.json", instances)}, {"": tmp_path})
    assert {key: example.labels for key, example in examples.items()} == {"000000000009.jpg": ["bowl"], "000000000025.jpg": []}
    assert rejections == [
        ("", "neither id with file_name: {'id': 30}", "left out"),
        ("", "neither image_id with caption nor image_id with category_id: {'id': 3, 'category_id': 51}", "left out"),
        ("", "neither image_id with caption nor image_id with category_id: 'x'", "left out"),
        ("77", "annotations of image 77, which is not among the images", "left out"),
        ("000000000009.jpg", "unknown category 12", "kept without that label"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"images": [', "c.json is no JSON"), ("[1]", "c.json is no COCO file"), ('{"info": {}}', "c.json is no COCO file")],
)
def test_other_files_are_errors(write, tmp_path, content, message):
    with pytest.raises(SourceError, match=message):
        _read({"train": write("c.json", content)}, {}, {"": tmp_path})


def test_what_is_not_given_is_an_error(write, tmp_path):
    path = write("c.json", CAPTIONS)
    with pytest.raises(SourceError, match="name captions files"):
        make_source({}, {}, {"": tmp_path})
    with pytest.raises(SourceError, match=r"images of 'train'; there are folders of \['val'\]"):
        make_source({"train": path}, {}, {"val": tmp_path})
    with pytest.raises(SourceError, match=r"none\.json does not exist"):
        make_source({"train": tmp_path / "none.json"}, {}, {"": tmp_path})


def test_command_line_packs_it(write, tmp_path, small_jpeg, read_split):
    (tmp_path / "val2017").mkdir()
    for image in INSTANCES["images"]:
        (tmp_path / "val2017" / image["file_name"]).write_bytes(small_jpeg)
    captions, instances = write("c.json", CAPTIONS), write("i.json", INSTANCES)
    files = [f"--captions=val={captions}", f"--instances=val={instances}", f"--images=val={tmp_path / 'val2017'}"]
    assert main(["pack", "coco", *files, f"--output={tmp_path / 'out'}"]) == 0
    info = DatasetInfo.load(tmp_path / "out")
    assert (info.labels.names, info.multi_label) == (["bowl", "toothbrush"], True)
    assert sorted(len(record.texts["caption"]) for record in read_split(tmp_path / "out", "val")) == [0, 1, 6]
