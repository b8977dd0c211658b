import hashlib
import re

import pytest

from tfrecords_tools.dataset.shards import (
    CorruptShardError,
    ShardWriter,
    iter_placed_records,
    iter_records,
    read_record,
    sha256_of,
    shard_name,
)

RECORDS = [b"first", b"", b"third" * 1000]
STARTS = [0, 16 + len(RECORDS[0]), 32 + len(RECORDS[0])]  # of the records; each has 16 bytes of framing


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "train-00000-of-00001.tfrecord"
    writer = ShardWriter(path)
    for record in RECORDS:
        writer.write(record)
    writer.close()
    return path


def _flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_shard_names_sort_in_order():
    assert shard_name("train", 3, 16) == "train-00003-of-00016.tfrecord"


def test_records_come_back_in_order(shard):
    assert list(iter_records(shard)) == RECORDS


def test_writer_counts_what_is_on_the_disk(shard, tmp_path):
    writer = ShardWriter(tmp_path / "again")
    for record in RECORDS:
        writer.write(record)
    writer.close()
    assert writer.num_examples == 3
    assert writer.num_bytes == shard.stat().st_size
    assert writer.sha256 == hashlib.sha256(shard.read_bytes()).hexdigest() == sha256_of(shard)


def test_nothing_stands_under_the_final_name_before_close(tmp_path):
    writer = ShardWriter(tmp_path / "shard")
    writer.write(b"x" * 100_000)
    assert not (tmp_path / "shard").exists()
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["shard"]


def test_empty_shard_has_no_records(tmp_path):
    ShardWriter(tmp_path / "shard").close()
    assert list(iter_records(tmp_path / "shard")) == []


def test_flipped_bit_in_the_data_is_found_where_it_is(shard):
    _flip(shard, STARTS[2] + 12 + 777)
    records = iter_records(shard)
    assert [next(records), next(records)] == RECORDS[:2]
    where = re.escape(f"{shard}: record 2 at byte {STARTS[2]}: wrong checksum of the data")
    with pytest.raises(CorruptShardError, match=where):
        next(records)


@pytest.mark.parametrize("offset", [0, 7, 8, 11], ids=["length", "top of the length", "checksum", "top of the checksum"])
def test_flipped_bit_in_a_header_is_found_where_it_is(shard, offset):
    _flip(shard, STARTS[1] + offset)
    where = re.escape(f"{shard}: record 1 at byte {STARTS[1]}: wrong checksum of the length")
    with pytest.raises(CorruptShardError, match=where):
        list(iter_records(shard))


@pytest.mark.parametrize(
    ("cut", "inside"), [(1, "the record"), (4, "the record"), (5010, "the record"), (5010 + 4, "the record's header")]
)
def test_truncated_file_is_found_where_it_ends(shard, cut, inside):
    shard.write_bytes(shard.read_bytes()[:-cut])
    where = re.escape(f"{shard}: record 2 at byte {STARTS[2]}: the file ends inside {inside}")
    with pytest.raises(CorruptShardError, match=where):
        list(iter_records(shard))


def test_record_is_found_again_by_its_offset(shard):
    placed = list(iter_placed_records(shard))
    assert [data for _, data in placed] == RECORDS
    assert [read_record(shard, offset) for offset, _ in placed] == RECORDS


def test_offset_where_no_record_begins_is_an_error(shard):
    with pytest.raises(CorruptShardError, match="record at byte 1: wrong checksum of the length"):
        read_record(shard, 1)
    with pytest.raises(CorruptShardError, match="the file ends before byte"):
        read_record(shard, shard.stat().st_size)


@pytest.mark.parametrize("promised", [2, 4])
def test_records_are_counted_against_what_is_promised(shard, promised):
    with pytest.raises(CorruptShardError, match=f"{shard.name}: 3 records, dataset.json says {promised}"):
        list(iter_records(shard, promised))
    assert len(list(iter_records(shard, 3))) == 3
