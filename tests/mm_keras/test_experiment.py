import functools

import pytest

from mm_keras.data.make_features import make_features
from mm_keras.experiment import train_and_evaluate
from mm_keras.runs.evaluate import evaluate
from mm_keras.runs.export import export
from mm_keras.runs.run_folder import SavedConfig
from mm_keras.training.prepare import tell_of_absent_labels
from mm_keras.training.train import train as real_train
from tfrecords_tools.dataset.folder import Dataset
from tfrecords_tools.sources.example import SourceExample


@pytest.fixture
def calls():
    """What `train` was called with, in order."""
    return []


@pytest.fixture
def train(calls):
    return lambda **options: calls.append(options)


def test_training_is_told_which_splits_come_later(tmp_path, train, calls):
    def stop(folder, dataset=None, split="test"):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train_and_evaluate(tmp_path, train, stop, functools.partial(stop, split="val"))
    assert calls == [{"workdir": tmp_path, "later_splits": ["test", "val"]}]


def test_splits_of_another_dataset_are_not_asked_of_this_one(tmp_path, train, calls):
    train_and_evaluate(tmp_path, train, lambda folder, dataset="other", split="test": {}, export=None)
    assert calls == [{"workdir": tmp_path, "later_splits": [("other", "test")]}]


def test_dry_run_ends_after_the_main_model(tmp_path, train, calls):
    assert train_and_evaluate(tmp_path, train, None, None, baselines=("image",), dry_run=True) is None
    assert calls == [{"workdir": tmp_path, "dry_run": True, "later_baselines": ("image",)}]


def test_baselines_see_one_modality_each_and_keep_the_config(tmp_path, train, calls):
    config = SavedConfig("given", "operative")
    train_and_evaluate(tmp_path, train, None, None, baselines=("image", "title"), config=config)
    assert [call.get("modalities") for call in calls] == [None, ("image",), ("title",)]
    assert [call["workdir"].name for call in calls[1:]] == ["image", "title"]
    assert all(call["config"] == config for call in calls)


@pytest.mark.parametrize("functions", [{"evaluate": evaluate, "export": None}, {"evaluate": None, "export": export}])
def test_split_that_evaluation_or_export_lacks_is_told_before_anything_is_trained(
    tmp_path, pack_examples, train_small, functions
):
    examples = [SourceExample(f"e{i}", f"rows:{i}", texts={"title": ["a"]}, labels=["ab"[i % 2]]) for i in range(40)]
    folder = pack_examples(tmp_path / "data", examples, fractions={"train": 0.5, "val": 0.5})
    with pytest.raises(
        ValueError, match=r"no split 'test'; it has \['train', 'val'\]: evaluation and export read it .* set evaluate\.split"
    ):
        train_and_evaluate(tmp_path / "run", functools.partial(train_small, folder), **functions)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("later", "message"),
    [
        ({"later_splits": ["tset"]}, r"has no split 'tset'; it has \['train', 'val'\]"),
        (
            {"later_splits": [("{other}", "test")]},
            r"other has no split 'test'; it has \['train'\]: evaluation and export read it",
        ),
        ({"later_splits": [("{other}", "train")]}, "other has 2 multi-class labels"),
        ({"later_splits": [("nowhere", "test")]}, "'nowhere' is no dataset folder"),
        ({"val_split": "empty"}, "has no split 'empty'; .* set train.val_split to one of them, or to None"),
        ({"later_baselines": ("title", "brand")}, r"baselines has 'brand', which is no input of the model; .*\['title'\]"),
        ({"later_baselines": ("title", "title")}, "baselines has 'title', which is named twice"),
    ],
)
def test_what_follows_a_training_is_checked_before_it(tmp_path, two_datasets, later, message):
    folder, other = two_datasets
    if isinstance(first := later.get("later_splits", [""])[0], tuple):
        later = {"later_splits": [(first[0].format(other=other), first[1])]}
    features = functools.partial(make_features, image_size=None, text_fields=("title",))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        real_train(folder, tmp_path / "run", features, **{"batch_size": 4} | later)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def two_datasets(tmp_path_factory, pack_examples):
    """40 examples of the labels a and b in "train" and "val"; and 4 of the labels c and d in "train"."""
    folder = tmp_path_factory.mktemp("two")
    examples = [SourceExample(f"e{i}", f"rows:{i}", texts={"title": ["a"]}, labels=["ab"[i % 2]]) for i in range(40)]
    others = [SourceExample(f"e{i}", f"rows:{i}", texts={"title": ["a"]}, labels=["cd"[i % 2]]) for i in range(4)]
    fractions = {"train": 0.5, "val": 0.5}
    return pack_examples(folder / "data", examples, fractions=fractions), pack_examples(folder / "other", others)


def test_labels_without_an_example_are_told(capsys, tmp_path, pack_examples):
    splits = ["train", "train", "train", "val"]
    examples = [SourceExample(f"{i}", f"t:{i}", texts={"title": ["a"]}, labels=["abcb"[i]], split=splits[i]) for i in range(4)]
    dataset = Dataset.open(pack_examples(tmp_path / "ds", examples))
    tell_of_absent_labels([dataset.split("train"), dataset.split("val")])
    assert capsys.readouterr().out == "2 of 3 labels have no example in split 'val' and are not measured: 'a', 'c'\n"
