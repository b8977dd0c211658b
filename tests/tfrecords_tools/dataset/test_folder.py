import pytest

from tfrecords_tools.dataset.folder import Dataset, Split


def test_split_tells_its_files_and_counts(dataset):
    split = Split.open(dataset, "train")
    assert [path.parent for path in split.files] == [dataset, dataset]
    assert all(path.is_file() for path in split.files)
    assert (split.num_examples, split.num_labelled, split.label_counts) == (20, 20, [10, 10])


def test_opened_dataset_is_not_read_again(dataset):
    opened = Dataset.open(dataset)
    (dataset / "dataset.json").unlink()
    assert Dataset.open(opened) is opened
    assert opened.split("test").num_examples == 10


def test_unknown_split_is_an_error_that_lists_the_splits(dataset):
    with pytest.raises(ValueError, match=r"no split 'dev'; it has \['test', 'train'\]"):
        Dataset.open(dataset).split("dev")


def test_examples_without_a_label_count_only_in_multi_label_data(packed, make_example):
    examples = [make_example(f"e{i}", labels=["a"] if i % 2 else []) for i in range(10)]
    _, single = packed(examples)
    _, several = packed(examples, name="several", multi_label=True)
    assert [Split.open(folder, "train").num_labelled for folder in (single, several)] == [5, 10]
