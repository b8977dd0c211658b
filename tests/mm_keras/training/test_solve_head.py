import functools
import json

import keras
import numpy as np
import pytest

from mm_keras.model.image_tower import build_small_cnn
from mm_keras.model.text_encoder import build_small_text_encoder
from mm_keras.objectives.losses import make_focal_loss
from mm_keras.runs.evaluate import evaluate
from mm_keras.runs.export import export
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.thresholds import load_thresholds


def _frozen(build, *arguments, **options):
    model = build(*arguments, **options)
    model.trainable = False
    return model


@pytest.fixture(scope="module")
def train_solved(train_small, build_small_model):
    """`train` on small pictures, with frozen encoders that were drawn."""
    build = functools.partial(
        build_small_model,
        image_tower=functools.partial(_frozen, build_small_cnn, widths=(16, 32)),
        text_encoder=functools.partial(_frozen, build_small_text_encoder, width=8),
    )
    return functools.partial(train_small, build_model=build, modalities=("image", "title"), solver="auto")


@pytest.fixture(scope="module", params=[False, True], ids=["multi-class", "multi-label"])
def solved(request, dataset, multi_label_dataset, train_solved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("solved") / "run"
    train_solved(multi_label_dataset if request.param else dataset, folder)
    return folder


def test_solved_run_is_evaluated_like_any_other(solved):
    rows = {row["inputs"]: row for row in evaluate(solved)["rows"]}
    measure = "mAP" if "mAP" in next(iter(rows.values())) else "top_1"
    best = rows.popitem()[1][measure]
    assert best > (0.4 if measure == "mAP" else 0.05)
    assert best >= max(row[measure] for row in rows.values()) - 0.07  # of 60 examples


@pytest.mark.ci
def test_solved_run_is_exported_like_any_other(solved):
    """Drawn encoders give what is much alike, so that little regularisation is best, and rounding counts most."""
    assert export(solved, tolerance=1e-5).is_dir()


def test_run_says_what_was_solved(solved, capsys):
    facts = RunFolder(solved).facts()
    assert (facts["solver"], facts["finished"]) == ("solved", True)
    described = json.loads((solved / "report" / "solver.json").read_text())
    assert [row["inputs"] for row in described["inputs"]][:3] == ["image", "title", "image + title"]
    assert described["num_examples"] == 220
    *single, both = described["inputs"]
    assert both["gain"] == pytest.approx(both["score"] - max(row["score"] for row in single))
    assert sum(both["ensemble"].values()) == pytest.approx(1)
    assert set(both["ensemble"]) <= {candidate["name"] for candidate in described["candidates"]}
    assert described["head_bytes"] > 0
    assert "| image + title |" in (solved / "report" / "solver.md").read_text()


def test_thresholds_come_from_held_out_folds_and_the_validation_split(solved, train_solved, tmp_path):
    run = RunFolder(solved)
    model, features = run.load_model()
    assert not model.trainable_weights
    if not features.multi_label:
        assert load_thresholds(run, features) is None
        return
    assert load_thresholds(run, features).split == "held-out folds of train, and val"
    train_solved(run.facts()["dataset"], tmp_path / "run", modalities=("title",), val_split=None, batch_size=500)
    thresholds = load_thresholds(RunFolder(tmp_path / "run"), features)
    assert thresholds.split == "held-out folds of train"
    assert len(set(np.round(thresholds.values, 6))) > 3


def test_finished_run_is_not_solved_again(solved, train_solved, capsys):
    before = RunFolder(solved).best.stat().st_mtime_ns
    train_solved(RunFolder(solved).facts()["dataset"], solved, resume=True)
    assert "is finished, there is nothing to resume" in capsys.readouterr().out
    assert RunFolder(solved).best.stat().st_mtime_ns == before


def test_solving_can_be_declined(dataset, train_solved, tmp_path):
    train_solved(dataset, tmp_path / "run", modalities=("title",), solver="gradient")
    assert "solver" not in RunFolder(tmp_path / "run").facts()


def test_same_seed_solves_the_same(dataset, train_solved, tmp_path):
    one, other = (train_solved(dataset, tmp_path / name, modalities=("title",)) for name in ("one", "other"))
    for weight, same in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), keras.ops.convert_to_numpy(same))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"augment": True}, "the encoder of 'image' is trained, or what it sees changes from epoch to epoch"),
        ({"auxiliary_weight": 0.5}, "train.auxiliary_weight is for models that are trained by gradient"),
        ({"make_loss": make_focal_loss}, "train.make_loss gives a FocalLoss"),
    ],
)
def test_what_cannot_be_solved_is_said_and_trained_by_gradient(dataset, train_solved, tmp_path, options, reason, capsys):
    with pytest.raises(ValueError, match=f"train.solver = 'solved' is not possible: {reason}"):
        train_solved(dataset, tmp_path / "run", solver="solved", dry_run=True, **options)
    train_solved(dataset, tmp_path / "run", dry_run=True, **options)
    assert "one batch: loss" in capsys.readouterr().out


def test_embeddings_that_are_not_finite_name_a_record(dataset, train_solved, build_small_model, tmp_path):
    def build_broken(*arguments, **options):
        model = _frozen(build_small_text_encoder, *arguments, width=8, **options)
        model.weights[0].assign(np.full(model.weights[0].shape, np.nan))
        return model

    build = functools.partial(build_small_model, text_encoder=build_broken)
    with pytest.raises(
        ValueError, match=r"the embeddings of 'title' of \d+ examples are not finite, first that of 'sample-[-0-9]+'"
    ):
        train_solved(dataset, tmp_path / "run", modalities=("title",), build_model=build)
