import itertools

import pytest

from mm_keras.data.sharding import files_of
from mm_keras.distribution.workers import ALONE, Worker
from tfrecords_tools.dataset.info import ShardInfo


def _shards(*counts):
    return [ShardInfo(f"train-{index}", count, 0, "") for index, count in enumerate(counts)]


def _dealt(counts, workers, **options):
    """For each worker the records of its files; None where they share them."""
    shards = _shards(*counts)
    parts = [files_of(Worker(index, workers), shards, sum(counts), **options) for index in range(workers)]
    if parts[0] is None:
        assert parts == [None] * workers
        return None
    assert sorted(shard.file for shard in itertools.chain(*parts)) == sorted(shard.file for shard in shards)
    return [sum(shard.num_examples for shard in part) for part in parts]


def test_each_file_goes_to_one_worker_and_each_gets_as_many_records():
    assert _dealt([10, 10, 10, 10], 2) == [20, 20]
    assert _dealt([7, 5, 3, 1], 2) == [8, 8]
    assert _dealt([2, 30, 28], 2) == [30, 30]


def test_files_are_shared_where_a_worker_would_have_too_few_or_too_many():
    assert _dealt([10, 9], 2, least=9) == [10, 9]
    assert _dealt([10, 9], 2, least=10) is None
    assert _dealt([10, 9], 2, most=9) is None
    assert _dealt([10], 2, least=1) is None
    assert _dealt([10], 2, most=10) == [10, 0]


@pytest.mark.parametrize(("worker", "used"), [(ALONE, 20), (Worker(0, 2), 19)])
def test_files_are_not_dealt_out_to_one_or_where_some_records_are_left_out(worker, used):
    assert files_of(worker, _shards(10, 10), used) is None
