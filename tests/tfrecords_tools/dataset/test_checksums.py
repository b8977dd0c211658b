import random
import shutil
import subprocess

import pytest

from tfrecords_tools.dataset.atomic_file import write_bytes, write_text
from tfrecords_tools.dataset.checksums import (
    CHECKSUMS_FILE,
    DamagedFileError,
    begin,
    check,
    enter,
    find_problems,
    forget,
    read_json,
)
from tfrecords_tools.dataset.publish import publish

NAMES = ("facts.json", "part/words.txt", "part/a\\n b\r\n  c.txt")


@pytest.fixture
def folder(tmp_path):
    """A folder that keeps the checksums of three files, one of which has a name that needs escaping."""
    (tmp_path / "kept" / "part").mkdir(parents=True)
    begin(tmp_path / "kept", "mm-keras verify")
    for name in NAMES:
        write_text(tmp_path / "kept" / name, f'{{"name": "{len(name)}"}}')
    return tmp_path / "kept"


def test_what_was_written_is_whole(folder):
    assert find_problems(folder) == []
    check(folder / "facts.json", folder / "part")
    assert read_json(folder / "facts.json") == {"name": "10"}


def test_every_bit_of_every_file_counts(folder):
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        for place in random.Random(0).sample(range(8 * len(whole)), min(8 * len(whole), 300)):
            flipped = bytearray(whole)
            flipped[place // 8] ^= 1 << place % 8
            path.write_bytes(flipped)
            problems = find_problems(folder)
            assert len(problems) == 1
            assert problems[0].startswith(f"{path.relative_to(folder).as_posix()}: is damaged")
            with pytest.raises(DamagedFileError, match=r"is damaged: .*`.*verify.* --accept`"):
                check(folder / "facts.json", folder / "part")
        path.write_bytes(whole)
    assert find_problems(folder) == []


@pytest.mark.parametrize("size", [0, 10, 70])
@pytest.mark.parametrize("name", ["facts.json", CHECKSUMS_FILE])
def test_file_that_is_cut_off_is_named(folder, name, size):
    path = folder / name
    path.write_bytes(path.read_bytes()[: min(size, path.stat().st_size - 1)])
    with pytest.raises(DamagedFileError, match=rf"{folder}/{name} is damaged"):
        read_json(folder / "facts.json")
    assert find_problems(folder)[0].startswith(f"{name}: is damaged")


def test_file_that_is_gone_is_named_and_one_that_was_deleted_is_not(folder):
    (folder / "facts.json").unlink()
    with pytest.raises(DamagedFileError, match=r"facts\.json is missing, though checksums\.sha256 lists it"):
        read_json(folder / "facts.json")
    forget(folder / "facts.json")
    assert find_problems(folder) == []


def test_other_programs_can_check_the_folder(folder):
    if not shutil.which("sha256sum"):
        pytest.skip("no sha256sum on this system")
    assert subprocess.run(["sha256sum", "--check", "--strict", CHECKSUMS_FILE], cwd=folder, check=False).returncode == 0


@pytest.mark.parametrize("published", [False, True])
def test_process_may_be_killed_while_a_file_is_replaced(folder, monkeypatch, published):
    class Killed(BaseException):
        pass

    def killed(temporary, path):
        if published:
            publish(temporary, path)
        raise Killed

    for name in ("facts.json", "new.json"):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr("tfrecords_tools.dataset.atomic_file.publish", killed)
            write_text(folder / name, "{}")
        assert find_problems(folder) == []
        assert (folder / name).exists() == (published or name == "facts.json")
    write_text(folder / "facts.json", "[]")
    assert find_problems(folder) == []


def test_files_by_other_means_are_entered_when_that_is_said(folder):
    (folder / "copies").mkdir()
    (folder / "copies" / "a").write_text("a")
    assert find_problems(folder) == []
    enter(folder / "copies")
    (folder / "copies" / "a").write_text("b")
    assert find_problems(folder) == ["copies/a: is damaged: its sha256 is not the one in checksums.sha256"]


@pytest.mark.parametrize("name", [".cache/block.npy", "unfinished-x/a", "inner/a"])
def test_caches_unfinished_files_and_folders_with_checksums_of_their_own_are_left_out(folder, name):
    path = folder / name
    path.parent.mkdir()
    if name.startswith("inner"):
        begin(path.parent, "mm-keras verify")
    before = (folder / CHECKSUMS_FILE).read_bytes()
    write_bytes(path, b"content")
    assert (folder / CHECKSUMS_FILE).read_bytes() == before
    assert (path.parent / CHECKSUMS_FILE).is_file() == name.startswith("inner")


def test_checksums_of_another_program_are_left_alone(tmp_path):
    (tmp_path / CHECKSUMS_FILE).write_text(f"{'0' * 64}  other.bin\n")
    write_text(tmp_path / "run.json", "{}")
    assert (tmp_path / CHECKSUMS_FILE).read_text() == f"{'0' * 64}  other.bin\n"
    assert read_json(tmp_path / "run.json") == {}
