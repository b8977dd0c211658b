"""JSON of others that no parser takes: it is that item's record, and never ends the work on the others."""

import json

import pytest

from tfrecords_tools.sources.files import SourceError, parse_json, read_class_texts
from tfrecords_tools.sources.json_stream import iter_json
from tfrecords_tools.sources.webvision_metadata import load_entries

BAD = {
    "100,000 brackets": "[" * 100_000 + "]" * 100_000,
    "100,000 open brackets": '{"a":' * 100_000,
    "900 brackets, which Python can parse and nothing can walk": "[" * 900 + "]" * 900,
    "a number of 5,000 digits": "9" * 5_000,
    "cut off": '{"label": "a", "te',
    "not JSON": "label,text",
}


@pytest.mark.parametrize("name", BAD)
def test_it_is_a_value_error(name):
    for text in (BAD[name], BAD[name].encode()):
        with pytest.raises(ValueError, match=r"."):
            parse_json(text)


def test_brackets_in_texts_do_not_count():
    text = json.dumps({"title": "[" * 500 + '\\"{', "deep": [[["x"]]], "others": [[]] * 500})
    assert parse_json(text)["title"].startswith("[[")


@pytest.mark.parametrize("name", BAD)
def test_text_of_a_class_is_left_out_and_the_others_are_read(tmp_path, name):
    path = tmp_path / "texts.jsonl"
    path.write_text(f'{{"label": "a", "text": "one"}}\n{BAD[name]}\n{{"label": "b", "text": "two"}}\n')
    texts, problems = read_class_texts(path, ("label", "text"), {})
    assert texts == {"a": "one", "b": "two"}
    assert [where for where, _ in problems] == ["texts.jsonl:2"]


@pytest.mark.parametrize("name", BAD)
def test_metadata_of_webvision_is_a_problem_of_that_file(tmp_path, name):
    (tmp_path / "q0001.json").write_text(BAD[name])
    entries, problem = load_entries(tmp_path / "q0001.json", "google/q0001.json")
    assert entries == []
    assert problem.startswith("broken metadata: google/q0001.json")


@pytest.mark.parametrize("name", BAD)
def test_large_file_is_named(tmp_path, name):
    path = tmp_path / "instances.json"
    path.write_text(f'{{"images": [{{"id": 1}}, {BAD[name]}]}}')
    with pytest.raises(SourceError, match=rf"{path} is no JSON: "):
        list(iter_json(path))
