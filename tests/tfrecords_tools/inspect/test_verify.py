import dataclasses
import json

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.index import ShardIndex, index_file
from tfrecords_tools.dataset.info import DatasetInfo, ShardInfo
from tfrecords_tools.dataset.schema import Record, decode_example, encode_example
from tfrecords_tools.dataset.shards import ShardWriter, iter_records
from tfrecords_tools.dataset.splits import hash_id
from tfrecords_tools.inspect.verify import verify
from tfrecords_tools.packing.pack import PackOptions

SHARD = "test-00000-of-00001.tfrecord"


def _rewrite(folder, split, number, records, index=True):
    """Makes a shard anew of these records (or bytes), and describes it in dataset.json and, if asked, in the index."""
    info = DatasetInfo.load(folder)
    name = info.shards(split)[number].file
    writer = ShardWriter(folder / name)
    table = ShardIndex(split, name, tuple(info.text_fields), info.labels)
    for record in records:
        if isinstance(record, Record) and set(record.label_ids) <= {0, 1} and set(record.texts) == set(info.text_fields):
            table.add(record, writer.num_bytes)
        writer.write(record if isinstance(record, bytes) else encode_example(record))
    writer.close()
    if index:
        table.save(folder)
    info.splits[split][number] = ShardInfo(name, writer.num_examples, writer.num_bytes, writer.sha256)
    info.save(folder)


def _records(folder, split, number):
    shard = DatasetInfo.load(folder).shards(split)[number]
    return list(map(decode_example, iter_records(folder / shard.file)))


def _move(folder, start, end, index=True):
    """Moves a record from one (split, shard number) to another, into its place by hash; returns it."""
    moved, *rest = _records(folder, *start)
    _rewrite(folder, *start, rest, index)
    records = sorted([*_records(folder, *end), moved], key=lambda record: hash_id(record.id, "order", 0))
    _rewrite(folder, *end, records, index)
    return moved, records.index(moved)


@pytest.fixture
def problems(dataset):
    return lambda: verify(dataset, progress=False)


@pytest.fixture
def replace_shard(dataset):
    """A function: puts these records (or bytes) into the test shard, and says so in dataset.json and in the index."""
    return lambda *records: _rewrite(dataset, "test", 0, records)


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


@pytest.mark.parametrize("name", ["old-00000-of-00001.tfrecord", "train-00002-of-00003.tfrecord.tmp", "index/old.parquet"])
def test_shard_that_is_not_listed_is_found(dataset, problems, name):
    (dataset / name).write_bytes(b"")
    assert problems() == [f"{name}: not listed in dataset.json"]


def test_wrong_count_in_the_description_is_found(dataset, problems):
    content = json.loads((dataset / "dataset.json").read_text("utf-8"))
    content["splits"]["test"]["shards"][0]["num_examples"] = 11
    write_text(dataset / "dataset.json", json.dumps(content))
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
        ({"image": b"GIF89a"}, "bad image: not a picture of a known format, but text"),
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
    replace_shard(dataclasses.replace(good, id="e20"), good, good)
    found = problems()
    assert len(found) == 2
    assert f"{SHARD}: record 2: id 'x1' stands in {SHARD} too" in found
    assert any("id 'e20' stands in" in problem for problem in found)


@pytest.fixture
def drawn(packed, rows, tmp_path):
    """A dataset whose splits were drawn by hash; one shard a split."""
    return packed(rows, PackOptions(fractions={"train": 0.5, "val": 0.25, "test": 0.25}))[1]


def test_record_in_another_split_than_its_id_draws_is_named_though_all_files_agree(drawn):
    assert verify(drawn, progress=False) == []
    moved, place = _move(drawn, ("train", 0), ("val", 0))
    assert verify(drawn, progress=False) == [
        f"val-00000-of-00001.tfrecord: record {place} ({moved.id}): its id draws the split 'train', not 'val'"
    ]


def test_record_in_another_split_than_the_source_gave_is_named_by_the_index(packed, make_example):
    examples = [make_example(f"e{i}", split=["train", "val"][i % 2]) for i in range(20)]
    _, folder = packed(examples)
    moved, _ = _move(folder, ("train", 0), ("val", 0), index=False)
    train, val = (f"{split}-00000-of-00001" for split in ("train", "val"))
    assert verify(folder, progress=False) == [
        f"index/{train}.parquet: lists what is not in {train}.tfrecord: '{moved.id}'",
        f"index/{val}.parquet: does not list what is in {val}.tfrecord: '{moved.id}'",
    ]


def test_record_in_another_shard_of_its_split_is_named(dataset, problems):
    moved, place = _move(dataset, ("train", 0), ("train", 1))
    shards = [f"train-0000{number}-of-00002.tfrecord" for number in range(2)]
    assert problems() == [f"{shards[1]}: record {place} ({moved.id}): its id belongs into {shards[0]}"]


def test_record_out_of_order_is_named(dataset, problems):
    first, *rest = _records(dataset, "test", 0)
    _rewrite(dataset, "test", 0, [rest[0], first, *rest[1:]])
    assert problems() == [
        f"{SHARD}: record 1 ({first.id}): records are ordered by the hashes of their ids; this one comes too late"
    ]


def test_shards_that_change_places_are_named_though_dataset_json_agrees(dataset, problems):
    info = DatasetInfo.load(dataset)
    info.splits["train"].reverse()
    info.save(dataset)
    found = problems()
    first, second = (shard.file for shard in reversed(info.shards("train")))
    assert f"{second}: stands in dataset.json where {first} belongs" in found
    assert sum("its id belongs into" in problem for problem in found) == 20


def test_dataset_of_unknown_packing_has_no_order_to_check(dataset, problems):
    info = DatasetInfo.load(dataset)
    info.provenance = {}
    info.save(dataset)
    _rewrite(dataset, "test", 0, reversed(_records(dataset, "test", 0)))
    assert problems() == []


def test_missing_or_broken_index_is_found(dataset, problems):
    (dataset / index_file(SHARD)).unlink()
    (dataset / "index/train-00000-of-00002.parquet").write_bytes(b"PAR1 no more")
    missing, broken = sorted(problems())
    assert missing == f"{index_file(SHARD)}: the index of {SHARD} is missing"
    assert broken.startswith("index/train-00000-of-00002.parquet: cannot be read: ")


def test_index_that_says_other_things_than_the_records_is_found(dataset, problems):
    path = dataset / index_file(SHARD)
    table = pq.read_table(path)
    changed = table.to_pylist()
    changed[2]["text/title"] = ["another title"]
    changed[2]["offset"] += 1
    pq.write_table(table.from_pylist(changed, table.schema), path)
    assert problems() == [f"{index_file(SHARD)}: says other things than {SHARD}: '{changed[2]['id']}'"]
    pq.write_table(table.take([1, 0, *range(2, 10)]), path)
    assert problems() == [f"{index_file(SHARD)}: lists other offsets, or another order, than {SHARD} has"]
    pq.write_table(table.drop_columns("weight"), path)
    assert problems() == [f"{index_file(SHARD)}: its columns are not those of the records"]
    pq.write_table(table.slice(7), path)
    listed = ", ".join(repr(name) for name in table["id"].to_pylist()[:5])
    assert problems() == [f"{index_file(SHARD)}: does not list what is in {SHARD}: {listed} and 2 more"]


def test_folder_that_is_no_dataset_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no dataset folder"):
        verify(tmp_path)
