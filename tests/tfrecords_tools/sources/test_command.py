from pathlib import Path

import pytest

from tfrecords_tools.sources.command import comma_list, find_commands, split_paths


def test_commands_are_found_in_the_modules_of_the_formats():
    names = [command.name for command in find_commands()]
    assert names == sorted(names)
    assert {"table", "image_folder", "webvision", "coco", "sample"} <= set(names)
    assert "files" not in names


def test_paths_are_given_by_split():
    assert split_paths(["train=a.json", "b.json"]) == {"train": Path("a.json"), "": Path("b.json")}
    assert split_paths([]) == {}


@pytest.mark.parametrize(("pairs", "split"), [(["val=a", "val=b"], "'val'"), (["a", "b"], "'any split'")])
def test_two_paths_of_a_split_are_an_error(pairs, split):
    with pytest.raises(ValueError, match=rf"given twice for {split}: a and b"):
        split_paths(pairs)


@pytest.mark.parametrize(
    ("text", "parts"), [("a, b", ("a", "b")), ("", ()), (" , a,", ("a",)), ('"Size, colour", b', ("Size, colour", "b"))]
)
def test_comma_list_leaves_empty_parts_out(text, parts):
    assert comma_list(text) == parts
