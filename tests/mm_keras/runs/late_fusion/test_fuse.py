import functools
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from mm_keras.data.make_features import make_features
from mm_keras.data.pipeline import make_evaluation_batches
from mm_keras.objectives.losses import make_loss
from mm_keras.objectives.metrics import evaluate_logits
from mm_keras.runs.evaluate import evaluate
from mm_keras.runs.export import export
from mm_keras.runs.late_fusion.fuse import METHODS, late_fusion
from mm_keras.runs.predict import Predictor
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.serving import ServingModule
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.sources.example import SourceExample

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}
THINGS = ("mug", "lamp", "chair", "oven")
# Weights per label are in the model what one weight a run is; the tests of several labels fit them.
MARKED = [pytest.param(method, marks=[pytest.mark.slow] * (method == "weights_per_label")) for method in METHODS]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory, pack_examples, encode_image):
    """Multi-label -> a dataset of pairs: the picture alone tells the colour, the title alone the thing, the noise nothing.

    A tenth of the pictures and of the titles are missing, and a tenth of the others are wrong.
    """

    def pack(multi_label):
        rng = np.random.default_rng(0)
        examples = []
        for index in range(900):
            colour, thing = str(rng.choice(list(COLOURS))), str(rng.choice(THINGS))
            shown = str(rng.choice(list(COLOURS))) if rng.random() < 0.1 else colour
            told = str(rng.choice(THINGS)) if rng.random() < 0.1 else thing
            pixels = np.clip(rng.normal(COLOURS[shown], 4, (16, 16, 3)), 0, 255).astype("uint8")
            missing = {0: "image", 1: "title"}.get(index % 10)
            examples.append(
                SourceExample(
                    str(index),
                    str(index),
                    image=None if missing == "image" else encode_image(pixels, "PNG"),
                    texts={
                        "title": [] if missing == "title" else [f"a {told}"],
                        "noise": [" ".join(map(str, rng.integers(0, 20, 3)))],
                    },
                    labels=[colour, thing] if multi_label else [f"{colour} {thing}"],
                    split="train" if index < 500 else "val" if index < 700 else "test",
                )
            )
        folder = tmp_path_factory.mktemp("pairs") / "data"
        return pack_examples(folder, examples, ("title", "noise"), multi_label)

    return {multi_label: pack(multi_label) for multi_label in (False, True)}


def _make_run(folder, dataset, features, build_small_model, epochs):
    """A run folder as a training leaves it. The model is fitted to arrays, which takes a fraction of a training's time."""
    run = RunFolder(folder)
    run.start(overwrite=False)
    features.save(folder)
    run.save_facts(dataset=dataset, train_split="train", modalities=features.modalities)
    keras.utils.set_random_seed(0)
    model = build_small_model(features)
    if epochs:
        model.compile(keras.optimizers.Adam(0.02), make_loss(features.multi_label))
        inputs, labels, _ = next(iter(make_evaluation_batches(Split.open(dataset, "train"), features, 500).dataset))
        inputs = {name: inputs[name].numpy() for name in features.inputs()}
        model.fit(inputs, labels.numpy(), batch_size=50, epochs=epochs, verbose=0)
    model.save(run.best)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, pairs, build_small_model):
    """Multi-label -> a folder of runs: "image", "title", and "noise", which sees what tells nothing, of the multi-class one."""

    def make(multi_label):
        folder, dataset = tmp_path_factory.mktemp("runs"), pairs[multi_label]
        features = make_features(
            dataset, image_size=(16, 16), image_fit="stretch", text_fields=("title", "noise"), max_tokens=4
        )
        for modality in ("image", "title") if multi_label else ("image", "title", "noise"):
            epochs = 0 if modality == "noise" else 15  # of the noise there is nothing to learn
            _make_run(folder / modality, dataset, features.only([modality]), build_small_model, epochs)
        return folder

    return {multi_label: make(multi_label) for multi_label in (False, True)}


@pytest.fixture(scope="module")
def fuse(runs, tmp_path_factory):
    """A function: (method, names of runs, multi_label=, …) -> the fused run; the same one for the same arguments."""

    @functools.cache
    def make(method, names=("image", "title"), multi_label=False):
        folder = tmp_path_factory.mktemp("fused") / "run"
        return late_fusion(folder, [runs[multi_label] / name for name in names], method)

    return make


def _found(run):
    return json.loads((run / "late_fusion.json").read_text())


@functools.cache
def _rows(run):
    return {row["inputs"]: row for row in evaluate(run)["rows"]}


@pytest.mark.parametrize("method", MARKED)
def test_fusion_beats_its_parts_where_each_tells_half(fuse, runs, method):
    score = {name: _rows(runs[False] / name)[name]["top_1"] for name in ("image", "title")}
    assert max(score.values()) < 0.35
    rows = _rows(fuse(method))
    # Two voters who each know half name the truth by chance: a label that both find likely wins no vote.
    assert rows["all inputs"]["top_1"] > (0.4 if method == "vote" else 0.6)
    assert rows["all inputs"]["trained"] == "fused"
    assert rows["image"]["top_1"] == pytest.approx(score["image"], abs=0.06)  # without titles, the fused run is the other one


@pytest.mark.parametrize("method", [pytest.param("weights_per_label", marks=pytest.mark.slow), "stacking"])
def test_multi_label_fusion_beats_its_parts_where_each_tells_half(fuse, runs, method):
    score = [_rows(runs[True] / name)[name]["micro_f1"] for name in ("image", "title")]
    assert max(score) < 0.7
    assert _rows(fuse(method, multi_label=True))["all inputs"]["tuned_micro_f1"] > 0.8


@pytest.mark.parametrize("method", ["weights", pytest.param("stacking", marks=pytest.mark.slow)])
def test_run_that_tells_nothing_does_no_harm(fuse, method):
    run = fuse(method, ("image", "title", "noise"))
    if method == "weights":
        assert _found(run)["weights"][2] < 0.1
    assert _rows(run)["all inputs"]["top_1"] > _rows(fuse(method))["all inputs"]["top_1"] - 0.03


def test_each_label_listens_to_the_run_that_knows_it(fuse):
    weights = _found(fuse("weights_per_label", multi_label=True))["weights"]
    assert set(weights) == {*COLOURS, *THINGS}
    for label, (image, title) in weights.items():
        assert (image if label in COLOURS else title) > 0.7


def test_vote_keeps_what_the_majority_says(fuse, runs, pairs):
    run = fuse("vote", ("image", "title", "noise"))
    answers = []
    for folder in (*(runs[False] / name for name in ("image", "title", "noise")), run):
        model, features = RunFolder(folder).load_model()
        batches = make_evaluation_batches(Split.open(pairs[False], "test"), features, 200)
        inputs, _, _ = next(iter(batches.dataset))
        answers.append(np.asarray(model(inputs)).argmax(axis=1))
    agree = (answers[0] == answers[1]) | (answers[0] == answers[2]) | (answers[1] == answers[2])
    full = np.all([inputs[f"{name}_present"] for name in ("image", "title", "noise")], axis=0)
    assert (agree & full).sum() >= 10
    majority = [np.bincount(votes).argmax() for votes in np.stack(answers[:3], axis=1)]
    np.testing.assert_array_equal(answers[3][agree & full], np.array(majority)[agree & full])


def test_multi_label_vote_is_one_at_one_half(fuse):
    run = fuse("vote", multi_label=True)
    assert not (run / "thresholds.json").exists()
    assert set(_found(run)["thresholds_as_logits"]) == {*COLOURS, *THINGS}
    assert "tuned_micro_f1" not in _rows(run)["all inputs"]


def test_thresholds_of_the_fused_probabilities_are_tuned_on_the_split(fuse):
    run = fuse("weights_per_label", multi_label=True)
    content = json.loads((run / "thresholds.json").read_text())
    assert content["split"] == "val"
    assert set(content["thresholds"]) == {*COLOURS, *THINGS}


def test_run_tells_of_what_and_on_which_split_it_was_made(fuse, runs, pairs):
    run = fuse("weights")
    found = _found(run)
    assert found["runs"] == [str(runs[False] / name) for name in ("image", "title")]
    assert (found["method"], found["split"], found["num_examples"]) == ("weights", "val", 200)
    assert found["learned_from"] == ["train", "val"]
    assert RunFolder(run).facts()["dataset"] == pairs[False]
    assert sum(found["weights"]) == pytest.approx(1)


@pytest.fixture(scope="module")
def answer_of_the_title(runs):
    """What the run that sees the title alone says of a mug."""
    predictor = Predictor(runs[False] / "title")
    (answer,) = predictor([predictor.read({"title": "a mug"})])
    return answer


@pytest.mark.parametrize("method", MARKED)
def test_example_without_a_models_inputs_is_answered_by_the_others(fuse, method, answer_of_the_title):
    predictor = Predictor(fuse(method))
    (fused,) = predictor([predictor.read({"title": "a mug"})])
    assert {label.split()[1] for label in fused["labels"][:3]} == {"mug"}
    if method == "weights":
        assert fused["labels"] == answer_of_the_title["labels"]
        np.testing.assert_allclose(fused["probabilities"], answer_of_the_title["probabilities"], atol=1e-5)


def test_fused_run_is_served_as_its_model_answers(fuse):
    model, features = RunFolder(fuse("stacking", multi_label=True)).load_model()
    module = ServingModule(model, features, answer_empty=True)
    raw = {"image": tf.constant([b"", b""]), "title": tf.constant(["a mug", ""])}
    expected = tf.sigmoid(model(module._preprocessor.raw(raw)))
    np.testing.assert_allclose(module.signature()(**raw)["scores"], expected, atol=1e-6)


@pytest.mark.slow
def test_fused_run_is_exported_from_its_folder_alone(fuse, tmp_path):
    run = shutil.copytree(fuse("stacking", multi_label=True), tmp_path / "run")
    assert (export(run) / "saved_model.pb").is_file()  # which compares it with the model


def test_rows_are_what_the_whole_model_says_with_inputs_hidden(fuse, pairs):
    run = fuse("stacking", ("image", "title", "noise"))
    model, features = RunFolder(run).load_model()
    inputs, labels, _ = next(iter(make_evaluation_batches(Split.open(pairs[False], "test"), features, 200).dataset))
    for name, row in _rows(run).items():
        shown = {"all inputs": features.modalities, "all texts": ("title", "noise")}.get(name, (name,))
        hidden = {f"{modality}_present": np.zeros(200, bool) for modality in features.modalities if modality not in shown}
        expected = evaluate_logits(model.predict_on_batch({**inputs, **hidden}), labels.numpy(), False)
        assert {metric: row[metric] for metric in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_runs_that_see_several_inputs_are_fused_too(trained_run, tmp_path):
    """And they may share some: here the title."""
    run = late_fusion(tmp_path / "fused", [trained_run, trained_run / "baselines" / "title"], "stacking")
    assert [row["inputs"] for row in evaluate(run)["rows"]] == ["image", "title", "description", "all texts", "all inputs"]


def test_fused_runs_are_fused_on_another_split(fuse, runs, tmp_path, pairs):
    parts = [fuse("weights"), runs[False] / "noise"]
    with pytest.raises(ValueError, match=r"has learned from split 'val'.*fuse all single runs at once"):
        late_fusion(tmp_path / "again", parts)
    assert not (tmp_path / "again").exists()


def test_overwrite_deletes_the_old_run(fuse, runs, tmp_path):
    run = shutil.copytree(fuse("weights_per_label", multi_label=True), tmp_path / "run")
    parts = [runs[True] / "image", runs[True] / "title"]
    with pytest.raises(FileExistsError, match="--overwrite"):
        late_fusion(run, parts, "vote")
    assert _found(late_fusion(run, parts, "vote", overwrite=True))["method"] == "vote"
    assert not (run / "thresholds.json").exists()


@pytest.fixture
def call(runs, tmp_path):
    """A function: late_fusion of "image" and "title", with other arguments."""

    def make(names=("image", "title"), **arguments):
        return late_fusion(tmp_path / "out", [runs[False] / name for name in names], **arguments)

    return make


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "mean"}, r"weights, weights_per_label, vote, stacking\. Received: 'mean'"),
        ({"names": ("image",)}, "two or more different runs"),
        ({"names": ("image", "image")}, "two or more different runs"),
        ({"split": "test"}, "not fitted on split 'test'.*--split"),
        ({"split": "train"}, "image has learned from split 'train'.*--split"),
        ({"split": "dev"}, r"has no split 'dev' to fit on; it has \['test', 'train', 'val'\]"),
    ],
)
def test_wrong_calls_are_errors_and_leave_nothing(call, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        call(**arguments)
    assert not (tmp_path / "out").exists()


def test_run_that_is_none_is_named(call):
    with pytest.raises(FileNotFoundError, match=r"nothing. is no run folder"):
        call(names=("image", "nothing"))


def test_new_run_may_not_hold_its_parts(runs):
    with pytest.raises(ValueError, match="which lies in it; choose another --workdir"):
        late_fusion(runs[False], [runs[False] / "image", runs[False] / "title"], overwrite=True)
    assert (runs[False] / "image" / "run.json").is_file()


def test_runs_of_two_datasets_need_one_to_fit_on(runs, pairs, tmp_path):
    other = shutil.copytree(runs[False] / "title", tmp_path / "title")
    facts = RunFolder(other).facts() | {"dataset": "/elsewhere"}
    RunFolder(other).save_facts(**facts)
    with pytest.raises(ValueError, match=r"image was trained on .*, .*title on /elsewhere; name the dataset .*--dataset"):
        late_fusion(tmp_path / "out", [runs[False] / "image", other])
    assert late_fusion(tmp_path / "out", [runs[False] / "image", other], dataset=pairs[False]).is_dir()


def test_runs_that_do_not_fit_each_other_are_named_with_the_difference(runs, trained_run, tmp_path):
    with pytest.raises(ValueError, match=r"image is multi-class, .*title is multi-label"):
        late_fusion(tmp_path / "out", [runs[False] / "image", runs[True] / "title"])
    with pytest.raises(ValueError, match=r"image has 12 labels, .*small has 20"):
        late_fusion(tmp_path / "out", [runs[False] / "image", trained_run])


def test_given_weights_are_taken_as_they_are_given(runs, tmp_path):
    parts = [runs[False] / name for name in ("image", "title")]
    run = late_fusion(tmp_path / "run", parts, weights=[1, 3])
    assert _found(run)["weights"] == [0.25, 0.75]
    model, features = RunFolder(run).load_model()
    inputs, _, _ = next(
        iter(make_evaluation_batches(Split.open(RunFolder(run).facts()["dataset"], "test"), features, 8).dataset)
    )
    inputs = {name: inputs[name].numpy() for name in features.inputs()} | {"image_present": np.ones(8, bool)}
    inputs["title_present"] = np.ones(8, bool)
    single = [RunFolder(part).load_model()[0] for part in parts]
    means = [tf.nn.softmax(part({name: inputs[name] for name in part.input})) for part in single]
    np.testing.assert_allclose(tf.nn.softmax(model(inputs)), 0.25 * means[0] + 0.75 * means[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "weights", "message"),
    [
        ("stacking", [1, 1], "given weights are of method 'weights'"),
        ("weights", [1], "a number above 0 for each of the 2 runs"),
        ("weights", [1, 0], "a number above 0 for each of the 2 runs"),
    ],
)
def test_weights_that_cannot_be_are_errors(runs, tmp_path, method, weights, message):
    with pytest.raises(ValueError, match=message):
        late_fusion(tmp_path / "run", [runs[False] / "image", runs[False] / "title"], method, weights=weights)
