import pytest

from tfrecords_tools.dataset.splits import hash_id
from tfrecords_tools.packing.spool import Spool, read_spooled
from tfrecords_tools.sources.example import Rejection


@pytest.fixture
def spooled(tmp_path, make_source):
    """A function: examples and rejections -> the Spool of them; all are closed at the end."""
    spools = []

    def make(examples):
        spools.append(Spool(tmp_path / f"spool{len(spools)}", make_source(examples), {"train": 1.0}, seed=0, progress=False))
        return spools[-1]

    yield make
    for spool in spools:
        spool.close()


def test_shards_have_every_example_once_in_the_order_of_their_hashes(spooled, rows):
    spool = spooled(rows)
    shards = list(spool.shards("train", 7))
    assert len(shards) == 7
    places = [place for shard in shards for place in shard]
    assert sorted(place.position for place in places) == list(range(len(rows)))
    with open(spool.path, "rb") as file:
        examples = [read_spooled(file, place.offset) for place in places]
    assert examples == [rows[place.position] for place in places]
    hashes = [hash_id(example.id, "order", 0) for example in examples]
    assert hashes == sorted(hashes)


def test_digest_is_of_all_that_the_examples_say(spooled, make_example):
    def digest(**fields):
        return spooled([make_example("e", **fields)]).digest

    assert digest() == digest()
    changes = [{"labels": ["b"]}, {"texts": {"title": ["other"]}}, {"image": b"x"}, {"weight": 0.5}, {"split": "val"}]
    assert len({digest(), *(digest(**change) for change in changes)}) == 6


def test_seen_rows_and_splits_are_counted(spooled, make_example):
    spool = spooled([make_example("a"), Rejection("", "rows:1", "malformed row"), make_example("b", split="val")])
    assert (spool.sizes, spool.num_seen, spool.splits_drawn) == ({"train": 1, "val": 1}, 3, False)
    assert [(position, rejection.where) for position, rejection in spool.rejections] == [(1, "rows:1")]


def test_closing_deletes_the_files(spooled, make_example, tmp_path):
    spool = spooled([make_example("a")])
    assert len(list(tmp_path.iterdir())) == 2
    spool.close()
    assert list(tmp_path.iterdir()) == []
