import json
import logging

import pytest

from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.sources import sample

pytestmark = [  # of mlcroissant's own code
    pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame:DeprecationWarning"),
]


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
        ["train-*.tfrecord"], ["val-*.tfrecord"], ["test-*.tfrecord"], ["index/*.parquet"],
    ]  # fmt: skip
    labels = [row["labels/name"] for row in dataset.records("labels")]
    assert [label.decode() if isinstance(label, bytes) else label for label in labels][:2] == ["glass bottle", "glass chair"]


def test_croissant_of_an_unlabelled_dataset_with_splits_of_its_own_is_valid(tmp_path, validate, make_source, make_example):
    examples = [make_example(f"e{i}", labels=[], split="query") for i in range(3)]
    pack(make_source(examples), tmp_path / "naïve set", PackOptions(), progress=False)
    validate(tmp_path / "naïve set" / "croissant.json")
    content = json.loads((tmp_path / "naïve set" / "croissant.json").read_text("utf-8"))
    assert [record_set["name"] for record_set in content["recordSet"]] == ["splits", "records"]


def test_croissant_reads_the_records_from_the_index(tmp_path, validate, make_source, make_example, small_jpeg):
    examples = [
        make_example("a", image=small_jpeg, texts={"title": ["one", "two"]}, labels=["x", "y"], split="train"),
        make_example("b", texts={"title": ["three"]}, labels=["y"], split="train", weight=0.5),
        make_example("c", image=small_jpeg, texts={}, labels=[], split="test"),
    ]
    pack(make_source(examples, multi_label=True), tmp_path / "set", progress=False)
    records = {row["records/id"].decode(): row for row in validate(tmp_path / "set" / "croissant.json").records("records")}
    assert records["a"]["records/text/title"] == [b"one", b"two"]
    assert records["a"]["records/labels"] == [b"x", b"y"]
    assert (records["b"]["records/weight"], records["b"]["records/image/height"]) == (0.5, 0)
    assert (records["c"]["records/split"], records["c"]["records/text/title"]) == (b"test", [])
    assert records["c"]["records/shard"] == b"test-00000-of-00001.tfrecord"
