import csv
import json
import re
import shutil

import numpy as np
import pytest

from mm_keras.cli.main import main
from mm_keras.report.report import PARTS, report
from mm_keras.runs.evaluate import evaluate
from mm_keras.runs.run_folder import RunFolder
from tfrecords_tools.dataset import checksums
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.sources.example import SourceExample


@pytest.fixture
def run(tmp_path, trained_run):
    return shutil.copytree(trained_run, tmp_path / "run")


def test_page_is_one_file_without_requests(reported, read_page):
    path = reported / "report" / "report.html"
    page = read_page(path)
    assert path.stat().st_size < 3_000_000
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "://" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page.html)
    assert "default-src 'none'" in page.html
    assert [name for name in PARTS if name in page.ids] == list(PARTS)
    assert len(page.ids) == len(set(page.ids))
    assert set(re.findall(r"url\(#([^)]+)\)", page.html)) <= set(page.ids)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)


def test_scores_are_those_of_the_evaluation(content, trained_run, run):
    table = evaluate(run)
    shown = {row["inputs"]: row["measures"] for row in content["inputs"]["subsets"]}
    for row in table["rows"]:
        if row["trained"] == "together":
            assert shown[row["inputs"]]["accuracy"]["value"] == pytest.approx(row["top_1"], abs=1e-5)
            assert shown[row["inputs"]]["macro_f1"]["value"] == pytest.approx(row["macro_f1"], abs=1e-4)
            assert shown[row["inputs"]]["ece"]["value"] == pytest.approx(row["ece"], abs=1e-4)
    (baseline,) = content["inputs"]["baselines"]
    of_baseline = next(row for row in table["rows"] if row["trained"] == "alone")
    assert baseline["measures"]["accuracy"]["value"] == pytest.approx(of_baseline["top_1"], abs=1e-5)
    assert len(shown) == 2**3


def test_hiding_inputs_never_passes_the_known_ceilings_but_by_chance(content, dataset):
    ceilings = Split.open(dataset, "test").dataset.info.ceilings
    assert ceilings
    for row in content["inputs"]["subsets"]:
        if row["inputs"] in ceilings:
            assert row["measures"]["accuracy"]["low"] <= ceilings[row["inputs"]]


def test_sections_agree_with_each_other(content):
    number = content["num_examples"]
    who = content["inputs"]["who_is_right"]
    assert sum(cell["count"] for cell in who["cells"]) == number
    together = sum(cell["share"] for cell in who["cells"] if cell["together"])
    assert together == pytest.approx(content["measures"]["accuracy"]["value"], abs=1e-4)
    assert sum(row["support"] for row in content["classes"]["labels"]) == number
    curves = {curve["input"]: curve["points"] for curve in content["inputs"]["missing_curves"]}
    subsets = {row["inputs"]: row["measures"]["accuracy"]["value"] for row in content["inputs"]["subsets"]}
    assert curves["every input"][0]["value"] == pytest.approx(subsets["all inputs"], abs=1e-5)
    assert curves["every input"][-1]["value"] == pytest.approx(subsets["nothing"], abs=1e-5)
    assert curves["image"][-1]["value"] == pytest.approx(subsets["all texts"], abs=1e-5)


def test_contributions_add_up(content):
    examples = content["why"]["examples"]
    assert len({example["id"] for example in examples}) == len(examples) >= 15
    for example in examples:
        total = sum(of["value"] for of in example["contributions"])
        assert total == pytest.approx(example["with_all"] - example["with_nothing"], abs=1e-4)
        assert len(example["neighbours"]) == 5
        assert all(near["split"] == "train" for near in example["neighbours"])
    assert any(np.shape(example.get("regions")) == (5, 5) for example in examples)
    assert any(len(words) > 1 for example in examples for words in example.get("words", {}).values())


def test_what_is_drawn_stands_beside_the_page(reported, content):
    folder = reported / "report"
    figures = sorted(path.name for path in (folder / "figures").iterdir())
    assert {"inputs.svg", "missing.svg", "confusion.svg", "reliability.svg", "risk_coverage.svg", "map_0.svg"} <= set(figures)
    assert all((folder / "figures" / name).read_text("utf-8").startswith("<svg ") for name in figures)
    with open(folder / "tables" / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == content["num_examples"]
    right = np.mean([row["right"] == "True" for row in rows])
    assert right == pytest.approx(content["measures"]["accuracy"]["value"], abs=1e-5)
    assert {"inputs.csv", "classes.csv", "confusion.csv"} <= {path.name for path in (folder / "tables").iterdir()}
    assert not checksums.find_problems(reported)


def test_model_card_has_the_fields_of_the_hub(reported, content):
    card = (reported / "report" / "MODEL_CARD.md").read_text("utf-8")
    _, head, body = card.split("---\n", 2)
    for line in ("library_name: keras", "pipeline_tag: image-classification", "model-index:", "          - type: accuracy"):
        assert line in head
    assert f"value: {content['measures']['accuracy']['value']:.4f}" in head
    for title in ("Intended use", "Training", "Evaluation", "Limitations", "Labels"):
        assert f"## {title}" in body


@pytest.mark.ci
def test_parts_are_left_out_and_old_tables_deleted(run, read_page):
    evaluate(run, split="val")
    report(run, parts=["classes"])  # of what was evaluated last
    assert json.loads((run / "report" / "report.json").read_text())["split"] == "val"
    assert (run / "report" / "tables" / "confusion.csv").is_file()
    report(run, split="test", parts=["training"])
    page, content = read_page(run / "report" / "report.html"), json.loads((run / "report" / "report.json").read_text())
    assert [name for name in PARTS if name in page.ids] == ["verdict", "training"]
    assert "inputs" not in content
    assert "inputs (not asked for)" in page.text
    assert sorted(path.name for path in (run / "report" / "tables").iterdir()) == ["predictions.csv"]
    assert not checksums.find_problems(run)
    assert report(run, parts=[]) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": ["map"]}, r"parts of a report are verdict, inputs, .* Received: 'map'; did you mean 'maps'"),
        ({"parts": ["training"], "split": "tset"}, r"no split 'tset'"),
        ({"parts": ["training"], "output": "report.pdf"}, r"output ends in \.html\. Received: 'report\.pdf'"),
    ],
)
def test_what_does_not_exist_is_told(trained_run, options, message):
    with pytest.raises(ValueError, match=message):
        report(trained_run, **options)


def _title_run(tmp_path, train_small, pack_examples, examples, **options):
    """A run that sees titles alone."""
    folder = pack_examples(tmp_path / "data", examples, text_fields=("title",), **options)
    train_small(folder, tmp_path / "run", modalities=("title",), batch_size=4, val_split=None, make_features=_titles)
    return tmp_path / "run"


def _titles(dataset, **options):
    from mm_keras.data.make_features import make_features

    return make_features(dataset, image_size=None, text_fields=("title",), max_tokens=8)


def _examples(count, label, split="train", text="thing {}", start=0):
    return [
        SourceExample(f"{split}{start + i}", f"t:{i}", texts={"title": [text.format(i)]}, labels=label(i), split=split)
        for i in range(count)
    ]


def test_html_in_labels_and_texts_is_escaped_and_odd_splits_are_no_trouble(tmp_path, train_small, pack_examples, read_page):
    """Text alone, a test split of 5 examples of one class, and names that would be HTML, a formula or LaTeX."""
    names = ["<script>alert(1)</script>", "=1+1", "$x_1$ & co", "標"]
    examples = _examples(40, lambda i: [names[i % 4]], text="<b onload=x>thing</b> {}")
    examples += _examples(5, lambda i: [names[0]], "test", text="<img src=http://x/y.png> {}")
    run = _title_run(tmp_path, train_small, pack_examples, examples)
    page = read_page(report(run, split="test", parts=PARTS))
    assert page.tags.count("script") == 1  # its own
    assert "onload" not in re.sub(r"&lt;.*?&gt;", "", page.html)
    assert names[0] in page.text
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "3 labels have no example in this split" in page.text
    table = (run / "report" / "tables" / "classes.csv").read_text("utf-8")
    assert "'=1+1" in table
    assert not re.search(r"(^|,)=1", table, re.MULTILINE)


def test_examples_without_labels_have_predictions_and_data(tmp_path, trained_run, pack_examples, read_page):
    run = shutil.copytree(trained_run, tmp_path / "run")
    rows = [SourceExample(f"n{i}", f"t:{i}", texts={"title": ["solid oak"], "description": ["new"]}) for i in range(6)]
    folder = pack_examples(tmp_path / "new", rows, ("title", "description"), fractions={"test": 1.0})
    page = read_page(report(run, dataset=folder, split="test", parts=PARTS, output=tmp_path / "out" / "page.html"))
    assert "These examples have no labels" in page.text
    assert {"inputs", "classes"} & set(page.ids) == set()
    assert {"trust", "data", "why", "maps"} <= set(page.ids)
    assert "inputs (the examples have no labels)" in page.text
    content = json.loads((tmp_path / "out" / "page_data" / "page.json").read_text())
    assert content["measures"] == {}
    assert content["data"]["missing"][0]["missing"]["image"] == 1


@pytest.mark.slow
def test_a_thousand_classes(tmp_path, train_small, pack_examples, read_page):
    examples = _examples(2000, lambda i: [f"class {i % 1000}"], text="word{}")
    examples += _examples(200, lambda i: [f"class {i}"], "test", text="word{}")
    run = _title_run(
        tmp_path, train_small, pack_examples, examples, labels=LabelVocabulary([f"class {i}" for i in range(1000)])
    )
    path = report(run, split="test", parts=PARTS)
    assert path.stat().st_size < 3_000_000
    assert "800 labels have no example" in read_page(path).text


def test_several_labels_have_thresholds_and_what_occurs_together(tmp_path, multi_label_run, read_page):
    run = shutil.copytree(multi_label_run, tmp_path / "run")
    path = report(run, split="test", parts=["inputs", "classes", "trust", "data"])
    content = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert content["inputs"]["measure"] == "mAP"
    assert np.shape(content["classes"]["co_occurrence"]["shares"])[0] == len(content["classes"]["co_occurrence"]["labels"])
    assert content["classes"]["thresholds"]
    tuned = json.loads(RunFolder(run).thresholds.read_text())["thresholds"]
    for row in content["classes"]["labels"]:
        assert row["threshold"] == pytest.approx(tuned[row["label"]], rel=1e-4)
    assert (path.parent / "figures" / "thresholds.svg").is_file()


def test_planted_leaks_and_telling_texts_are_found(tmp_path, trained_run, dataset, read_split, pack_examples):
    """Test pictures that stand in the training split, too, are named, all of them; so are texts that name their label."""
    labels = LabelVocabulary.load(f"{dataset}/labels.txt")
    copies = read_split(dataset, "train")[:8]
    assert all(record.image for record in copies[:2])
    rows = [
        SourceExample(
            f"copy{i}",
            f"t:{i}",
            image=record.image or None,
            texts={"title": [f"A fine {labels.names[record.label_ids[0]]}"], "description": list(record.texts["description"])},
            labels=[labels.names[record.label_ids[0]]],
        )
        for i, record in enumerate(copies)
    ]
    folder = pack_examples(tmp_path / "new", rows, ("title", "description"), labels=labels, fractions={"test": 1.0})
    run = shutil.copytree(trained_run, tmp_path / "run")
    path = report(run, dataset=folder, split="test", parts=["data"])
    data = json.loads(path.with_suffix(".json").read_text("utf-8"))["data"]
    with_picture = {f"copy{i}" for i, record in enumerate(copies) if record.image}
    assert with_picture <= {row["id"] for row in data["leaks"]["rows"] if "image" in row["what"]}
    titles = next(row for row in data["named_labels"] if row["field"] == "title")
    assert (titles["count"], titles["share"]) == (8, 1)


def test_what_others_keep_beside_a_page_is_left_alone(tmp_path, run):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "mine.csv").write_text("1")
    for parts in (["classes"], ["training"]):
        report(run, parts=parts, output=tmp_path / "page.html")
        data = tmp_path / "page_data"
        assert (data / "tables" / "classes.csv").exists() == (parts == ["classes"])
        (data / "tables" / "mine.csv").write_text("2")
    assert (tmp_path / "tables" / "mine.csv").read_text() == "1"
    assert (data / "tables" / "mine.csv").read_text() == "2"
    assert not (run / "report" / "report.html").exists()


@pytest.mark.ci  # the functions behind it are tested above
def test_commands_write_pages_and_say_where(run, call, trained_run, tmp_path):
    status, out, err = call(main, "report", run, "--parts=training")
    assert status == 0, err
    assert f"report: {run}/report/report.html" in out
    status, out, err = call(main, "report", run, trained_run, "--output", tmp_path / "both.html")
    assert status == 0, err
    assert f"comparison: {tmp_path}/both.html" in out
    status, _, err = call(main, "report", run, "--parts=nothing")
    assert (status, "parts of a report are" in err) == (2, True)
