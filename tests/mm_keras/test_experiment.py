import functools

import pytest

from mm_keras.experiment import train_and_evaluate
from mm_keras.runs.evaluate import evaluate
from mm_keras.runs.export import export
from mm_keras.runs.run_folder import SavedConfig
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
    assert calls == [{"workdir": tmp_path}]


def test_dry_run_ends_after_the_main_model(tmp_path, train, calls):
    assert train_and_evaluate(tmp_path, train, None, None, baselines=("image",), dry_run=True) is None
    assert calls == [{"workdir": tmp_path, "dry_run": True}]


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
