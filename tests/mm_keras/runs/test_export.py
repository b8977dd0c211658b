import base64
import errno
import gc
import json
import shutil
import subprocess
import sys
import weakref
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from mm_keras.data.pipeline import make_evaluation_batches
from mm_keras.data.preprocess import Preprocessor
from mm_keras.features import FeatureSpec
from mm_keras.objectives.metrics import probabilities_of
from mm_keras.runs.export import export, staging_folder
from mm_keras.runs.parity import ParityError
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.serving import ServingModule
from mm_keras.runs.verify import verify
from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.checksums import load
from tfrecords_tools.dataset.folder import Split

# What a client has: nothing but TensorFlow, strings and bytes by name. Asks 7 examples at once, then the first alone.
CLIENT = """
import base64, json, sys
request = json.load(sys.stdin)
import tensorflow as tf
import tensorflow_text
answers = {}
for name, (folder, inputs) in request.items():
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    inputs = {key: tf.constant([base64.b64decode(value) for value in values]) for key, values in inputs.items()}
    whole = serve(**inputs)
    first = serve(**{key: value[:1] for key, value in inputs.items()})
    answers[name] = {
        "scores": whole["scores"].numpy().tolist(),
        "first": first["scores"].numpy().tolist(),
        "labels": [[label.decode() for label in row] for row in whole["labels"].numpy()],
        "probabilities": whole["probabilities"].numpy().tolist(),
        "error": [error.decode() for error in whole["error"].numpy()],
    }
assert "mm_keras" not in sys.modules and "keras_hub" not in sys.modules
json.dump(answers, sys.stdout)
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory, trained_run):
    """(run folder, exported folder) of the model with words, in a folder with versions and foreign things."""
    run = shutil.copytree(trained_run, tmp_path_factory.mktemp("exports") / "run")
    for name in ("1", "7", "unfinished-x", "backup"):
        (run / "export" / name).mkdir(parents=True)
    RunFolder(run).report.mkdir(exist_ok=True)
    write_text(RunFolder(run).card, "# A model\n")
    return run, export(run)


def test_model_card_travels_with_the_export(exported):
    assert (exported[1] / "assets.extra" / "MODEL_CARD.md").read_text() == "# A model\n"


def _write(run, folder):
    """Writes what `export` writes, without its own comparison in a process of its own: the client here compares."""
    model, features = RunFolder(run).load_model()
    module = ServingModule(model, features)
    tf.saved_model.save(module, str(folder), signatures=module.signature())
    (folder / "assets.extra").mkdir()
    features.save(folder / "assets.extra", with_models=False)
    return run, folder


@pytest.fixture(scope="module")
def exported_bert(tmp_path_factory, bert_run):
    return _write(bert_run, tmp_path_factory.mktemp("exports") / "bert")


@pytest.fixture(scope="module")
def exported_captions(tmp_path_factory, caption_run):
    return _write(caption_run, tmp_path_factory.mktemp("exports") / "captions")


@pytest.fixture(scope="module")
def examples(dataset, read_split):
    """Seven test examples as a client would send them; the second has no image, the third no text, the fourth nothing."""
    records = read_split(dataset, "test")[:7]
    raw = {"image": [record.image for record in records]}
    for field in ("title", "description"):
        raw[field] = [(record.texts[field] or ("",))[0].encode() for record in records]
    raw["image"][1] = b""
    raw["title"][2] = raw["description"][2] = b""
    for values in raw.values():
        values[3] = b""
    return raw


@pytest.fixture(scope="module")
def answers(exported, exported_bert, exported_captions, examples):
    """What a client gets from each export."""
    encoded = {name: [base64.b64encode(value).decode() for value in values] for name, values in examples.items()}
    texts = {name: values for name, values in encoded.items() if name != "image"}
    request = {"words": (str(exported[1]), encoded), "wordpiece": (str(exported_bert[1]), texts)}
    request["captions"] = (str(exported_captions[1]), {"description": texts["description"]})
    command = [sys.executable, "-I", "-c", CLIENT]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_versions_count_up_and_staging_is_gone_that_of_a_killed_export_too(exported):
    run, folder = exported
    assert folder == run / "export" / "8"
    assert sorted(path.name for path in (run / "export").iterdir() if path.is_dir()) == ["1", "7", "8", "backup"]


def test_every_file_of_an_export_stands_in_its_checksums(exported):
    run, folder = exported
    assert verify(folder) == []
    assert [problem.partition(": missing")[0] for problem in verify(run)] == [
        f"export/{version}/checksums.sha256" for version in "17"
    ]
    assert {"saved_model.pb", "assets.extra/features.json"} <= set(load(folder).files)


def test_nothing_of_an_export_stays_in_memory(monkeypatch):
    """Models and traced functions are circles of references; six exports were 13 MB each until Python happened to look."""
    made = []

    class Model:
        def __init__(self):
            self.function = lambda: self
            made.append(weakref.ref(self))

    monkeypatch.setattr("mm_keras.runs.export.make_export", lambda *_: type(Model()))
    gc.disable()
    try:
        export("run")
        assert made[0]() is None
    finally:
        gc.enable()


def test_staging_of_an_export_that_runs_is_left_alone(tmp_path):
    with staging_folder(tmp_path) as first, staging_folder(tmp_path):
        assert first.is_dir()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["no room", "full while it is written"])
def test_full_disk_is_one_clear_error(tmp_path, trained_run, monkeypatch, how):
    run = shutil.copytree(trained_run / "baselines" / "title", tmp_path / "run")
    if how == "no room":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    else:
        full = tf.errors.ResourceExhaustedError(None, None, "No space left on device")
        monkeypatch.setattr(tf.saved_model, "save", mock.Mock(side_effect=full))
    with pytest.raises(OSError, match=r"MB are free: make room|the disk is full: make room, and export again") as caught:
        export(run)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(run / "export"))
    assert list((run / "export").iterdir()) == []


def test_export_carries_what_the_model_takes_in(exported, exported_captions, features):
    assert FeatureSpec.load(exported[1] / "assets.extra") == features
    assert FeatureSpec.load(exported_captions[1] / "assets.extra").texts[0].tokenizer.captions.words[2:]


def test_server_may_read_the_export(exported):
    assert exported[1].stat().st_mode & 0o005 == 0o005


@pytest.mark.ci
@pytest.mark.parametrize("kind", ["words", "wordpiece", "captions"])
def test_client_gets_the_trained_models_probabilities(answers, examples, request, kind):
    name = {"words": "exported", "wordpiece": "exported_bert", "captions": "exported_captions"}[kind]
    run, _ = request.getfixturevalue(name)
    model, features = RunFolder(run).load_model()
    module = ServingModule(model, features)
    made = module._preprocessor.raw({name: tf.constant(examples[name]) for name in features.modalities})
    expected = probabilities_of(np.asarray(model(made)), features.multi_label)
    found = np.array(answers[kind]["scores"])
    assert found.shape == (7, len(features.labels))
    given = np.array([not error for error in answers[kind]["error"]])
    assert given.sum() >= 4 and not given[3]
    np.testing.assert_allclose(found, expected * given[:, np.newaxis], atol=1e-5)


@pytest.mark.ci
@pytest.mark.parametrize("kind", ["words", "wordpiece", "captions"])
def test_batch_of_one_gets_the_same_answer(answers, kind):
    np.testing.assert_allclose(answers[kind]["first"], answers[kind]["scores"][:1], atol=1e-6)


@pytest.mark.ci
def test_best_labels_come_first(answers, features):
    answer = answers["words"]
    for probabilities, labels, best in zip(*(answer[key] for key in ("scores", "labels", "probabilities")), strict=True):
        if not any(probabilities):
            continue
        order = np.argsort(-np.array(probabilities))[:5]
        assert sorted(labels) == sorted(features.labels[index] for index in order)
        np.testing.assert_allclose(best, np.array(probabilities)[order], atol=1e-6)


def test_run_with_other_inputs_is_no_version_of_a_served_one(trained_run, caption_run):
    with pytest.raises(ValueError, match=r"takes \['description'\], and clients of .* send \['image', 'title'"):
        export(caption_run, version_of=trained_run)


@pytest.mark.ci
def test_export_does_without_tensorflow_text_where_asked_to(tmp_path, bert_run):
    folder = export(shutil.copytree(bert_run, tmp_path / "run"), core_ops_only=True)
    assert json.loads((folder / "assets.extra" / "operations.json").read_text())["other_operations"] == []


@pytest.mark.parametrize("kind", ["words", "captions"])
def test_client_and_evaluation_agree_on_the_records_of_a_split(kind, request, read_split):
    """Encoded bytes and strings through the served function, against decoded and tokenised batches."""
    run, dataset = {"words": ("trained_run", "dataset"), "captions": ("caption_run", "multi_label_dataset")}[kind]
    model, features = RunFolder(request.getfixturevalue(run)).load_model()
    dataset = request.getfixturevalue(dataset)
    batches = make_evaluation_batches(Split.open(dataset, "val"), features, 8)
    logits = np.concatenate([model.predict_on_batch(inputs) for inputs, _, _ in batches.dataset])[: batches.num_examples]
    records = read_split(dataset, "val")
    raw = {"image": [record.image for record in records]}
    raw |= {field: [(record.texts[field] or ("",))[0] for record in records] for field in ("title", "description")}
    module = ServingModule(model, features, answer_empty=True)
    served = module.signature()(**{name: tf.constant(raw[name]) for name in features.modalities})
    np.testing.assert_allclose(served["scores"], probabilities_of(logits, features.multi_label), atol=1e-5)


def test_recurrent_model_is_exported_for_cpus_on_a_machine_with_a_gpu(caption_run, make_inputs, monkeypatch):
    """Where Keras sees a GPU, it builds cuDNN's kernels into the graph, which no CPU can run."""
    monkeypatch.setattr(sys.modules["keras.src.backend.tensorflow.rnn"], "_is_gpu_available", lambda: True)
    model, features = RunFolder(caption_run).load_model()
    inputs = {name: tf.constant(value) for name, value in make_inputs(features).items()}
    graph = tf.function(lambda: model(inputs, training=False)).get_concrete_function().graph
    assert "CudnnRNNV3" in {operation.type for operation in graph.get_operations()}
    served = ServingModule(model, features).signature().graph
    assert "CudnnRNNV3" not in {operation.type for operation in served.get_operations()}


def test_multi_label_model_serves_independent_probabilities(multi_label_run, multi_label_dataset):
    model, features = RunFolder(multi_label_run).load_model()
    inputs = {name: tf.constant(["", "oak"]) for name in features.modalities} | {"image": tf.constant(["", ""])}
    module = ServingModule(model, features, answer_empty=True)
    served = module.signature()(**inputs)
    probabilities = np.asarray(served["scores"])
    logits = np.asarray(model(module._preprocessor.raw(inputs)))
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), atol=1e-6)
    np.testing.assert_array_equal(served["predicted"], probabilities > 0.5)
    tuned = ServingModule(model, features, probabilities[0] - 1e-3, answer_empty=True).signature()(**inputs)
    np.testing.assert_array_equal(tuned["predicted"][0], np.ones_like(probabilities[0]))


def test_bytes_that_are_no_utf8_are_served(trained_run):
    serve = ServingModule(*RunFolder(trained_run / "baselines" / "title").load_model()).signature()
    assert np.isfinite(serve(title=tf.constant([b"oak \xff\xfe", b"oak"]))["scores"]).all()


def test_export_whose_preprocessing_differs_is_an_error_and_leaves_no_version(tmp_path, trained_run, monkeypatch):
    """The served function sees only the beginning of a text; evaluation, which asks `texts` itself, sees the whole."""
    whole = Preprocessor.checked_raw

    def checked_raw(self, raw):
        return whole(self, {name: tf.strings.substr(text, 0, 4) for name, text in raw.items()})

    monkeypatch.setattr(Preprocessor, "checked_raw", checked_raw)
    run = shutil.copytree(trained_run / "baselines" / "title", tmp_path / "run")
    with pytest.raises(ParityError, match=r"probabilities differ from the trained model's by up to .* on 32 records of"):
        export(run)
    assert list((run / "export").iterdir()) == []


def test_split_that_is_not_there_leaves_no_version(tmp_path, trained_run):
    run = shutil.copytree(trained_run / "baselines" / "title", tmp_path / "run")
    with pytest.raises(ValueError, match="no split 'tset'"):
        export(run, split="tset")
    assert not (run / "export").exists()


def test_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no run folder"):
        export(tmp_path)
