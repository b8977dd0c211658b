import shutil

import numpy as np
import pytest

from mm_keras.features import present
from mm_keras.model.expert import build_expert
from mm_keras.runs.evaluate import evaluate
from mm_keras.runs.experts import draw_classes, measure_experts, score_of, write_experts
from mm_keras.runs.run_folder import RunFolder


@pytest.fixture(scope="module")
def run(trained_run, tmp_path_factory):
    """A run of an image, a title and a description, to write into."""
    return shutil.copytree(trained_run, tmp_path_factory.mktemp("experts") / "run")


@pytest.mark.parametrize("modality", ["image", "title"])
def test_expert_answers_as_the_whole_does_with_all_else_missing(trained_run, make_inputs, modality):
    model, features = RunFolder(trained_run).load_model()
    for layer in model.layers:  # what stands for "missing" is learned, and here it is still zero
        if layer.name.endswith("_missing"):
            layer.missing.assign(np.linspace(-1, 1, layer.missing.shape[0]))
    inputs = make_inputs(features)
    expert = build_expert(model, features, modality)
    hidden = {present(other): np.zeros(5, bool) for other in features.modalities if other != modality}
    own = {name: inputs[name] for name in features.only([modality]).inputs()}
    np.testing.assert_allclose(expert(own), model(inputs | hidden), rtol=1e-5, atol=1e-5)
    assert np.abs(np.asarray(expert(own)) - np.asarray(model(inputs))).max() > 1e-3


@pytest.mark.ci
def test_experts_are_runs_that_evaluate_to_what_the_table_says(run, tmp_path, capsys):
    report = measure_experts(run, num_classes=2)
    of = {row["inputs"]: row for row in report["rows"]}
    assert list(of) == [
        *("image alone", "title alone", "description alone"),
        *("without image", "without title", "without description", "all inputs"),
    ]
    assert len(report["classes"]) == 2 == len(of["image alone"]["classes"])
    folders = write_experts(run, tmp_path / "experts")
    assert [folder.name for folder in folders] == ["image", "title", "description"]
    (row,) = evaluate(folders[1])["rows"]
    assert (row["top_1"], row["top_5"]) == (of["title alone"]["top_1"], of["title alone"]["top_5"])
    with pytest.raises(FileExistsError):
        write_experts(run, tmp_path / "experts")
    with pytest.raises(ValueError, match="sees 'title' alone: it is one expert already"):
        measure_experts(folders[1])
    assert "| without title" in capsys.readouterr().out


def test_of_a_class_its_own_examples_count_and_of_a_label_its_f1():
    logits, labels = np.eye(3)[[0, 0, 1, 1]], np.array([0, 1, 1, 2])
    assert [score_of(label, logits, labels, False) for label in range(3)] == [1.0, 0.5, 0.0]
    answers, truth = np.array([[1.0, -1.0], [1.0, -1.0]]), np.array([[1, 0], [0, 0]])
    assert [score_of(label, answers, truth, True) for label in range(2)] == [pytest.approx(2 / 3), 0.0]


def test_classes_are_drawn_among_those_that_the_split_has():
    labels = np.array([3, 3, 5, 8])
    assert draw_classes(labels, 10, 5, seed=0) == [3, 5, 8]
    assert len(draw_classes(labels, 10, 2, seed=0)) == 2
    assert {tuple(draw_classes(labels, 10, 1, seed)) for seed in range(20)} == {(3,), (5,), (8,)}
