import json

import pytest

from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.info import DatasetInfo


def _change(folder, **content):
    path = folder / "dataset.json"
    write_text(path, json.dumps(json.loads(path.read_text("utf-8")) | content))


def test_folder_without_a_description_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no dataset folder, or its packing did not finish.*tfrecords-tools pack"):
        DatasetInfo.load(tmp_path)


@pytest.mark.parametrize("version", [99, 0, "1", None])
def test_other_schema_version_is_refused_by_name_with_what_to_do(dataset, version):
    _change(dataset, schema_version=version)
    message = (
        rf"dataset\.json has schema_version {version!r}; this version reads 1\. Pack the dataset again: tfrecords-tools pack"
    )
    with pytest.raises(ValueError, match=message):
        DatasetInfo.load(dataset)


def test_description_that_is_no_object_has_no_version(dataset):
    write_text(dataset / "dataset.json", "[]")
    with pytest.raises(ValueError, match=r"dataset\.json has schema_version None; this version reads 1"):
        DatasetInfo.load(dataset)


def test_damaged_description_is_named(dataset):
    write_text(dataset / "dataset.json", '{"schema_version": 1,')
    with pytest.raises(ValueError, match=r"dataset\.json is not JSON: "):
        DatasetInfo.load(dataset)


def test_vocabulary_that_was_changed_after_packing_is_told(dataset):
    write_text(dataset / "labels.txt", "a\nb\nc\n")
    with pytest.raises(ValueError, match=r"labels\.txt has 3 names, dataset\.json says 2"):
        DatasetInfo.load(dataset)


def test_unknown_split_is_named_with_those_there_are(dataset):
    with pytest.raises(ValueError, match=r"no split 'dev'; it has \['test', 'train'\]"):
        DatasetInfo.load(dataset).shards("dev")


def test_derived_texts_stay_marked(dataset):
    _change(dataset, text_fields={"title": {"derived_from_label": False}, "about": {"derived_from_label": True}})
    assert DatasetInfo.load(dataset).text_fields == {"title": False, "about": True}


def test_saving_a_loaded_description_changes_nothing(dataset):
    before = (dataset / "dataset.json").read_bytes()
    DatasetInfo.load(dataset).save(dataset)
    assert (dataset / "dataset.json").read_bytes() == before
    assert not list(dataset.glob("unfinished-*"))
