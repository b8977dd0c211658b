import dataclasses
import json

import pytest
from PIL import Image

from tfrecords_tools.dataset_info import DatasetInfo, ShardInfo
from tfrecords_tools.schema import Record, encode_example
from tfrecords_tools.shards import ShardWriter
from tfrecords_tools.verify import verify

SHARD = "test-00000-of-00001.tfrecord"


@pytest.fixture
def problems(dataset):
    return lambda: verify(dataset, progress=False)


@pytest.fixture
def replace_shard(dataset):
    """A function: puts these records (or bytes) into the test shard, and says so in dataset.json."""

    def replace(*records):
        writer = ShardWriter(dataset / SHARD)
        for record in records:
            writer.write(record if isinstance(record, bytes) else encode_example(record))
        writer.close()
        info = DatasetInfo.load(dataset)
        info.splits["test"] = [ShardInfo(SHARD, writer.num_examples, writer.num_bytes, writer.sha256)]
        info.save(dataset)

    return replace


@pytest.fixture
def good(small_jpeg):
    return Record("x1", image=small_jpeg, height=30, width=40, texts={"title": ("t",)}, label_ids=(0,))


def test_clean_dataset_has_no_problems(problems):
    assert problems() == []


def test_replaced_shard_that_is_described_has_no_problems(problems, replace_shard, good):
    replace_shard(good, dataclasses.replace(good, id="x2", image=b"", height=0, width=0, label_ids=()))
    assert problems() == []


def test_flipped_byte_is_found_in_its_record(dataset, problems):
    path = dataset / SHARD
    data = bytearray(path.read_bytes())
    data[100] ^= 0xFF
    path.write_bytes(data)
    found = problems()
    assert found[0] == f"{SHARD}: sha256 differs from dataset.json"
    assert len(found) == 2
    assert found[1].endswith(f"{SHARD}: record 0 at byte 0: wrong checksum of the data")


def test_truncated_shard_is_found(dataset, problems):
    path = dataset / SHARD
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-10])
    found = problems()
    assert found[0] == f"{SHARD}: {size - 10:,} bytes, dataset.json says {size:,}"
    assert "record 9 at byte" in found[1]
    assert "the file ends inside the record" in found[1]


def test_shard_cut_between_records_is_found(dataset, problems):
    path = dataset / SHARD
    whole = path.read_bytes()
    first = 16 + int.from_bytes(whole[:8], "little")
    path.write_bytes(whole[first:])
    assert problems()[1] == f"{SHARD}: 9 records, dataset.json says 10"


def test_missing_shard_is_found(dataset, problems):
    (dataset / SHARD).unlink()
    assert problems() == [f"{SHARD}: the shard is missing"]


@pytest.mark.parametrize("name", ["old-00000-of-00001.tfrecord", "train-00002-of-00003.tfrecord.tmp"])
def test_shard_that_is_not_listed_is_found(dataset, problems, name):
    (dataset / name).write_bytes(b"")
    assert problems() == [f"{name}: not listed in dataset.json"]


def test_wrong_count_in_the_description_is_found(dataset, problems):
    content = json.loads((dataset / "dataset.json").read_text("utf-8"))
    content["splits"]["test"]["shards"][0]["num_examples"] = 11
    (dataset / "dataset.json").write_text(json.dumps(content), "utf-8")
    assert problems() == [f"{SHARD}: 10 records, dataset.json says 11"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"texts": {"name": ("t",)}}, "text fields ['name'], dataset.json says ['title']"),
        ({"texts": {}}, "text fields [], dataset.json says ['title']"),
        ({"label_ids": (2,)}, "label id 2 is outside 0–1"),
        ({"label_ids": (-1,)}, "label id -1 is outside 0–1"),
        ({"label_ids": (0, 1)}, "2 labels in a single-label dataset"),
        ({"image": b""}, "no image, yet it is said to be 40x30"),
        ({"height": 31}, "the image is 40x30, the record says 40x31"),
        ({"image": b"GIF89a"}, "bad image: not an image that Pillow knows"),
    ],
)
def test_record_that_breaks_the_description_is_named(problems, replace_shard, good, change, problem):
    replace_shard(good, dataclasses.replace(good, id="x2", **change))
    assert len(problems()) == 1
    assert problems()[0].startswith(f"{SHARD}: record 1 (x2): {problem}")


def test_image_that_is_no_jpeg_is_found(problems, replace_shard, good, encode_image):
    replace_shard(dataclasses.replace(good, image=encode_image(Image.new("L", (40, 30)), "PNG")))
    assert problems() == [f"{SHARD}: record 0 (x1): bad image: expected a JPEG, found PNG"]


def test_record_that_breaks_the_schema_is_named_and_the_others_are_still_checked(problems, replace_shard, good):
    replace_shard(b"\xff\xff", good, dataclasses.replace(good, id="x2", label_ids=(9,)))
    first, second = problems()
    assert first.startswith(f"{SHARD}: record 0: not a tf.train.Example")
    assert second == f"{SHARD}: record 2 (x2): label id 9 is outside 0–1"


def test_id_that_stands_twice_is_found_within_and_across_shards(problems, replace_shard, good):
    replace_shard(good, good, dataclasses.replace(good, id="e20"))
    found = problems()
    assert len(found) == 2
    assert f"{SHARD}: record 1: id 'x1' stands in {SHARD} too" in found
    assert any("id 'e20' stands in" in problem for problem in found)


def test_folder_that_is_no_dataset_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no dataset folder"):
        verify(tmp_path)
