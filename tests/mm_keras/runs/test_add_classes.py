import json
import shutil

import keras
import numpy as np
import pytest

from mm_keras.data.pipeline import make_evaluation_batches
from mm_keras.model import head
from mm_keras.objectives.losses import make_loss
from mm_keras.runs.add_classes import add_classes
from mm_keras.runs.evaluate import evaluate
from mm_keras.runs.export import export
from mm_keras.runs.predict import Predictor
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.verify import verify
from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.sources.example import SourceExample

NEW = {"wool lamp shade": "a lamp shade of knitted wool", "steel oven": "an oven of steel"}


def _write(path, texts):
    path.write_text("".join(json.dumps({"label": label, "text": text}) + "\n" for label, text in texts.items()))
    return path


@pytest.fixture(scope="module")
def more(classes_run, tmp_path_factory):
    """The run with two more classes."""
    folder = tmp_path_factory.mktemp("more")
    return add_classes(classes_run, _write(folder / "new.jsonl", NEW), folder / "run")


def _logits(folder, dataset):
    model, features = RunFolder(folder).load_model()
    inputs, _, _ = next(iter(make_evaluation_batches(Split.open(dataset, "test"), features, 16).dataset))
    return model.predict_on_batch(inputs)


def test_old_logits_stay_and_new_ones_follow(classes_run, more, multi_label_dataset):
    old, new = _logits(classes_run, multi_label_dataset), _logits(more, multi_label_dataset)
    assert new.shape == (16, old.shape[1] + 2)
    np.testing.assert_allclose(new[:, :-2], old, atol=1e-6)
    assert np.ptp(new[:, -2:], axis=0).min() > 0


def test_new_run_says_what_it_is(classes_run, more):
    _, old = RunFolder(classes_run).load_model()
    _, new = RunFolder(more).load_model()
    assert new.labels == (*old.labels, *NEW)
    assert LabelVocabulary.load(more / "labels.txt").names == list(new.labels)
    facts = RunFolder(more).facts()
    assert facts["classes_added"] == {"from": str(classes_run), "labels": list(NEW)}
    assert facts["dataset"] == RunFolder(classes_run).facts()["dataset"]


@pytest.mark.ci
def test_new_run_is_evaluated_on_the_old_dataset_and_on_one_with_the_new_classes(more, tmp_path, pack_examples):
    run = shutil.copytree(more, tmp_path / "run")
    row = evaluate(run)["rows"][-1]
    assert {"micro_f1", "tuned_micro_f1"} <= set(row)
    examples = [
        SourceExample(str(i), str(i), texts={"title": ["knitted wool"]}, labels=["steel oven", "wool"], split="test")
        for i in range(4)
    ]
    labels = LabelVocabulary.load(run / "labels.txt")
    dataset = pack_examples(tmp_path / "new", examples, ("title", "description"), multi_label=True, labels=labels)
    assert evaluate(run, dataset)["num_examples"] == 4


@pytest.mark.slow
def test_new_run_is_exported_as_the_next_version_of_the_old_one(classes_run, more, tmp_path):
    served = RunFolder(shutil.copytree(classes_run, tmp_path / "served"))
    (served.export / "3").mkdir(parents=True)
    folder = export(more, version_of=served.path)
    assert folder == served.export / "4"
    assert (folder / "assets.extra" / "labels.txt").read_text().splitlines()[-2:] == list(NEW)
    assert "base_path" in (served.export / "models.config").read_text()
    assert not RunFolder(more).export.exists()


def test_every_file_of_the_new_run_stands_in_its_checksums(more):
    assert verify(more) == []


def test_new_run_answers_with_the_new_classes(more, tmp_path):
    run = shutil.copytree(more, tmp_path / "run")
    thresholds = json.loads((run / "thresholds.json").read_text())
    assert not set(NEW) & set(thresholds["thresholds"])  # never tuned: 0.5
    thresholds["thresholds"] |= dict.fromkeys(NEW, 1e-6)
    write_text(run / "thresholds.json", json.dumps(thresholds))
    predictor = Predictor(run)
    (answer,) = predictor([predictor.read({"title": "oak"})])
    assert answer["predicted"][-2:] == list(NEW)


@pytest.mark.ci
def test_classes_are_added_by_pictures_of_them(classes_run, multi_label_dataset, read_split, tmp_path):
    pictures = [record.image for record in read_split(multi_label_dataset, "test") if record.image][:4]
    for number, encoded in enumerate(pictures):
        folder = tmp_path / "pictures" / ("first" if number < 3 else "second")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(encoded)
    run = add_classes(classes_run, tmp_path / "pictures", tmp_path / "run")
    predictor = Predictor(run)
    assert predictor.features.labels[-2:] == ("first", "second")
    scores = predictor.probabilities([predictor.read({"image": encoded}) for encoded in pictures])
    assert scores[3].argmax() == len(predictor.features.labels) - 1  # the very picture
    assert verify(run) == []
    third = add_classes(run, _write(tmp_path / "third.jsonl", {"third": "a glass"}), tmp_path / "third")
    assert Predictor(third).features.labels[-3:] == ("first", "second", "third")


@pytest.mark.parametrize(("content", "message"), [(None, "holds no picture of the class 'new'"), (b"no picture", "a.jpg")])
def test_folder_without_pictures_or_with_bad_ones_is_an_error(classes_run, tmp_path, content, message):
    (tmp_path / "pictures" / "new").mkdir(parents=True)
    if content:
        (tmp_path / "pictures" / "new" / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        add_classes(classes_run, tmp_path / "pictures", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_further_classes_can_be_added_to_the_new_run(more, tmp_path):
    again = add_classes(more, _write(tmp_path / "third.jsonl", {"third": "a glass"}), tmp_path / "again")
    model, features = RunFolder(again).load_model()
    assert features.labels[-3:] == (*NEW, "third")
    assert model.output.shape[1] == len(features.labels)
    texts = (again / "class_encoder" / "class_descriptions.jsonl").read_text().splitlines()
    assert [json.loads(line)["label"] for line in texts] == list(features.labels)


@pytest.mark.parametrize(
    ("texts", "message"),
    [({"lamp": "a lamp"}, "'lamp' is a class already"), ({"new": " "}, "'new' has no text"), ({}, "it holds no class")],
)
def test_classes_that_cannot_be_added_are_errors_and_leave_nothing(classes_run, tmp_path, texts, message):
    with pytest.raises(ValueError, match=rf"new\.jsonl: {message}"):
        add_classes(classes_run, _write(tmp_path / "new.jsonl", texts), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_run_with_another_head_and_a_taken_folder_are_errors(classes_run, trained_run, tmp_path):
    new = _write(tmp_path / "new.jsonl", NEW)
    with pytest.raises(ValueError, match=r"has no class-embedding head; train one with build_two_tower\.head"):
        add_classes(trained_run, new, tmp_path / "out")
    with pytest.raises(FileExistsError, match="already holds a run"):
        add_classes(classes_run, new, trained_run)


def test_head_and_embeddings_need_each_other(make_spec, build_small_model):
    with pytest.raises(ValueError, match=r"bind train\.embed_classes = @embed_classes"):
        build_small_model(make_spec(), head=head.build_class_embedding_head)
    with pytest.raises(ValueError, match=r"bind build_two_tower\.head = @build_class_embedding_head"):
        build_small_model(make_spec(), class_embeddings=np.eye(4))


def test_class_that_was_never_trained_is_recognised_by_its_embedding():
    """A class is a pair of properties. Its embedding is the sum of theirs, so eight pairs of 3 x 3 teach the ninth."""
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    parts, seen = rng.normal(size=(2, 3, 16)), rng.normal(size=(6, 20))
    pairs = [(first, second) for first in range(3) for second in range(3)]
    embeddings = np.array([parts[0, first] + parts[1, second] for first, second in pairs])
    ids = rng.integers(0, 9, 900)
    examples = np.array([seen[pairs[i][0]] + seen[3 + pairs[i][1]] for i in ids]) + rng.normal(0, 0.5, (900, 20))
    examples, old = examples.astype("float32"), ids < 8
    model = head.build_class_embedding_head(20, 8, embeddings[:8])
    model = keras.Model(model.input, model(model.input))
    model.compile(keras.optimizers.Adam(0.01), make_loss(False), jit_compile=False)
    model.fit(examples[old], ids[old], epochs=8, verbose=0)
    answers = head.add_classes(model, embeddings[8:]).predict(examples, verbose=0).argmax(axis=1)
    assert (answers[~old] == 8).mean() > 0.8
    assert (answers[old] == ids[old]).mean() > 0.9
