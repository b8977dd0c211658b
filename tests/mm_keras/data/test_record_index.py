import itertools
import shutil

import pyarrow.parquet
import pytest

from mm_keras.data.record_index import read_index
from tfrecords_tools.dataset.checksums import CHECKSUMS_FILE
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.sources.example import SourceExample


@pytest.fixture(scope="module")
def pack_labels(tmp_path_factory, pack_examples):
    """A function: labels of each example -> a dataset of them, in files of two."""

    def make(labels_of_examples, multi_label):
        examples = [
            SourceExample(f"record {index}", "", texts={"title": [f"text {index}"]}, labels=labels)
            for index, labels in enumerate(labels_of_examples)
        ]
        folder = tmp_path_factory.mktemp("index") / "packed"
        return pack_examples(folder, examples, multi_label=multi_label, examples_per_shard=2)

    return make


def _titles(table):
    return [texts[0].decode() if isinstance(texts[0], bytes) else texts[0] for texts in table["text/title"].to_pylist()]


def test_rows_are_the_labelled_records_in_the_order_of_the_files(pack_labels):
    split = Split.open(pack_labels([["a"], ["b"], [], ["a"], ["c"]], multi_label=False), "train")
    table, counts = read_index(split, ["label/ids", "text/title"])
    assert sorted(_titles(table)) == ["text 0", "text 1", "text 3", "text 4"]
    assert all(len(ids) == 1 for ids in table["label/ids"].to_pylist())
    titles, files = iter(_titles(table)), [path.replace(".tfrecord", ".parquet") for path in (s.file for s in split.shards)]
    for file, count in zip(files, counts, strict=True):
        whole = _titles(pyarrow.parquet.read_table(split.dataset.folder / "index" / file))
        assert list(itertools.islice(titles, count)) == [title for title in whole if title != "text 2"]
    assert next(titles, None) is None


def test_records_without_a_label_count_in_multi_label_data(pack_labels):
    split = Split.open(pack_labels([["a", "b"], [], ["b"]], multi_label=True), "train")
    table, counts = read_index(split, ["label/ids"])
    assert sorted(map(len, table["label/ids"].to_pylist())) == [0, 1, 2]
    assert sum(counts) == 3


def test_only_the_columns_that_are_asked_for_are_read(pack_labels):
    split = Split.open(pack_labels([["a"], ["b"]], multi_label=False), "train")
    assert read_index(split, ["label/ids"])[0].column_names == ["label/ids"]


def test_dataset_without_an_index_is_to_be_packed_again(tmp_path, pack_labels):
    folder = shutil.copytree(pack_labels([["a"], ["b"]], multi_label=False), tmp_path / "packed")
    shutil.rmtree(folder / "index")
    (folder / CHECKSUMS_FILE).unlink()  # which such a dataset does not have either
    with pytest.raises(FileNotFoundError, match=r"index.*\.parquet does not exist: pack the dataset again"):
        read_index(Split.open(folder, "train"), ["label/ids"])
