import json
import logging

import pytest

from tfrecords_tools.pack import PackOptions, pack
from tfrecords_tools.sources import sample

pytestmark = pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")  # in mlcroissant's parser


@pytest.fixture
def validate(caplog):
    """A function: a croissant.json -> mlcroissant's reading of it; its warnings, which it logs, are checked."""
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant, the format's own validator, is not installed")

    def apply(path):
        with caplog.at_level(logging.WARNING):
            dataset = mlcroissant.Dataset(jsonld=path)
        # It remarks that terms which we do not use are not in our @context, and what only the publisher can add.
        remarks = [line for message in caplog.messages for line in message.splitlines() if "-  [" in line]
        assert len(remarks) == 3
        for remark, expected in zip(sorted(remarks), ("citeAs", "datePublished", "license"), strict=True):
            assert f'{expected}" is recommended' in remark
        return dataset

    return apply


def test_croissant_is_valid_and_names_shards_splits_and_labels(tmp_path, validate):
    pack(sample.make_source(60), tmp_path / "sample", progress=False)
    dataset = validate(tmp_path / "sample" / "croissant.json")
    assert dataset.metadata.name == "sample"
    assert [file_set.includes for file_set in dataset.metadata.distribution] == [
        ["train-*.tfrecord"], ["val-*.tfrecord"], ["test-*.tfrecord"],
    ]  # fmt: skip
    labels = [row["labels/name"] for row in dataset.records("labels")]
    assert [label.decode() if isinstance(label, bytes) else label for label in labels][:2] == ["glass bottle", "glass chair"]


def test_croissant_of_an_unlabelled_dataset_with_splits_of_its_own_is_valid(tmp_path, validate, make_source, make_example):
    examples = [make_example(f"e{i}", labels=[], split="query") for i in range(3)]
    pack(make_source(examples), tmp_path / "naïve set", PackOptions(), progress=False)
    validate(tmp_path / "naïve set" / "croissant.json")
    content = json.loads((tmp_path / "naïve set" / "croissant.json").read_text("utf-8"))
    assert [record_set["name"] for record_set in content["recordSet"]] == ["splits"]
