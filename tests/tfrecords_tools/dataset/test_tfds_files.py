import pytest
from PIL import Image

from tfrecords_tools.packing.pack import PackOptions, pack

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside TensorFlow Datasets


@pytest.fixture
def read_by_tfds(tmp_path, make_source):
    """A function: examples -> (tfds' builder, split -> its examples as numpy)."""
    tfds = pytest.importorskip("tensorflow_datasets", reason="TensorFlow Datasets is not installed")

    def apply(examples, name="dataset", **declared):
        source = make_source(examples, **declared)
        pack(source, tmp_path / name, PackOptions(examples_per_shard=4), progress=False)
        builder = tfds.builder_from_directory(tmp_path / name)
        return builder, {split: list(tfds.as_numpy(builder.as_dataset(split=split))) for split in builder.info.splits}

    return apply


def test_tfds_reads_images_texts_and_labels(read_by_tfds, make_example, encode_image):
    picture = encode_image(Image.new("RGB", (40, 30), "teal"))
    grey = encode_image(Image.new("L", (20, 10), "white"))
    examples = [
        make_example(f"e{i}", image=grey if i == 3 else picture, labels=["ab"[i % 2]], split="test" if i < 3 else "train")
        for i in range(12)
    ]
    builder, splits = read_by_tfds(examples)
    assert {split: info.num_examples for split, info in builder.info.splits.items()} == {"test": 3, "train": 9}
    assert builder.info.features["label"]["ids"].names == ["a", "b"]
    rows = {row["id"].decode(): row for rows in splits.values() for row in rows}
    assert len(rows) == 12
    assert rows["e4"]["image"]["encoded"].shape == (30, 40, 3)
    assert rows["e3"]["image"]["encoded"].shape == (10, 20, 3)
    assert rows["e5"]["text"]["title"].tolist() == [b"title of e5"]
    assert [rows[f"e{i}"]["label"]["ids"] for i in range(4)] == [0, 1, 0, 1]
    assert rows["e0"]["weight"] == 1


def test_tfds_reads_what_is_missing(read_by_tfds, make_example, small_jpeg):
    examples = [
        make_example("whole", image=small_jpeg, texts={"title": ["one", "two"]}, labels=["a", "b"], split="train"),
        make_example("textless", image=small_jpeg, texts={}, labels=[], split="train"),
        make_example("imageless", split="train"),
    ]
    _, splits = read_by_tfds(examples, name="naïve set", multi_label=True)
    rows = {row["id"].decode(): row for row in splits["train"]}
    assert rows["whole"]["text"]["title"].tolist() == [b"one", b"two"]
    assert rows["whole"]["label"]["ids"].tolist() == [0, 1]
    assert rows["whole"]["image"]["encoded"] == small_jpeg
    assert rows["textless"]["text"]["title"].tolist() == rows["textless"]["label"]["ids"].tolist() == []
    assert rows["imageless"]["image"]["encoded"] == b""


def test_tfds_reads_a_dataset_without_texts_and_labels(read_by_tfds, make_example, small_jpeg):
    examples = [make_example("a", image=small_jpeg, labels=[], texts={}, split="query")]
    _, splits = read_by_tfds(examples, text_fields=())
    assert splits["query"][0]["image"]["height"] == 30
