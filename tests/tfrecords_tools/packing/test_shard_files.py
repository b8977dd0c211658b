import dataclasses

import pytest

from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.dataset.schema import decode_example
from tfrecords_tools.dataset.shards import iter_records
from tfrecords_tools.packing.encode import Settings, encode
from tfrecords_tools.packing.images import ImageOptions
from tfrecords_tools.packing.shard_files import files_of, finished_shard, write_shard

NAME = "train-00000-of-00001.tfrecord"
SETTINGS = Settings(LabelVocabulary(["a", "b"]), False, ("title",), ImageOptions(), keep_without_image=True)


@pytest.fixture
def results(make_example):
    """Of three examples: a record, a record that lost its image, and one with an unknown label, which is left out."""
    examples = [make_example("whole"), make_example("blind", image=b"?"), make_example("out", labels=["c"])]
    return [(position, encode(example, SETTINGS)) for position, example in enumerate(examples)]


def test_written_shard_is_found_again_with_its_counts_and_rejections(tmp_path, results):
    written = write_shard(tmp_path, "train", NAME, results, SETTINGS)
    assert [decode_example(data).id for data in iter_records(tmp_path / NAME)] == ["whole", "blind"]
    assert (written.split, written.info.num_examples, written.info.num_bytes) == ("train", 2, (tmp_path / NAME).stat().st_size)
    assert (written.counts["examples"], written.counts["without_image"], written.counts["label/a"]) == (2, 2, 2)
    assert [(position, rejection.id, rejection.action) for position, rejection in written.rejections] == [
        (1, "blind", "kept without its image"),
        (2, "out", "left out"),
    ]
    assert finished_shard(tmp_path, NAME) == written


def test_shard_without_one_of_its_files_is_not_finished(tmp_path, results):
    assert finished_shard(tmp_path, NAME) is None
    write_shard(tmp_path, "train", NAME, results, SETTINGS)
    for file in files_of(NAME):
        content = (tmp_path / file).read_bytes()
        (tmp_path / file).unlink()
        assert finished_shard(tmp_path, NAME) is None
        (tmp_path / file).write_bytes(content)
    assert finished_shard(tmp_path, NAME)


def test_error_leaves_the_older_shard_as_it_was(tmp_path, results, bytes_of):
    write_shard(tmp_path, "train", NAME, results, SETTINGS)
    before = bytes_of(tmp_path)

    def broken():
        yield 0, dataclasses.replace(results[0][1], serialized=b"other bytes")
        raise RuntimeError("a worker went away")

    with pytest.raises(RuntimeError, match="a worker went away"):
        write_shard(tmp_path, "train", NAME, broken(), SETTINGS)
    assert bytes_of(tmp_path) == before
