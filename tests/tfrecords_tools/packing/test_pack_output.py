import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.inspect.verify import verify
from tfrecords_tools.packing.encode import WorkerDiedError
from tfrecords_tools.packing.pack import PackError, PackOptions, pack
from tfrecords_tools.packing.spool import EmptySourceError
from tfrecords_tools.packing.staging import BusyError, Staging
from tfrecords_tools.sources import sample
from tfrecords_tools.sources.example import Rejection, Source

ONE_SPLIT = PackOptions(fractions={"train": 1.0})


def _rejected(folder):
    return [json.loads(line) for line in (folder / "rejected.jsonl").read_text("utf-8").splitlines()]


def test_too_many_bad_examples_stop_the_pack_and_leave_nothing(packed, rows, make_example, tmp_path):
    bad = [make_example(f"bad{i}", image=b"?") for i in range(40)]
    with pytest.raises(PackError) as caught:
        packed([*rows, *bad], dataclasses.replace(ONE_SPLIT, max_bad_fraction=0.1))
    assert "11 of 100 examples are bad, over the allowed fraction of 0.1 (--max_bad_fraction): 11 × bad image" in str(
        caught.value
    )
    assert "rows:bad" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_error_inside_the_source_is_passed_on_and_leaves_nothing(tmp_path, rows):
    def examples():
        yield from rows
        raise KeyError("the disk went away")

    with pytest.raises(KeyError, match="the disk went away"):
        pack(Source("rows", examples, {"title": False}, False), tmp_path / "dataset", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_error_while_encoding_is_passed_on_and_leaves_nothing(packed, rows, make_example, tmp_path):
    with pytest.raises(TypeError, match="must be real number, not str"):
        packed([*rows, make_example("x", weight="not a weight")])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("examples", [[], [Rejection("", "x.csv:2", "malformed row: 1 cells under 2 columns")]])
def test_source_without_a_usable_example_is_an_error(packed, examples, tmp_path):
    with pytest.raises(EmptySourceError, match=r"source 'rows' yielded no usable example") as caught:
        packed(examples)
    assert all(example.reason in str(caught.value) for example in examples)
    assert list(tmp_path.iterdir()) == []


def test_existing_dataset_is_not_replaced_unless_asked(packed, rows, tmp_path, bytes_of):
    _, folder = packed(rows)
    before = bytes_of(folder)
    with pytest.raises(PackError, match=r"already holds a dataset; pass --overwrite"):
        packed(rows[:5])
    assert bytes_of(folder) == before
    info, _ = packed(rows[:5], overwrite=True)
    assert DatasetInfo.load(folder).num_examples("train") == info.num_examples("train") == 5
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_failed_overwrite_keeps_the_old_dataset(packed, rows, make_example, tmp_path, bytes_of):
    _, folder = packed(rows)
    before = bytes_of(folder)
    with pytest.raises(PackError, match="are bad"):
        packed([make_example("x", image=b"?")], dataclasses.replace(ONE_SPLIT, max_bad_fraction=0), overwrite=True)
    assert bytes_of(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_folder_that_is_no_dataset_is_never_touched(packed, rows, tmp_path, overwrite, bytes_of):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "thesis.txt").write_text("years of work")
    with pytest.raises(PackError, match="exists and is no dataset"):
        packed(rows, overwrite=overwrite)
    assert bytes_of(tmp_path / "dataset") == {"thesis.txt": b"years of work"}


def test_foreign_file_inside_a_dataset_is_not_deleted_by_overwriting(packed, rows):
    _, folder = packed(rows)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(PackError, match=r"also holds \['notes.txt'\], which overwriting would delete"):
        packed(rows[:5], overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert DatasetInfo.load(folder).num_examples("train") == 60


def test_empty_output_folder_is_used(packed, rows, tmp_path):
    (tmp_path / "dataset").mkdir()
    _, folder = packed(rows)
    assert verify(folder, progress=False) == []


def test_file_under_the_output_name_is_not_replaced(packed, rows, tmp_path):
    (tmp_path / "dataset").write_text("a file")
    with pytest.raises(PackError, match="exists and is no dataset"):
        packed(rows, overwrite=True)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("examples_per_shard", 0), ("workers", 0), ("max_bad_fraction", 1.5), ("fractions", {"train": 0.5})],
)
def test_option_out_of_range_is_rejected(argument, value):
    with pytest.raises(ValueError, match=r"must .* Received: ") as caught:
        PackOptions(**{argument: value})
    assert str(value) in str(caught.value)


def test_provenance_tells_what_was_asked_for(packed, rows, make_example):
    info, _ = packed(rows, dataclasses.replace(ONE_SPLIT, seed=7))
    assert info.provenance["source"] == "rows"
    assert info.provenance["pack_options"]["seed"] == 7
    assert info.provenance["splits_drawn"] is True
    assert packed([*rows, make_example("x", split="test")], name="given")[0].provenance["splits_drawn"] is False
    assert "workers" not in info.provenance["pack_options"]  # the bytes do not depend on it
    assert info.images == {"short_side": 256, "quality": 90, "max_pixels": 50_000_000}


def _is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
    return found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks processes up in /proc")
def test_killed_pack_leaves_no_dataset_and_no_workers(tmp_path):
    script = (
        "import sys; from tfrecords_tools.packing.pack import PackOptions, pack; from tfrecords_tools.sources import sample;"
        "pack(sample.make_source(2_000), sys.argv[1], PackOptions(workers=2), progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path / "dataset"], stderr=subprocess.DEVNULL)

    def workers():
        """The worker processes, once the first shard grows."""
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        spawned = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        growing = any(path.stat().st_size for path in tmp_path.glob(".dataset.packing/*.tfrecord*"))
        return spawned if growing and len(spawned) == 2 else []

    try:
        found = _wait_for(workers)
    finally:
        process.kill()  # SIGKILL: nothing of ours can clean up
        process.wait()
    assert not (tmp_path / "dataset").exists()
    _wait_for(lambda: not any(map(_is_running, found)), seconds=10)


PACK = """
import sys
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.sources import sample
options = PackOptions(workers=int(sys.argv[2]), examples_per_shard=20, seed=int(sys.argv[3]))
pack(sample.make_source(300), sys.argv[1], options, progress=False)
"""


def _pack(folder, workers=1, seed=0, kill_after=None):
    """Packs; or, if asked to, packs in a process of its own and kills it once so many shards are finished."""
    if kill_after is None:
        options = PackOptions(workers=workers, examples_per_shard=20, seed=seed)
        pack(sample.make_source(300), folder, options, progress=False)
        return
    process = subprocess.Popen([sys.executable, "-c", PACK, folder, str(workers), str(seed)], stderr=subprocess.DEVNULL)
    staging = Staging(folder)
    while process.poll() is None:
        if len(staging.finished_shards()) >= kill_after:
            process.kill()
            process.wait()
            return
        time.sleep(0.001)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, bytes_of):
    """The files of a pack that nothing interrupted."""
    folder = tmp_path_factory.mktemp("unbroken") / "dataset"
    _pack(folder)
    return bytes_of(folder)


@pytest.mark.parametrize(
    ("kill_after", "workers"),
    [(3, 2), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((0, 1), (1, 1), (9, 1), (14, 2)))],
)
def test_killed_pack_is_resumed_to_the_same_bytes(tmp_path, unbroken, kill_after, workers, bytes_of):
    folder = tmp_path / "dataset"
    _pack(folder, workers, kill_after=kill_after)
    staging = tmp_path / ".dataset.packing"
    made = {path.name: path.stat().st_mtime_ns for path in staging.glob("*.tfrecord")}
    finished = {path.name.removesuffix(".json") for path in Staging(tmp_path / "dataset").finished_shards()}
    if not folder.exists():  # the last kill may have come too late
        _pack(folder, 3 - workers)
        assert all((folder / name).stat().st_mtime_ns == made[name] for name in finished)
    assert bytes_of(folder) == unbroken
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_another_pack_does_not_go_on_with_what_a_killed_one_left(tmp_path, unbroken, bytes_of):
    folder = tmp_path / "dataset"
    _pack(folder, seed=1, kill_after=4)
    _pack(folder)
    assert bytes_of(folder) == unbroken


def test_damaged_shard_of_a_killed_pack_is_made_anew(tmp_path, unbroken, bytes_of):
    folder = tmp_path / "dataset"
    _pack(folder, kill_after=4)
    finished = sorted((tmp_path / ".dataset.packing").glob("*.tfrecord.json"))[0]
    shard = finished.with_name(finished.name.removesuffix(".json"))
    shard.write_bytes(shard.read_bytes()[:-1])
    _pack(folder)
    assert bytes_of(folder) == unbroken


def test_reports_of_finished_shards_survive_a_resume(packed, make_example, tmp_path):
    examples = [make_example(f"e{i}", image=b"?" if i % 3 == 0 else None) for i in range(60)]
    options = dataclasses.replace(ONE_SPLIT, examples_per_shard=10)
    _, whole = packed(examples, options, name="whole")

    def full_disk(name):
        raise OSError(28, "No space left on device")

    staging = Staging(tmp_path / "resumed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Staging, "publish", full_disk)
        with pytest.raises(OSError, match="No space left"):
            packed(examples, options, name="resumed")
    assert len(list(staging.path.glob("*.tfrecord.json"))) == 6
    _, resumed = packed(examples, options, name="resumed")
    assert _rejected(resumed) == _rejected(whole)
    assert len(_rejected(whole)) == 20
    info, expected = DatasetInfo.load(resumed), DatasetInfo.load(whole)
    assert (info.statistics, info.splits, info.provenance) == (expected.statistics, expected.splits, expected.provenance)


def test_second_pack_into_the_same_output_is_refused_while_the_first_runs(packed, rows, tmp_path):
    with Staging(tmp_path / "dataset"), pytest.raises(BusyError, match="another process is packing into"):
        packed(rows)


def test_killed_worker_is_an_error_that_says_so(tmp_path):
    def examples():
        yield from sample.iter_examples(300, seed=0)

    class Fatal(bytes):
        """Ends the worker process that reads it."""

        def __reduce__(self):
            return os._exit, (9,)

    bad = [dataclasses.replace(example, image=Fatal()) for example in sample.iter_examples(1, seed=1)]
    source = Source("rows", lambda: iter([*examples(), *bad]), {"title": False}, False)
    with pytest.raises(WorkerDiedError, match=r"a packing worker died \(out of memory\?\)"):
        pack(source, tmp_path / "dataset", PackOptions(workers=2), progress=False)
    assert list(tmp_path.iterdir()) == []
