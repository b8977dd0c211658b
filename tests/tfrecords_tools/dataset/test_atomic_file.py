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
