import errno

import pytest

from tfrecords_tools.packing.staging import BusyError, Staging

SHARD = "train-00000-of-00001.tfrecord"


@pytest.fixture
def output(tmp_path):
    return tmp_path / "dataset"


def _write_shard(staging, content="records"):
    (staging.path / "index").mkdir(exist_ok=True)
    for name in (SHARD, f"{SHARD}.json", "index/train-00000-of-00001.parquet"):
        (staging.path / name).write_text(content)


def test_published_folder_holds_the_dataset_alone(output, tmp_path, bytes_of):
    with Staging(output) as staging:
        staging.begin("fingerprint")
        _write_shard(staging)
        staging.publish()
    assert set(bytes_of(output)) == {SHARD, "index/train-00000-of-00001.parquet"}
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_published_folder_replaces_the_older_dataset(output, tmp_path):
    output.mkdir()
    (output / "old").touch()
    with Staging(output) as staging:
        _write_shard(staging)
        staging.publish()
    assert not (output / "old").exists()
    assert (output / SHARD).read_text() == "records"
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


@pytest.mark.parametrize(("fingerprint", "is_kept"), [("same", True), ("other", False)])
def test_shards_are_kept_for_the_same_input_and_options_alone(output, fingerprint, is_kept):
    with pytest.raises(KeyboardInterrupt), Staging(output) as staging:
        staging.begin("same")
        _write_shard(staging)
        (staging.path / "tasks").mkdir()
        (staging.path / "spool").touch()
        raise KeyboardInterrupt
    assert not (staging.path / "spool").exists()
    with Staging(output) as staging:
        staging.begin(fingerprint)
        assert [path.name for path in staging.finished_shards()] == [f"{SHARD}.json"] * is_kept
        assert (staging.path / SHARD).exists() == is_kept
        assert (staging.path / "index").exists() == is_kept
        assert not (staging.path / "tasks").exists()


@pytest.mark.parametrize(
    ("error", "is_kept"), [(ValueError("bad"), False), (OSError(errno.EIO, "I/O"), True), (KeyboardInterrupt(), True)]
)
def test_folder_is_kept_where_packing_again_may_succeed(output, error, is_kept):
    with pytest.raises(type(error)) as caught, Staging(output) as staging:
        _write_shard(staging)
        raise error
    assert caught.value is error
    assert staging.path.exists() == is_kept


def test_half_written_facts_do_not_make_a_shard_finished(output):
    with Staging(output) as staging:
        (staging.path / f"unfinished-{SHARD}.json").touch()
        assert staging.finished_shards() == []


def test_lock_is_released_at_the_end_of_a_pack(output):
    with Staging(output), pytest.raises(BusyError, match="another process is packing into"), Staging(output):
        pass
    with Staging(output):
        pass
