"""A disk that fills up while a dataset is packed: nothing half stands at the output, and packing goes on with more room."""

import errno
import os
from pathlib import Path

import pytest

from tfrecords_tools.cli.main import main
from tfrecords_tools.dataset import croissant, shards
from tfrecords_tools.dataset.index import ShardIndex
from tfrecords_tools.dataset.scratch import open_scratch
from tfrecords_tools.dataset.shards import ShardWriter
from tfrecords_tools.inspect.verify import verify
from tfrecords_tools.packing import spool
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.packing.staging import Staging
from tfrecords_tools.sources.disk_index import DiskIndex

OPTIONS = PackOptions(fractions={"train": 0.7, "val": 0.3}, examples_per_shard=10)  # 5 + 2 shards
NUM_SHARDS = 7


def _sync_of_shard(number):
    """Which call of fsync is that of a shard's records: a shard has three files, and each syncs its folder, too.

    The index of the shard precedes its records, and the file of its counts follows them.
    """
    return 6 * number + 2


@pytest.fixture
def fill_disk(monkeypatch):
    """A function: (object, attribute, number of the call that finds the disk full) -> breaks that function from then on."""

    def break_call(owner, attribute, number):
        whole, calls = getattr(owner, attribute), []

        def broken(*arguments, **named):
            calls.append(arguments)
            if len(calls) > number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return whole(*arguments, **named)

        monkeypatch.setattr(owner, attribute, broken)

    return break_call


@pytest.fixture
def pack_rows(tmp_path, make_source, make_example, small_jpeg):
    """A function: name of a folder in tmp_path -> 60 examples packed into it, some images of which are broken."""
    examples = [make_example(f"e{i}", image=b"?" if i % 9 == 0 else small_jpeg) for i in range(60)]
    return lambda name="dataset": pack(make_source(examples), tmp_path / name, OPTIONS, progress=False)


@pytest.fixture
def check_resumed(pack_rows, bytes_of, tmp_path, monkeypatch):
    """A function: number of shards -> asserts that so many were kept, and are not made anew when there is room again."""

    def check(num_finished):
        staging = Staging(tmp_path / "dataset").path
        assert [path.name for path in tmp_path.iterdir()] == [staging.name]
        finished = {path.name.removesuffix(".json") for path in staging.glob("*.tfrecord.json")}
        assert len(finished) == num_finished
        assert not [*staging.rglob("unfinished-*"), *staging.glob("spool*")]
        made = {name: (staging / name).stat().st_mtime_ns for name in finished}
        monkeypatch.undo()
        pack_rows()
        assert {name: (tmp_path / "dataset" / name).stat().st_mtime_ns for name in finished} == made
        assert verify(tmp_path / "dataset", progress=False) == []
        pack_rows("unbroken/dataset")
        assert bytes_of(tmp_path / "dataset") == bytes_of(tmp_path / "unbroken" / "dataset")

    return check


def _advice(folder, num_finished):
    return (
        rf"No space left on device: {num_finished} finished shard\(s\) are kept in {folder}/.dataset.packing; make room and run"
    )


@pytest.mark.parametrize("number", [0, 3, NUM_SHARDS - 1])
def test_shard_that_does_not_fit_is_named_and_the_finished_ones_are_kept(fill_disk, pack_rows, check_resumed, tmp_path, number):
    fill_disk(os, "fsync", _sync_of_shard(number))
    with pytest.raises(OSError, match=_advice(tmp_path, number)) as caught:
        pack_rows()
    assert caught.value.errno == errno.ENOSPC
    split, index, of = ("train", number, 5) if number < 5 else ("val", number - 5, 2)
    assert Path(caught.value.filename).name == f"{split}-{index:05d}-of-{of:05d}.tfrecord"
    check_resumed(number)


def test_disk_may_be_full_in_the_middle_of_a_shard(fill_disk, pack_rows, check_resumed, tmp_path, monkeypatch):
    fill_disk(ShardWriter, "write", 25)
    with pytest.raises(OSError, match=_advice(tmp_path, 2)):
        pack_rows()
    check_resumed(2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_half_a_shard_is_removed_though_even_closing_it_fails(pack_rows, check_resumed, tmp_path, monkeypatch):
    def on_full_disk(path, mode):
        if "train-00002" not in path.name:
            return open(path, mode)
        path.touch()
        return open("/dev/full", mode)  # takes what is buffered, and fails when that is written, as in close()

    monkeypatch.setattr(shards, "open", on_full_disk, raising=False)
    with pytest.raises(OSError, match=_advice(tmp_path, 2)) as caught:
        pack_rows()
    assert caught.value.filename.endswith("train-00002-of-00005.tfrecord")
    check_resumed(2)


@pytest.mark.parametrize(
    ("owner", "attribute", "kept"), [(ShardIndex, "save", 4), (Path, "replace", 0), (croissant, "write", 7)]
)
def test_disk_may_be_full_beside_the_shards(fill_disk, pack_rows, check_resumed, tmp_path, owner, attribute, kept):
    fill_disk(owner, attribute, kept if kept < NUM_SHARDS else 0)
    with pytest.raises(OSError, match=_advice(tmp_path, kept)):
        pack_rows()
    check_resumed(kept)


def test_disk_may_be_full_while_the_source_is_read(fill_disk, pack_rows, check_resumed, tmp_path):
    fill_disk(spool.pickle, "dump", 20)
    with pytest.raises(OSError, match=_advice(tmp_path, 0)):
        pack_rows()
    check_resumed(0)


def test_disk_may_be_full_while_packing_is_planned(pack_rows, check_resumed, monkeypatch):
    def open_small(*arguments):
        database = open_scratch(*arguments)
        database.execute("PRAGMA max_page_count=2")  # enough for the rows, but not for their order
        return database

    monkeypatch.setattr(spool, "open_scratch", open_small)
    with pytest.raises(OSError, match=r"database or disk is full .*TMPDIR says\): 0 finished shard"):
        pack_rows()
    check_resumed(0)


@pytest.mark.parametrize("pages", [2, 4])  # full while rows are added, full when they are indexed
def test_full_temporary_folder_is_an_error_of_the_disk(pages):
    with DiskIndex() as index:
        index._rows.execute(f"PRAGMA max_page_count={pages}")
        for number in range(100):
            index.add(f"{number:50}", "value")
        with pytest.raises(OSError, match="database or disk is full") as caught:
            index.get("key 1")
        assert caught.value.errno == errno.ENOSPC
        assert bool(index._waiting) == (pages == 2)


def test_other_errors_of_the_disk_are_passed_on_and_finished_shards_kept(pack_rows, check_resumed, tmp_path, monkeypatch):
    whole = ShardWriter.close

    def unplugged(writer):
        if writer._path.name.startswith("val"):
            raise OSError(errno.EIO, "Input/output error")
        whole(writer)

    monkeypatch.setattr(ShardWriter, "close", unplugged)
    with pytest.raises(OSError, match=r"Input/output error\Z"):
        pack_rows()
    check_resumed(5)


def test_command_says_it_in_one_line(fill_disk, call, tmp_path):
    fill_disk(os, "fsync", _sync_of_shard(2))
    arguments = ("--num_examples=100", "--examples_per_shard=20", "--output", tmp_path / "dataset")
    status, out, err = call(main, "pack", "sample", *arguments)
    assert (status, out) == (2, "")
    message = err.replace("\r", "\n").splitlines()[-1]
    assert message.startswith("tfrecords-tools: [Errno 28] No space left on device: 2 finished shard(s) are kept in ")
    assert message.endswith(".tfrecord'")
