import json

import pytest

from tfrecords_tools.sources.files import SourceError
from tfrecords_tools.sources.json_stream import iter_json


@pytest.mark.parametrize("indent", [None, 2])
def test_json_is_read_item_by_item(write, indent):
    content = {"info": {"y": [1, "]"]}, "images": [{"id": 9, "name": 'a"b,é\u2028'}, {"id": 123}], "none": [], "n": 12.5}
    path = write("c.json", json.dumps(content, indent=indent))
    expected = [("info", content["info"]), *(("images", item) for item in content["images"]), ("n", 12.5)]
    assert list(iter_json(path)) == expected
    listed = [{"a": 1}, [2], "x", 345]
    assert list(iter_json(write("l.json", json.dumps(listed, indent=indent)))) == [("", item) for item in listed]


def test_empty_json_containers_have_no_items(write):
    assert [list(iter_json(write("c.json", text))) for text in ("[]", "{}", "\ufeff[ ]\n")] == [[], [], []]


def test_json_items_are_handed_on_while_the_file_is_read(write):
    path = write("c.json", '[{"a": 1}, {"a": 2}, ' + " " * 200_000 + "broken")
    items = iter_json(path)
    assert [next(items), next(items)] == [("", {"a": 1}), ("", {"a": 2})]
    with pytest.raises(SourceError, match=r"c\.json is no JSON"):
        next(items)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "premature EOF"),
        ("<html>", "invalid char in json text. <html>"),
        ('"a"', "expected a list or an object"),
        ('[{"a": 1}, {"a": ', "premature EOF"),
        ('[{"a": 1} {"a": 2}]', r"after array element.* \[{\"a\": 1} {\"a\": 2}\]"),
        ('{"images": [1, 2]', "premature EOF"),
        ('{"images" [1]}', r"separated by a colon .* {\"images\" \[1\]}"),
        ("[1] x", "trailing garbage"),
    ],
)
def test_broken_json_names_the_file_and_the_place(write, text, message):
    with pytest.raises(SourceError, match=rf"c\.json is no JSON: .*{message}"):
        list(iter_json(write("c.json", text)))
