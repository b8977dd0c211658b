import errno
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from mm_keras.data.stored_blocks import StoredRows, fill_blocks

SIZES = {"a": 3, "b": 2, "c": 4}
VALUES = {name: np.arange(size * 2, dtype="float32").reshape(size, 2) + 100 * size for name, size in SIZES.items()}


def _make(block, new):
    new.write(slice(0, 1), {"x": VALUES[block][:1]})
    backwards = np.arange(1, SIZES[block])[::-1]
    new.write(backwards, {"x": VALUES[block][backwards]})


def _rows(paths):
    return StoredRows([path / "x.npy" for path in paths])


def test_rows_of_all_blocks_are_one_array(tmp_path):
    rows = _rows(fill_blocks(tmp_path / "cache", SIZES, _make, "filling"))
    whole = np.concatenate(list(VALUES.values()))
    assert (rows.shape, rows.dtype, len(rows)) == ((9, 2), np.float32, 9)
    np.testing.assert_array_equal(rows.take(np.array([8, 0, 3, 3, -1])), whole[[8, 0, 3, 3, -1]])
    alone = StoredRows([tmp_path / "cache" / "c" / "x.npy"])
    np.testing.assert_array_equal(alone.take(np.array([3, -1])), VALUES["c"][[3, 3]])


def test_filling_goes_on_where_a_killed_process_stopped(tmp_path):
    script = """
import sys, time
from pathlib import Path
import numpy as np
from mm_keras.data.stored_blocks import fill_blocks
def make(block, new):
    new.write(slice(0, 1), {"x": np.ones((1, 2), "float32")})
    if block == "b":
        print("in b", flush=True)
        time.sleep(60)
    new.write(slice(1, None), {"x": np.ones((2, 2), "float32")})
fill_blocks(Path(sys.argv[1]), {"a": 3, "b": 3, "c": 3}, make, "filling")
"""
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path / "cache"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in b\n"
    process.kill()
    process.communicate()
    assert (tmp_path / "cache" / ".b.unfinished").is_dir()
    made = []

    def make(block, new):
        made.append(block)
        new.write(slice(None), {"x": np.zeros((3, 2), "float32")})

    rows = _rows(fill_blocks(tmp_path / "cache", {"a": 3, "b": 3, "c": 3}, make, "filling"))
    assert made == ["b", "c"]
    np.testing.assert_array_equal(rows.take(np.arange(9))[:, 0], [1] * 3 + [0] * 6)
    assert not list((tmp_path / "cache").glob("*.unfinished"))


def test_several_that_fill_at_once_share_the_work(tmp_path):
    made, paths = [], []

    def make(block, new):
        made.append(block)
        time.sleep(0.2)
        _make(block, new)

    threads = [
        threading.Thread(target=lambda: paths.append(fill_blocks(tmp_path / "cache", SIZES, make, "filling"))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == ["a", "b", "c"]
    for each in paths:
        np.testing.assert_array_equal(_rows(each).take(np.arange(9)), np.concatenate(list(VALUES.values())))
    assert len(paths) == 3


def test_full_disk_is_told_before_anything_is_computed_and_leaves_no_block(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"the disk is full.*make room there, or set train.cache_frozen = False"):
        fill_blocks(tmp_path / "cache", SIZES, _make, "filling")
    assert [path.name for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".lock")] == []


def test_block_that_fails_leaves_nothing_and_those_before_it_stay(tmp_path):
    def make(block, new):
        _make(block, new)
        if block == "b":
            raise MemoryError("no room")

    with pytest.raises(MemoryError):
        fill_blocks(tmp_path / "cache", SIZES, make, "filling")
    assert [path.name for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".lock")] == ["a"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda block: (block / "x.npy").write_bytes((block / "x.npy").read_bytes()[:-4] + b"\0\0\0\0"),
        lambda block: (block / "x.npy").write_bytes((block / "x.npy").read_bytes()[:-4]),
        lambda block: (block / "x.npy").unlink(),
        lambda block: (block / "checksums.json").unlink(),
        lambda block: (block / "checksums.json").write_text("{}"),
    ],
    ids=["zeros", "cut", "gone", "of an older version", "other checksums"],
)
def test_damaged_block_is_computed_anew(tmp_path, damage, capsys):
    fill_blocks(tmp_path, SIZES, _make, "filling")
    damage(tmp_path / "b")
    made = []
    paths = fill_blocks(tmp_path, SIZES, lambda block, new: (made.append(block), _make(block, new)), "filling")
    assert made == ["b"]
    np.testing.assert_array_equal(_rows(paths).take(np.arange(9)), np.concatenate(list(VALUES.values())))
    assert f"{tmp_path / 'b'} is damaged" in capsys.readouterr().out


def test_block_with_rows_that_were_not_computed_is_not_kept(tmp_path):
    with pytest.raises(RuntimeError, match="1 rows were computed for the 3 of block"):
        fill_blocks(tmp_path, {"a": 3}, lambda block, new: new.write(slice(0, 1), {"x": np.ones((1, 2))}), "filling")
    assert not (tmp_path / "a").exists()
