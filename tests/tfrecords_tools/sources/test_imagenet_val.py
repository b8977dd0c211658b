import numpy as np
import pytest
from scipy.io import savemat

from tfrecords_tools.cli.main import main
from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.sources.example import Rejection, SourceExample
from tfrecords_tools.sources.files import SourceError
from tfrecords_tools.sources.imagenet_captions import Options, make_source
from tfrecords_tools.sources.imagenet_val import read_val_labels

# As in the devkit: IDs in an order of their own, and synsets above the classes, which have children.
SYNSETS = [(1, "n02119789"), (2, "n01440764"), (3, "n01751748"), (1001, "n00001740")]
GROUND_TRUTH = "3\n2\n3\n1\n"
SOLUTION = (
    "ImageId,PredictionString\n"
    "ILSVRC2012_val_00000003,n01751748 111 108 441 193 \n"
    "ILSVRC2012_val_00000001,n01751748 85 1 499 272 n01751748 1 2 3 4 \n"
    "ILSVRC2012_val_00000002,n01440764 131 0 499 254 \n"
    "ILSVRC2012_val_00000004,n02119789 131 0 499 254 \n"
)
CLASSES = {1: "n01751748", 2: "n01440764", 3: "n01751748", 4: "n02119789"}
LABELS = {f"ILSVRC2012_val_0000000{number}": wnid for number, wnid in CLASSES.items()}


def _save_meta(path, synsets=SYNSETS, leave_out=()):
    """meta.mat as the devkit has it: a struct array [n, 1] with these fields, in this order."""
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images"]
    array = np.empty((len(synsets), 1), [(name, object) for name in fields if name not in leave_out])
    for index, (key, wnid) in enumerate(synsets):
        children = np.array([1.0, 2.0, 3.0]) if key > 1000 else np.array([])
        values = {
            "ILSVRC2012_ID": float(key),
            "WNID": wnid,
            "words": f"name {key}, other name",
            "gloss": "a thing",
            "num_children": float(len(children)),
            "children": children,
            "wordnet_height": 0.0,
            "num_train_images": 1300.0,
        }
        for name in array.dtype.names:
            array[index, 0][name] = values[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"synsets": array}, do_compression=True)


@pytest.fixture
def devkit(tmp_path, write):
    """The ground truth, with meta.mat beside it."""
    _save_meta(tmp_path / "devkit" / "data" / "meta.mat")
    return write("devkit/data/ILSVRC2012_validation_ground_truth.txt", GROUND_TRUTH)


@pytest.fixture
def solution(write):
    return write("LOC_val_solution.csv", SOLUTION)


@pytest.fixture
def flat(tmp_path, write, small_jpeg):
    """Four validation images, flat as released."""
    for name in LABELS:
        write(f"val/{name}.JPEG", small_jpeg)
    return tmp_path / "val"


def _read(options):
    rows = list(make_source(options).examples())
    examples = {row.id: row for row in rows if isinstance(row, SourceExample)}
    return examples, [(row.id, row.reason, row.action) for row in rows if isinstance(row, Rejection)]


@pytest.mark.parametrize("kind", ["devkit", "solution"])
def test_both_ground_truths_tell_the_classes(kind, request):
    assert read_val_labels(request.getfixturevalue(kind)) == (LABELS, [])


@pytest.mark.parametrize("kind", ["devkit", "solution"])
def test_flat_folder_is_read_class_by_class(kind, request, flat):
    examples, rejections = _read(Options({"val": flat}, request.getfixturevalue(kind)))
    assert rejections == []
    assert [(key, example.labels) for key, example in examples.items()] == [
        ("n01440764/ILSVRC2012_val_00000002.JPEG", ["n01440764"]),
        ("n01751748/ILSVRC2012_val_00000001.JPEG", ["n01751748"]),
        ("n01751748/ILSVRC2012_val_00000003.JPEG", ["n01751748"]),
        ("n02119789/ILSVRC2012_val_00000004.JPEG", ["n02119789"]),
    ]
    first = examples["n01440764/ILSVRC2012_val_00000002.JPEG"]
    assert (first.image, first.split) == (flat / "ILSVRC2012_val_00000002.JPEG", "val")


def test_meta_is_also_found_in_the_data_folder_above(tmp_path, write, devkit):
    moved = write("devkit/lists/truth.txt", GROUND_TRUTH)
    assert read_val_labels(moved)[0] == LABELS


def test_provenance_names_ground_truth_and_meta(devkit, flat):
    names = [path.name for path in make_source(Options({"": flat}, devkit)).files]
    assert names == ["ILSVRC2012_validation_ground_truth.txt", "meta.mat"]


def test_folders_by_wnid_need_no_ground_truth_and_agree_with_it(write, small_jpeg, tmp_path, flat, devkit):
    write("sorted/n01751748/ILSVRC2012_val_00000001.JPEG", small_jpeg)
    examples, rejections = _read(Options({"": tmp_path / "sorted"}))
    assert rejections == []
    assert list(examples) == ["n01751748/ILSVRC2012_val_00000001.JPEG"]
    assert set(examples) < set(_read(Options({"": flat}, devkit))[0])


def test_flat_folder_without_ground_truth_is_an_error_that_says_what_to_give(flat):
    with pytest.raises(
        SourceError, match=r"(?s)val stand neither in .*ILSVRC2012_val_00000001\.JPEG.*LOC_val_solution\.csv as --val"
    ):
        make_source(Options({"val": flat}))


def test_image_that_the_ground_truth_does_not_name_is_left_out(flat, write, small_jpeg, solution):
    write("val/ILSVRC2012_val_00000005.JPEG", small_jpeg)
    write("val/photo.jpg", small_jpeg)
    examples, rejections = _read(Options({"": flat}, solution))
    assert len(examples) == 4
    reason = "neither its name nor that of its folder begins with a wnid"
    assert rejections == [
        ("ILSVRC2012_val_00000005.JPEG", f"{reason}, and it is not in LOC_val_solution.csv", "left out"),
        ("photo.jpg", reason, "left out"),
    ]


def test_stray_validation_image_among_folders_is_left_out(write, small_jpeg, tmp_path):
    write("train/n01440764/n01440764_1.JPEG", small_jpeg)
    write("train/z/ILSVRC2012_val_00000001.JPEG", small_jpeg)
    examples, ((key, reason, _),) = _read(Options({"": tmp_path / "train"}))
    assert list(examples) == ["n01440764/n01440764_1.JPEG"]
    assert key == "ILSVRC2012_val_00000001.JPEG"
    assert "--val_labels, which would tell, is not given" in reason


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("3\n2\n\n1\n", r"truth\.txt:3 is blank"),
        ("3\n2\nx\n", r"truth\.txt:3: 'x' is no ILSVRC2012_ID of a class in .*meta\.mat \(3 classes\)"),
        ("3\n9\n", r"truth\.txt:2: '9' is no ILSVRC2012_ID"),
        ("1001\n", r"truth\.txt:1: '1001' is no ILSVRC2012_ID"),
        ("3\n0\n", r"truth\.txt:2: '0' is no"),
    ],
)
def test_line_that_is_no_class_is_an_error_that_names_it(tmp_path, write, content, message):
    _save_meta(tmp_path / "meta.mat")
    with pytest.raises(SourceError, match=message):
        read_val_labels(write("truth.txt", content))


def test_missing_meta_is_an_error_that_says_where_it_was_looked_for(write, flat):
    truth = write("kit/truth.txt", GROUND_TRUTH)
    with pytest.raises(SourceError, match=r"(?s)neither .*kit/meta\.mat nor .*data/meta\.mat.*ILSVRC2012_devkit_t12/data"):
        make_source(Options({"": flat}, truth))


def test_damaged_meta_is_an_error(tmp_path, write, devkit):
    meta = devkit.with_name("meta.mat")
    whole = meta.read_bytes()
    for content in (b"", b"no MATLAB file at all" * 20, whole[: len(whole) // 2]):
        meta.write_bytes(content)
        with pytest.raises(SourceError, match=r"meta\.mat is no meta\.mat of the devkit"):
            read_val_labels(devkit)
    _save_meta(meta, leave_out=["WNID"])
    with pytest.raises(SourceError, match="WNID"):
        read_val_labels(devkit)
    savemat(meta, {"other": 1})
    with pytest.raises(SourceError, match="synsets"):
        read_val_labels(devkit)


@pytest.mark.parametrize("content", ["ILSVRC2012_val_00000001.JPEG 65\n", "name,class\n", ""])
def test_other_file_is_an_error_that_shows_its_first_line(write, content):
    with pytest.raises(SourceError, match=f"(?s)other.txt is neither .* nor .*'{content.strip()}'"):
        read_val_labels(write("other.txt", content))


def test_odd_rows_of_the_solution_are_told_and_the_others_go_on(write, flat):
    rows = [
        "ILSVRC2012_val_00000001,n01751748 1 2 3 4 n01440764 1 2 3 4",
        "ILSVRC2012_val_00000001,",
        "ILSVRC2012_val_00000001,snake 1 2 3 4",
        "ILSVRC2012_val_00000001",
        "ILSVRC2012_val_00000002,n01440764 1 2 3 4",
        "ILSVRC2012_val_00000002,n01751748 1 2 3 4",
    ]
    path = write("LOC_val_solution.csv", "\ufeffImageId,PredictionString\r\n" + "\r\n".join(rows) + "\r\n")
    labels, problems = read_val_labels(path)
    assert labels == {"ILSVRC2012_val_00000002": "n01440764"}
    assert [where for where, _ in problems] == [f"LOC_val_solution.csv:{line}" for line in (2, 3, 4, 5, 7)]
    assert "one class, each a wnid and four numbers. Received: 'snake 1 2 3 4'" in problems[2][1]
    assert "'ILSVRC2012_val_00000002' stands there twice" in problems[4][1]
    examples, rejections = _read(Options({"": flat}, path))
    assert len(examples) == 1
    assert sum(action == "row not used" for *_, action in rejections) == 5


def test_command_line_packs_training_and_validation_images(tmp_path, write, small_jpeg, flat, devkit, read_split):
    write("train/n01440764/n01440764_1.JPEG", small_jpeg)
    arguments = [f"--images=train={tmp_path / 'train'}", f"--images=val={flat}", f"--val_labels={devkit}"]
    assert main(["pack", "imagenet_captions", *arguments, f"--output={tmp_path / 'out'}"]) == 0
    info = DatasetInfo.load(tmp_path / "out")
    assert {split: info.num_examples(split) for split in info.splits} == {"train": 1, "val": 4}
    found = {record.id: info.labels.names[record.label_ids[0]] for record in read_split(tmp_path / "out", "val")}
    assert found == {f"{wnid}/{name}.JPEG": wnid for name, wnid in LABELS.items()}
