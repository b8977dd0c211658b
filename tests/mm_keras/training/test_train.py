import functools
import json
import shutil
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras.data.augment import make_augmentation
from mm_keras.data.pipeline import make_evaluation_batches
from mm_keras.features import FeatureSpec
from mm_keras.objectives.losses import make_asymmetric_loss, make_focal_loss
from mm_keras.objectives.metrics import evaluate_logits, make_metrics
from mm_keras.runs.run_folder import RunFolder
from mm_keras.training.optimizer import make_optimizer
from mm_keras.training.schedules import make_constant_schedule, make_plateau_schedule
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.sources.example import SourceExample


def _lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _validate(model, dataset, features):
    """The metrics on `val`."""
    batches = make_evaluation_batches(Split.open(dataset, "val"), features, 16)
    logits, labels = [], []
    for inputs, true, _ in batches.dataset:
        logits.append(model.predict_on_batch(inputs))
        labels.append(true.numpy())
    return evaluate_logits(
        np.concatenate(logits)[: batches.num_examples], np.concatenate(labels)[: batches.num_examples], features.multi_label
    )


def test_every_epoch_leaves_a_line_of_metrics(trained_run):
    lines = _lines(trained_run)
    assert [line["epoch"] for line in lines] == [1, 2]
    for line in lines:
        assert {"loss", "top_1", "top_5", "val_cross_entropy", "val_top_1", "val_top_5", "examples_per_second"} <= set(line)
        assert 0 <= line["input_wait"] <= 1
        assert all(np.isfinite(value) for value in line.values())
    assert lines[1]["loss"] < lines[0]["loss"]
    assert 0 == lines[1]["learning_rate"] < lines[0]["learning_rate"] < 1e-3  # a cosine, at its end


def test_multi_label_run_measures_f1(multi_label_run):
    (line,) = _lines(multi_label_run)
    assert {"micro_f1", "val_micro_f1", "val_cross_entropy"} <= set(line)


def test_run_folder_tells_what_was_done(trained_run, dataset, features):
    facts = json.loads((trained_run / "run.json").read_text())
    expected = {"train_split": "train", "seed": 0, "epochs": 2, "batch_size": 32, "replicas": 1, "dataset": dataset}
    assert expected.items() <= facts.items()
    seconds = facts["seconds"]
    assert 0 < seconds["steps"] + seconds["first_step"] + seconds["evaluation"] < seconds["total"]
    assert facts["modalities"] == ["image", "title", "description"]
    assert facts["versions"]["mm_keras"] == mm_keras.__version__
    assert FeatureSpec.load(trained_run) == features


def _scalars(folder):
    """Tag -> number of values in TensorBoard's event files."""
    tags = {}
    for path in folder.glob("events.out.tfevents.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                tags[value.tag] = tags.get(value.tag, 0) + 1
    return tags


@pytest.mark.filterwarnings("ignore:.*tf_record_iterator.*")
def test_tensorboard_has_the_metrics_of_both_splits(trained_run):
    training, validation = (_scalars(trained_run / "tensorboard" / split) for split in ("train", "validation"))
    assert training["epoch_loss"] == training["epoch_top_1"] == 2
    assert training["epoch_learning_rate"] == training["epoch_examples_per_second"] == training["epoch_input_wait"] == 2
    assert validation["epoch_top_1"] == validation["epoch_cross_entropy"] == 2


@pytest.mark.filterwarnings("ignore:.*tf_record_iterator.*")
def test_tensorboard_has_no_validation_loss_that_filling_dilutes(trained_run):
    assert not [tag for tag in _scalars(trained_run / "tensorboard" / "validation") if "loss" in tag]


class _Alternating(keras.optimizers.schedules.LearningRateSchedule):
    """Learns in the first epoch, destroys what was learned in the second."""

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, step):
        return tf.where(step < self.steps, 0.01, 3.0)

    def get_config(self):
        return {"steps": self.steps}


def test_best_epoch_is_kept(tmp_path, dataset, features, train_small):
    model = train_small(
        dataset,
        tmp_path / "run",
        epochs=2,
        make_optimizer=lambda steps, _: keras.optimizers.SGD(_Alternating(steps // 2)),
        modalities=("title",),
    )
    features = features.only(["title"])
    first, second = (line["val_top_1"] for line in _lines(tmp_path / "run"))
    best = max(first, second)
    loaded, loaded_features = RunFolder(tmp_path / "run").load_model()
    assert loaded_features == features
    for kept in (model, loaded):
        assert _validate(kept, dataset, features)["top_1"] == pytest.approx(best)


def test_kept_model_is_that_of_the_best_line(trained_run, dataset, features):
    model, _ = RunFolder(trained_run).load_model()
    assert _validate(model, dataset, features)["top_1"] == pytest.approx(max(line["val_top_1"] for line in _lines(trained_run)))


@pytest.mark.slow
def test_averaged_weights_are_validated_and_kept(tmp_path, dataset, features, train_small):
    """Of weights that jump about, the kept model has those that the best line was measured with: the average."""
    optimizer = functools.partial(make_optimizer, learning_rate=0.05, schedule=make_constant_schedule, average=0.9)
    model = train_small(dataset, tmp_path / "run", epochs=2, make_optimizer=optimizer)
    loaded, _ = RunFolder(tmp_path / "run").load_model()
    best = max(line["val_top_1"] for line in _lines(tmp_path / "run"))
    for kept in (model, loaded):
        assert _validate(kept, dataset, features)["top_1"] == pytest.approx(best)
    train_small(dataset, tmp_path / "plain", epochs=2, make_optimizer=functools.partial(optimizer, average=None))
    assert _lines(tmp_path / "run")[0]["loss"] == _lines(tmp_path / "plain")[0]["loss"]  # it is trained alike
    assert _lines(tmp_path / "run")[0]["val_cross_entropy"] != _lines(tmp_path / "plain")[0]["val_cross_entropy"]


@pytest.mark.parametrize("multi_label", [pytest.param(False, marks=pytest.mark.slow), True])
def test_mixed_examples_are_learned_from_and_validated_without(request, tmp_path, train_small, multi_label):
    dataset, features = (
        request.getfixturevalue(f"multi_label_{name}" if multi_label else name) for name in ("dataset", "features")
    )
    names = ["micro_f1", "ece", "macro_f1", *(["binned_mAP"] if multi_label else ["top_1", "top_3"]), "cross_entropy"]
    features = features.only(["image"])
    model = train_small(
        dataset,
        tmp_path / "run",
        augment=make_augmentation(mixup=0.4, cutmix=1.0),
        make_metrics=functools.partial(make_metrics, names=names),
        epochs=2,
        modalities=("image",),
    )
    lines = _lines(tmp_path / "run")
    assert lines[1]["loss"] < lines[0]["loss"]
    measured = _validate(model, dataset, features)["macro_f1" if multi_label else "top_1"]
    kept = max(lines, key=lambda line: line["val_micro_f1"])
    assert measured == pytest.approx(kept["val_macro_f1" if multi_label else "val_top_1"], abs=1e-5)


def test_plateau_lowers_the_rate_by_the_metric_of_the_best_epoch(tmp_path, dataset, train_small):
    made = []

    def plateau(steps, model):
        schedule = functools.partial(make_plateau_schedule, patience=1, min_delta=2.0)  # nothing is ever better by 2
        made.append(make_optimizer(steps, model, learning_rate=1e-2, schedule=schedule))
        return made[-1]

    train_small(dataset, tmp_path / "run", epochs=6, make_optimizer=plateau, val_split="train", modalities=("title",))
    values = [line["val_top_1"] for line in _lines(tmp_path / "run")]
    best = values.index(max(values))
    assert best >= 2  # the kept state is of the beginning of that epoch's end: lowered at the end of all epochs but the first
    assert float(made[0].learning_rate) == pytest.approx(1e-2 / 2 ** (best - 1))
    assert float(made[0].plateau["best"]) == pytest.approx(values[0])


@pytest.fixture(scope="module")
def overwriting_run(tmp_path_factory, trained_run, dataset, train_small):
    """(run folder, model) of a training without validation that overwrote another one, with its export and a foreign file."""
    run = tmp_path_factory.mktemp("overwritten") / "run"
    shutil.copytree(trained_run, run)
    (run / "notes.txt").write_text("mine")
    (run / "export" / "1").mkdir(parents=True)
    return run, train_small(dataset, run, overwrite=True, val_split=None, modalities=("title",))


def test_without_a_validation_split_the_last_epoch_is_kept(overwriting_run, make_inputs, features):
    run, model = overwriting_run
    assert not [name for name in _lines(run)[0] if name.startswith("val_")]
    loaded, _ = RunFolder(run).load_model()
    inputs = make_inputs(features.only(["title"]))
    np.testing.assert_array_equal(loaded.predict_on_batch(inputs), model.predict_on_batch(inputs))


@pytest.mark.parametrize(
    ("baseline", "options"),
    [
        ("baselines/title", {"modalities": ("title",)}),
        pytest.param(".", {"epochs": 2, "augment": True}, marks=pytest.mark.slow),
    ],
)
def test_same_seed_gives_the_same_weights(tmp_path, trained_run, dataset, train_small, baseline, options):
    tf.random.set_seed(123)
    again = train_small(dataset, tmp_path / "again", **options)
    model, _ = RunFolder(trained_run / baseline).load_model()
    for one, other in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_seed_gives_other_weights(tmp_path, dataset, train_small, capsys):
    models = [train_small(dataset, tmp_path, dry_run=True, seed=seed, modalities=("title",)) for seed in (1, 2)]
    assert not np.array_equal(*(model.get_layer("head").get_weights()[0] for model in models))


def test_taken_folder_is_refused_before_anything_is_read(trained_run, train_small):
    with pytest.raises(
        FileExistsError, match=r"small already holds a run \(run.json\); choose another --workdir, or pass --resume"
    ):
        train_small("no dataset", trained_run)


def test_overwriting_replaces_the_run_and_keeps_foreign_files(overwriting_run):
    run, _ = overwriting_run
    assert (run / "notes.txt").read_text() == "mine"
    assert len(_lines(run)) == 1
    assert not (run / "export").exists()
    assert not (run / "baselines").exists()


def test_overwriting_deletes_nothing_if_the_new_run_cannot_start(tmp_path, trained_run, dataset, train_small):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    with pytest.raises(ValueError, match="batch_size 1000 is larger"):
        train_small(dataset, run, overwrite=True, batch_size=1000)
    assert len(_lines(run)) == 2


def test_dry_run_tells_shapes_and_sizes_and_writes_nothing(tmp_path, dataset, train_small, capsys):
    model = train_small(dataset, tmp_path / "run", dry_run=True, batch_size=16)
    out = capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    for told in (
        "20 labels, multi-class",
        "[16, 32, 32, 3]",
        "title_token_ids",
        f"{model.count_params():,} parameters",
        "loss ",
    ):
        assert told in out
    for part in ("image_tower", "text_encoder", "title_tuning", "fusion", "head"):
        assert f"  {part}" in out


@pytest.mark.slow
def test_loss_that_is_no_number_is_an_error(tmp_path, dataset, train_small):
    with pytest.raises(FloatingPointError, match=r"step [0-9]+ \(batch"):
        train_small(
            dataset,
            tmp_path / "run",
            make_optimizer=functools.partial(make_optimizer, learning_rate=1e38, warmup_fraction=0, clip_norm=None),
            epochs=3,
            modalities=("title",),
        )


def test_baseline_sees_its_modality_alone(trained_run):
    model, features = RunFolder(trained_run / "baselines" / "title").load_model()
    assert features.modalities == ("title",)
    assert set(model.input) == {"title_token_ids", "title_padding_mask", "title_present"}


def test_unknown_modality_is_an_error(tmp_path, dataset, train_small):
    with pytest.raises(ValueError, match=r"no input 'sound'; its inputs are \['image', 'title', 'description'\]"):
        train_small(dataset, tmp_path, modalities=("sound",))


def test_dataset_without_the_validation_split_is_an_error_that_says_what_to_do(tmp_path, dataset, train_small):
    with pytest.raises(ValueError, match=r"no split 'dev'; it has \['test', 'train', 'val'\].*val_split"):
        train_small(dataset, tmp_path, val_split="dev")


def test_loss_gets_the_label_counts_of_the_training_split(tmp_path, dataset, train_small, read_split, features):
    got = []

    def make(multi_label, label_counts):
        got.append((multi_label, label_counts))
        return make_focal_loss(multi_label, label_counts, class_balance=0.9)

    train_small(dataset, tmp_path, dry_run=True, make_loss=make)
    counts = Counter(record.label_ids[0] for record in read_split(dataset, "train"))
    assert got == [(False, [counts[label] for label in range(len(features.labels))])]


@pytest.mark.slow
def test_first_of_other_metrics_chooses_the_epoch(tmp_path, multi_label_dataset, train_small):
    names = ("macro_recall", "imaged_f1", "binned_mAP", "ece")
    train_small(
        multi_label_dataset,
        tmp_path / "run",
        epochs=2,
        make_metrics=functools.partial(make_metrics, names=names),
        make_loss=make_asymmetric_loss,
        make_optimizer=lambda steps, _: keras.optimizers.SGD(_Alternating(steps // 2)),
    )
    lines = _lines(tmp_path / "run")
    assert {f"{prefix}{name}" for name in names for prefix in ("", "val_")} <= set(lines[0])
    model, features = RunFolder(tmp_path / "run").load_model()
    assert _validate(model, multi_label_dataset, features)["macro_recall"] == pytest.approx(
        max(line["val_macro_recall"] for line in lines), abs=1e-6
    )


def test_unlabelled_training_examples_are_left_out(tmp_path, pack_examples, train_small, make_small_features, capsys):
    examples = [
        SourceExample(f"e{i}", f"rows:{i}", texts={"title": [f"{'ab'[i % 2]} thing"]}, labels=["ab"[i % 2]] if i < 20 else [])
        for i in range(40)
    ]
    folder = pack_examples(tmp_path / "half", examples)
    features = functools.partial(make_small_features, image_size=None, text_fields=("title",), max_tokens=4)
    train_small(folder, tmp_path / "run", make_features=features, val_split=None, batch_size=10, dry_run=True)
    assert "20 training examples an epoch, 2 steps of 10" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("cached", [True, False])
def test_auxiliary_heads_train_and_are_not_in_the_run(dataset, train_small, build_small_model, tmp_path, cached):
    def build(features):
        model = build_small_model(features)
        if cached:
            for name in ("image_tower", "text_encoder"):
                model.get_layer(name).trainable = False
        return model

    losses = {}
    for weight in (0.0, 0.5):
        folder = tmp_path / str(weight)
        train_small(dataset, folder, build_model=build, auxiliary_weight=weight, epochs=2)
        losses[weight] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    model, _ = RunFolder(tmp_path / "0.5").load_model()
    assert not [layer.name for layer in model.layers if "auxiliary" in layer.name]
    assert losses[0.5][0]["loss"] > losses[0.0][0]["loss"] + 0.3
    assert {"top_1", "val_top_1"} <= set(losses[0.5][0]) == set(losses[0.0][0])
