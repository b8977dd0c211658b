import os
import stat
from pathlib import Path

import pytest

from tfrecords_tools.dataset.atomic_file import atomic_file, write_text


def test_file_gets_its_name_when_it_is_complete(tmp_path):
    path = tmp_path / "facts.json"
    path.write_text("old")
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert (path.read_text(), temporary.suffix, temporary.parent) == ("old", ".json", tmp_path)
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["facts.json"]


def test_content_is_on_the_disk_before_the_file_gets_its_name(tmp_path, monkeypatch):
    calls = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: calls.append(stat.S_ISDIR(os.fstat(file).st_mode)) or sync(file))
    monkeypatch.setattr(Path, "replace", lambda path, target: calls.append(target.name) or replace(path, target))
    write_text(tmp_path / "facts.json", "new")
    assert calls == [False, "facts.json", True]  # the file, its new name, the folder


def test_error_keeps_the_older_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "facts.json"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as temporary:
        temporary.write_text("half")
        1 / 0  # noqa: B018
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["facts.json"]


def test_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match="could not be written") as caught:
        write_text(tmp_path / "none" / "facts.json", "new")
    assert caught.value.filename == str(tmp_path / "none" / "facts.json")
