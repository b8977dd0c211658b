import pyarrow.parquet as pq
import pytest

from tfrecords_tools.dataset.schema import decode_example
from tfrecords_tools.dataset.shards import read_record


@pytest.fixture
def index(packed, make_example, small_jpeg):
    """A function: examples -> the index of a packed dataset as a list of rows, and its folder."""

    def make(examples, **declared):
        _, folder = packed(examples, **declared)
        return pq.read_table(folder / "index").to_pylist(), folder

    return make


def test_index_says_what_the_records_say_and_where_they_are(index, make_example, small_jpeg):
    examples = [
        make_example("a", image=small_jpeg, texts={"title": ["A", "a \ud83d!"]}, labels=["x", "y"], weight=0.5),
        make_example("b", texts={"title": ["B"]}, labels=[], split="test"),
        make_example("c", image=small_jpeg, texts={}, labels=["y"]),
    ]
    rows, folder = index(examples, multi_label=True)
    assert {row["id"]: row["split"] for row in rows} == {"a": "train", "b": "test", "c": "train"}
    for row in rows:
        record = decode_example(read_record(folder / row["shard"], row["offset"]))
        assert row["id"] == record.id
        assert tuple(row["text/title"]) == record.texts["title"]
        assert tuple(row["label/ids"]) == record.label_ids
        assert row["labels"] == [["x", "y"][index] for index in record.label_ids]
        assert (row["image/height"], row["image/width"], row["weight"]) == (record.height, record.width, record.weight)


def test_index_holds_every_record_of_every_shard(dataset):
    rows = pq.read_table(dataset / "index").to_pylist()
    assert sorted(row["id"] for row in rows) == sorted(f"e{i}" for i in range(30))
    assert len(list((dataset / "index").iterdir())) == len(list(dataset.glob("*.tfrecord")))
