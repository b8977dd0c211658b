import functools
import json
import os
import shutil

import numpy as np
import pandas
import pyarrow.parquet
import pytest

from mm_keras.data.encode_once import CACHE_FOLDER, FrozenEncoder
from mm_keras.data.pipeline import make_evaluation_batches
from mm_keras.model.image_tower import build_small_cnn
from mm_keras.model.lexical_encoder import build_lexical_encoder
from mm_keras.model.text_encoder import build_small_text_encoder
from mm_keras.objectives.metrics import evaluate_logits, mean_logits
from mm_keras.runs.evaluate import evaluate, format_report
from mm_keras.runs.run_folder import RunFolder
from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.sources.example import Source, SourceExample
from tfrecords_tools.sources.sample import ceilings

COMBINATIONS = {
    "image": ("image",),
    "title": ("title",),
    "description": ("description",),
    "all texts": ("title", "description"),
    "all inputs": ("image", "title", "description"),
}


@pytest.fixture
def run(tmp_path, trained_run):
    """A copy of the trained run."""
    return shutil.copytree(trained_run, tmp_path / "run")


def _check_answers(path, run, report, read_split, dataset, multi_label):
    """A row an example, whose answers have the metrics of the report, by inputs shown."""
    answers = pandas.read_parquet(path)
    records = read_split(dataset, "test")
    labels = RunFolder(run).load_model()[1].labels
    assert answers["id"].tolist() == [record.id for record in records]
    assert json.loads(pyarrow.parquet.read_schema(path).metadata[b"labels"]) == list(labels)
    for row in report["rows"]:
        suffix = "" if row["inputs"] == "all inputs" else f": {row['inputs']}"
        if row["trained"] != "together":
            continue
        if multi_label:
            truth, said = ([set(cell) for cell in answers[name]] for name in ("truth", f"answer{suffix}"))
            hits = sum(len(one & other) for one, other in zip(truth, said, strict=True))
            total = sum(map(len, truth)) + sum(map(len, said))
            assert row.get("tuned_micro_f1", row["micro_f1"]) == pytest.approx(2 * hits / total, abs=1e-6)
        else:
            assert row["top_1"] == pytest.approx((answers["truth"] == answers[f"answer{suffix}"]).mean())
        assert {len(cell) for cell in answers[f"probabilities{suffix}"]} == {len(labels)}


def _recompute(run, dataset, split="test"):
    """Row name -> (metrics, examples with that input): by masking inputs of the whole model, one combination by one."""
    model, features = RunFolder(run).load_model()
    split = Split.open(dataset, split)
    ((inputs, labels, _),) = make_evaluation_batches(split, features, split.num_examples).dataset.as_numpy_iterator()
    rows = {}
    for name, shown in COMBINATIONS.items():
        found = np.any([inputs[f"{modality}_present"] for modality in shown], axis=0).sum()
        hidden = {f"{modality}_present": np.zeros(len(labels), bool) for modality in {*features.modalities} - {*shown}}
        rows[name] = evaluate_logits(model.predict_on_batch(inputs | hidden), labels, features.multi_label), found
    return rows


@pytest.mark.parametrize("multi_label", [False, True])
def test_rows_are_what_the_whole_model_says_with_inputs_hidden(tmp_path, request, multi_label, read_split):
    prefix = "multi_label_" if multi_label else ""
    source = request.getfixturevalue("multi_label_run" if multi_label else "trained_run")
    run = shutil.copytree(source, tmp_path / "run")
    dataset = request.getfixturevalue(f"{prefix}dataset")
    report = evaluate(run, batch_size=16, predictions=str(tmp_path / "answers.parquet"))
    _check_answers(tmp_path / "answers.parquet", run, report, read_split, dataset, multi_label)
    rows = {row["inputs"]: row for row in report["rows"] if row["trained"] == "together"}
    expected = _recompute(run, dataset)
    assert list(rows) == list(COMBINATIONS)
    for name, (metrics, found) in expected.items():
        assert rows[name]["present"] == found
        if multi_label and found < expected["all inputs"][1]:  # those without the shown inputs are equal; rounding orders them
            assert rows[name]["mAP"] == pytest.approx(metrics.pop("mAP"), abs=2e-3)
        assert {metric: rows[name][metric] for metric in metrics} == pytest.approx(metrics, abs=1e-6)
    names = ("micro_f1", "macro_f1", "mAP") if multi_label else ("top_1", "top_5")
    assert set(names) <= set(rows["all inputs"])


def _frozen(build, *args, **options):
    model = build(*args, **options)
    model.trainable = False
    return model


@pytest.mark.ci
def test_frozen_encoders_run_once_for_all_evaluations(tmp_path, dataset, train_small, build_small_model, monkeypatch):
    dataset = shutil.copytree(dataset, tmp_path / "data")
    shutil.rmtree(dataset / CACHE_FOLDER, ignore_errors=True)
    parts = {
        "image_tower": functools.partial(_frozen, build_small_cnn, widths=(8, 8)),
        "text_encoder": functools.partial(_frozen, build_small_text_encoder, width=8),
        "lexical_encoder": build_lexical_encoder,
    }
    run = tmp_path / "run"
    # Augmented, so that the training itself caches nothing.
    train_small(str(dataset), run, build_model=functools.partial(build_small_model, **parts), augment=True)
    with monkeypatch.context() as patched:
        patched.setattr("os.access", lambda path, mode: mode != os.W_OK)
        whole = evaluate(run)["rows"]
    assert not (dataset / CACHE_FOLDER).exists()
    rows = {row["inputs"]: row for row in evaluate(run)["rows"]}
    assert (dataset / CACHE_FOLDER).is_dir()
    for name, (metrics, found) in _recompute(run, dataset).items():
        assert rows[name]["present"] == found
        assert {metric: rows[name][metric] for metric in metrics} == pytest.approx(metrics, abs=1e-6)
    for row, expected in zip(rows.values(), whole, strict=True):
        assert row == pytest.approx(expected, abs=1e-6)

    def fail(*_):
        raise AssertionError("an encoder ran again")

    monkeypatch.setattr(FrozenEncoder, "__call__", fail)
    assert {row["inputs"]: row for row in evaluate(run)["rows"]} == rows


@pytest.fixture(scope="module")
def reported(tmp_path_factory, trained_run):
    """(run folder, report) of one evaluation."""
    run = shutil.copytree(trained_run, tmp_path_factory.mktemp("reports") / "run")
    return run, evaluate(run)


def test_report_is_written_as_json_and_as_a_table(reported):
    run, report = reported
    assert (report["split"], report["dataset"]) == ("test", "sample")
    assert json.loads((run / "report" / "evaluation.json").read_text()) == report
    table, details = (run / "report" / "evaluation.md").read_text().split("\ninputs all inputs: expected calibration error ")
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in rows[0].strip("|").split("|")] == [
        *("inputs", "trained", "examples with it", "top_1", "top_5", "ceiling")
    ]
    assert len({len(row) for row in rows}) == 1  # aligned
    assert len(rows) == 2 + len(report["rows"])
    *_, whole, _ = report["rows"]
    assert details.startswith(f"{whole['ece']:.3f}")
    assert [cell.strip() for cell in details.splitlines()[-1].strip("|").split("|")] == [
        *("most probable label", "weighted"),
        *(f"{whole[f'weighted_{score}']:.3f}" for score in ("precision", "recall", "f1")),
    ]


def test_ceilings_of_drawn_data_are_shown(reported):
    for row in reported[1]["rows"]:
        assert row["ceiling"] == ceilings()[row["inputs"]]


def test_baselines_follow_as_trained_alone(reported):
    run, report = reported
    *_, whole, alone = report["rows"]
    assert (whole["inputs"], whole["trained"]) == ("all inputs", "together")
    assert (alone["inputs"], alone["trained"]) == ("title", "alone")
    (only,) = evaluate(run / "baselines" / "title")["rows"]
    assert only == alone


def test_run_without_baselines_or_image_has_its_own_rows(tmp_path, bert_run):
    report = evaluate(shutil.copytree(bert_run, tmp_path / "run"))
    assert [(row["inputs"], row["trained"]) for row in report["rows"]] == [
        *(("title", "together"), ("description", "together"), ("all inputs", "together"))
    ]


def test_another_split_or_dataset_can_be_measured(run, tmp_path, dataset):
    moved = shutil.copytree(dataset, tmp_path / "elsewhere")
    report = evaluate(run, dataset=str(moved), split="val")
    assert (report["dataset"], report["split"]) == ("sample", "val")
    _, features = RunFolder(run).load_model()
    assert report["num_examples"] == make_evaluation_batches(Split.open(dataset, "val"), features, 8).num_examples


def test_folder_alone_is_enough_from_anywhere_with_any_batch_size(reported, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    report = evaluate("run", batch_size=7)
    for found, expected in zip(report["rows"], reported[1]["rows"], strict=True):
        assert found == pytest.approx(expected, abs=1e-6)
    assert format_report(report) in capsys.readouterr().out


@pytest.mark.parametrize("frozen", [False, True])
def test_other_labels_are_an_error(run, tmp_path, pack_examples, frozen):
    shutil.rmtree(run / "baselines")
    if frozen:  # its encodings would be kept
        facts = json.loads((run / "run.json").read_text())
        write_text(run / "run.json", json.dumps(facts | {"frozen": facts["modalities"]}))
    examples = [
        SourceExample(f"e{i}", f"rows:{i}", texts={"title": ["x"], "description": ["y"]}, labels=["ab"[i % 2]], split="test")
        for i in range(4)
    ]
    other = pack_examples(tmp_path / "other", examples, ("title", "description"))
    with pytest.raises(ValueError, match=r"has 2 multi-class labels .*the model 20 multi-class labels .*--labels="):
        evaluate(run, dataset=other)


def test_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no run folder"):
        evaluate(tmp_path)


def test_training_that_did_not_get_far_is_an_error(run):
    (run / "checkpoints" / "best.keras").unlink()
    with pytest.raises(FileNotFoundError, match="did not get that far"):
        evaluate(run)


def test_unlabelled_and_imageless_examples_of_the_dataset_are_handled(run, tmp_path, pack_examples, features):
    examples = [
        SourceExample(
            f"e{i}",
            f"rows:{i}",
            texts={"title": ["oak"] if i % 2 else [], "description": [] if i % 2 else ["metal"]},
            labels=[features.labels[i % 20]] if i < 24 else [],
            split="test",
        )
        for i in range(30)
    ]

    source = Source("rows", lambda: iter(examples), {"title": False, "description": False}, False)
    pack(
        source,
        tmp_path / "new",
        PackOptions(workers=1, max_bad_fraction=1.0),
        labels=LabelVocabulary(list(features.labels)),
        progress=False,
    )
    report = evaluate(run, dataset=str(tmp_path / "new"))
    assert report["num_examples"] == 24
    assert {row["inputs"]: row["present"] for row in report["rows"] if row["trained"] == "together"} == {
        "image": 0,
        "title": 12,
        "description": 12,
        "all texts": 24,
        "all inputs": 24,
    }
    assert not any("ceiling" in row for row in report["rows"])


@pytest.mark.ci
def test_answers_with_several_texts_are_averaged(run, tmp_path, pack_examples, features):
    rng = np.random.default_rng(0)
    materials = ["oak", "steel", "wool", "glass"]
    labels = list(features.labels)

    def example(index, titles):
        return SourceExample(str(index), str(index), texts={"title": titles, "description": []}, labels=[labels[index % 20]])

    titles = [[str(word) for word in rng.choice(materials, rng.integers(1, 4))] for _ in range(40)]
    given = LabelVocabulary(labels)
    fields = ("title", "description")
    three = pack_examples(tmp_path / "three", [example(i, t) for i, t in enumerate(titles)], fields, labels=given)
    model, _ = RunFolder(run).load_model()
    logits = []
    for turn in range(3):
        folder = tmp_path / f"only_{turn}"
        pack_examples(folder, [example(i, [t[turn % len(t)]]) for i, t in enumerate(titles)], fields, labels=given)
        batches = make_evaluation_batches(Split.open(folder, "train"), features, 40)
        inputs, true, _ = next(iter(batches.dataset))
        logits.append(model.predict_on_batch(inputs))
    expected = evaluate_logits(mean_logits(logits, False), true.numpy(), False)
    found = evaluate(run, three, "train", texts_per_field=3)["rows"][4]
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    with pytest.raises(ValueError, match="Received: 0"):
        evaluate(run, three, "train", texts_per_field=0)


def test_dataset_that_is_gone_is_named_with_what_to_do(run):
    facts = json.loads((run / "run.json").read_text()) | {"dataset": "/gone/away"}
    write_text(run / "run.json", json.dumps(facts))
    with pytest.raises(FileNotFoundError, match=r"/gone/away.*--dataset"):
        evaluate(run)
