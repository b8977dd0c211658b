"""The mapping of features is tested on a stand-in for tensorflow_datasets; the package itself where it is installed."""

import io
import json
import sys
import types

import numpy as np
import pytest
from PIL import Image

from tfrecords_tools.cli.main import main
from tfrecords_tools.dataset.shards import ShardWriter
from tfrecords_tools.sources.example import Rejection
from tfrecords_tools.sources.files import SourceError
from tfrecords_tools.sources.tfds import Options, make_source


class _Sequence:
    def __init__(self, feature):
        self.feature = feature


class _ClassLabel:
    def __init__(self, names):
        self.names = names


class _Image:
    pass


class _Text:
    pass


@pytest.fixture
def stand_in(monkeypatch, small_jpeg, write, tmp_path):
    """A stand-in for tensorflow_datasets with one prepared dataset, whose folder it returns."""
    features = {
        "image": _Image(),
        "label": _ClassLabel(["tench", "crane"]),
        "objects": _Sequence({"label": _Sequence(_ClassLabel(["cat", "dog"]))}),
        "captions": _Sequence({"text": _Text()}),
        "name": _Text(),
        "pixels": _Text(),
    }

    def example(number, split):
        return {
            "tfds_id": f"mini-{split}.tfrecord-00000-of-00001__{number}".encode(),
            "image": small_jpeg,
            "label": np.int64(number - 1),
            "objects": {"label": np.array([[1, 0, 1]][: number + 1])},
            "captions": {"text": np.array([b"one", "zwölf".encode()], object)},
            "name": f"n{number}".encode(),
            "pixels": np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8),
        }

    class Builder:
        info = types.SimpleNamespace(features=features, splits={"train": 3, "validation": 1}, full_name="mini/1.0.0")

        def as_dataset(self, split, decoders, read_config, shuffle_files):
            assert read_config == {"add_tfds_id": True, "try_autocache": False}
            self.decoders = decoders
            return [example(number, split) for number in range(self.info.splits[split])]

    module = types.ModuleType("tensorflow_datasets")
    module.features = types.SimpleNamespace(Sequence=_Sequence, ClassLabel=_ClassLabel, Image=_Image)
    module.decode = types.SimpleNamespace(SkipDecoding=lambda: "skip")
    module.ReadConfig = dict
    module.as_numpy = iter
    module.made = Builder()
    module.builder_from_directory = lambda path: module.made
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    write("mini/1.0.0/dataset_info.json", {})
    return str(tmp_path / "mini/1.0.0")


def _read(folder, **options):
    rows = list(make_source(Options(folder, **options)).examples())
    return {row.id: row for row in rows if not isinstance(row, Rejection)}


def test_features_play_the_roles_that_options_say(stand_in, small_jpeg):
    examples = _read(stand_in, image="image", text={"caption": "captions/text", "name": "name"}, label="label")
    assert {key: (e.split, e.labels) for key, e in examples.items()} == {
        "mini-train.tfrecord-00000-of-00001__0": ("train", []),  # -1: no label
        "mini-train.tfrecord-00000-of-00001__1": ("train", ["tench"]),
        "mini-train.tfrecord-00000-of-00001__2": ("train", ["crane"]),
        "mini-validation.tfrecord-00000-of-00001__0": ("val", []),
    }
    last = examples["mini-train.tfrecord-00000-of-00001__2"]
    assert (last.image, last.texts) == (small_jpeg, {"caption": ["one", "zwölf"], "name": ["n2"]})
    assert sys.modules["tensorflow_datasets"].made.decoders == {"image": "skip"}


def test_class_names_are_the_vocabulary(stand_in):
    source = make_source(Options(stand_in, image="image", label="label"))
    assert (source.labels, source.multi_label) == (["tench", "crane"], False)
    assert source.options["dataset"] == "mini/1.0.0"


def test_label_inside_a_sequence_is_multi_label(stand_in):
    source = make_source(Options(stand_in, image="image", label="objects/label", splits=("train",), id="name"))
    assert (source.labels, source.multi_label) == (["cat", "dog"], True)
    assert {example.id: example.labels for example in source.examples()} == {
        "n0": ["dog", "cat"],
        "n1": ["dog", "cat"],
        "n2": ["dog", "cat"],
    }


def test_label_without_names_is_what_it_says(stand_in):
    source = make_source(Options(stand_in, image="image", label="name", splits=("validation",)))
    assert source.labels is None
    assert [example.labels for example in source.examples()] == [["n0"]]


def test_pixels_become_a_png(stand_in):
    example = next(iter(_read(stand_in, image="pixels").values()))
    assert np.array_equal(Image.open(io.BytesIO(example.image)), [[[255, 0, 0], [0, 0, 255]]])


def test_what_is_no_image_is_rejected(stand_in):
    rows = list(make_source(Options(stand_in, image="label", text={"name": "name"})).examples())
    assert {row.reason for row in rows} == {"no image: expected encoded bytes or uint8 [height, width, 1 or 3], found int64"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "name an image feature"),
        ({"image": "picture"}, r"no feature 'picture'; beside 'picture' there are \['captions', 'image', 'label'"),
        ({"text": {"t": "captions/raw"}}, r"no feature 'captions/raw'; beside 'raw' there are \['text'\]"),
        ({"text": {"t": "name/x"}}, r"no feature 'name/x'; beside 'x' there are \[\]"),
        ({"image": "image", "splits": ("test",)}, r"has no split 'test'; it has \['train', 'validation'\]"),
    ],
)
def test_what_the_dataset_does_not_have_is_an_error(stand_in, options, message):
    with pytest.raises(SourceError, match=message):
        make_source(Options(stand_in, **options))


def test_folder_of_no_version_is_an_error(stand_in, tmp_path):
    with pytest.raises(SourceError, match=r"mini holds no dataset_info\.json; name the folder of a version"):
        make_source(Options(str(tmp_path / "mini"), image="image"))


def test_missing_package_is_an_error_that_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(RuntimeError, match=r"pip install 'mm_keras\[tfds\]'"):
        make_source(Options("mnist", image="image"))


def test_command_line_packs_it(stand_in, tmp_path, read_split):
    arguments = ["--image=image", "--text=caption=captions/text,name", "--label=label", f"--output={tmp_path / 'out'}"]
    assert main(["pack", "tfds", stand_in, *arguments]) == 0
    assert {record.texts["caption"] for record in read_split(tmp_path / "out", "train")} == {("one", "zwölf")}
    assert json.loads((tmp_path / "out/dataset.json").read_text())["text_fields"].keys() == {"caption", "name"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside TensorFlow Datasets
def test_dataset_that_tfds_wrote_is_read(tmp_path, small_jpeg):
    package = pytest.importorskip("tensorflow_datasets", reason="tensorflow_datasets is not installed")
    features = package.features.FeaturesDict(
        {
            "image": package.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": package.features.ClassLabel(names=["tench", "crane"]),
            "captions": package.features.Sequence({"text": package.features.Text()}),
        }
    )
    (tmp_path / "photo.jpg").write_bytes(small_jpeg)
    example = {"image": str(tmp_path / "photo.jpg"), "label": "crane", "captions": [{"text": "one"}, {"text": "two"}]}
    folder = tmp_path / "mini/1.0.0"
    folder.mkdir(parents=True)
    shard = ShardWriter(folder / "mini-train.tfrecord-00000-of-00001")
    shard.write(features.serialize_example(features.encode_example(example)))
    shard.close()
    package.folder_dataset.write_metadata(
        data_dir=str(folder),
        features=features,
        split_infos=[package.core.SplitInfo(name="train", shard_lengths=[1], num_bytes=shard.num_bytes)],
        filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        version="1.0.0",
    )
    options = {"image": "image", "text": {"caption": "captions/text"}, "label": "label"}
    (row,) = _read(str(folder), **options).values()
    assert (row.image, row.labels, row.texts, row.split) == (small_jpeg, ["crane"], {"caption": ["one", "two"]}, "train")
    assert row.id == "mini-train.tfrecord-00000-of-00001__0"
