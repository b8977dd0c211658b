import shutil

import numpy as np
import pytest

from mm_keras.data.pipeline import make_evaluation_batches
from mm_keras.runs.encode_split import encode_split
from mm_keras.runs.run_folder import RunFolder
from tfrecords_tools.dataset.folder import Split


@pytest.fixture(scope="module")
def run(trained_run):
    return RunFolder(trained_run)


@pytest.fixture(scope="module")
def loaded(run):
    return run.load_model()


def _logits(model, features, split, batch_size=64):
    batches = make_evaluation_batches(split, features, batch_size)
    logits = np.concatenate([model.predict_on_batch(inputs) for inputs, _, _ in batches.dataset])
    return logits[: batches.num_examples]


def test_what_is_behind_the_encoders_answers_as_the_whole_model(run, loaded, dataset):
    model, features = loaded
    split = Split.open(dataset, "test")
    (inputs,), labels, behind = encode_split(run, model, features, split, batch_size=16)
    assert {f"{modality}_present" for modality in features.modalities} <= set(inputs)
    assert all(len(values) == len(labels) for values in inputs.values())
    np.testing.assert_allclose(behind.predict(inputs, verbose=0), _logits(model, features, split), rtol=1e-4, atol=1e-5)


def test_labels_are_those_of_the_split_without_filling(run, loaded, dataset):
    split = Split.open(dataset, "val")
    batches = make_evaluation_batches(split, loaded[1], 64)
    expected = np.concatenate([labels.numpy() for _, labels, _ in batches.dataset])[: batches.num_examples]
    labels = encode_split(run, *loaded, split, batch_size=7)[1]
    np.testing.assert_array_equal(labels, expected)


def test_each_further_text_of_a_field_is_encoded_too(run, loaded, dataset):
    inputs, labels, _ = encode_split(run, *loaded, Split.open(dataset, "val"), texts_per_field=2)
    assert len(inputs) == 2
    assert all(len(values) == len(labels) for texts in inputs for values in texts.values())


def test_frozen_encoders_are_run_once_and_kept_beside_the_dataset(run, loaded, dataset, tmp_path, monkeypatch):
    """The run is described as one whose encoders were all frozen."""
    model, features = run.load_model()  # encode_split freezes it
    folder = shutil.copytree(dataset, tmp_path / "data")
    before = set(folder.rglob("*"))
    monkeypatch.setattr(RunFolder, "facts", lambda self: {"frozen": list(features.modalities)})
    split = Split.open(folder, "val")
    (inputs,), _, behind = encode_split(run, model, features, split)
    assert set(folder.rglob("*")) > before
    np.testing.assert_allclose(behind.predict(inputs, verbose=0), _logits(*loaded, split), rtol=1e-4, atol=1e-5)


def test_dataset_with_other_labels_is_refused(run, loaded, tmp_path, pack_examples):
    from tfrecords_tools.sources.example import SourceExample

    texts = {"title": ["oak mug"], "description": ["a mug"]}
    examples = [SourceExample(str(index), "", texts=texts, labels=["another"]) for index in range(3)]
    folder = pack_examples(tmp_path / "other", examples, text_fields=("title", "description"))
    with pytest.raises(ValueError, match="labels"):
        encode_split(run, *loaded, Split.open(folder, "train"))
