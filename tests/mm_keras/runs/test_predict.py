import json
import re
import shutil

import numpy as np
import pandas
import pytest
from PIL import Image

from mm_keras.runs.example_rows import InputOptions, Row
from mm_keras.runs.predict import Predictor, predict
from mm_keras.runs.predict_many import Wanted, iter_answers
from mm_keras.runs.predictions_file import Counts, Parts
from mm_keras.runs.run_folder import RunFolder
from tests.faults import drawn_pictures as drawn
from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.packing.images import ImageOptions, prepare_image


@pytest.fixture(scope="module")
def predictor(trained_run):
    """Of the trained run, which `predict` takes instead of loading the run again."""
    loaded = Predictor(trained_run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mm_keras.runs.predict.Predictor", lambda run: loaded if run == trained_run else Predictor(run))
        yield loaded


@pytest.fixture
def picture(tmp_path, encode_image):
    path = tmp_path / "picture.png"
    path.write_bytes(encode_image(Image.new("RGB", (50, 40), "teal"), "PNG"))
    return path


def _lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


def test_one_example_is_printed_best_first(trained_run, picture, capsys, predictor):
    example = {"image": str(picture), "title": "solid oak"}
    assert predict(trained_run, example) is None
    rows = [line.split(None, 1) for line in capsys.readouterr().out.splitlines()]
    (answer,) = predictor([predictor.read(example)])
    assert set(answer) == {"labels", "probabilities"}  # no thresholds where one label is right
    assert [label for _, label in rows] == answer["labels"]
    assert [float(probability) for probability, _ in rows] == pytest.approx(answer["probabilities"], abs=1e-4)
    assert answer["probabilities"] == sorted(answer["probabilities"], reverse=True)
    assert len(rows) == 5


def test_any_input_alone_is_enough(predictor, picture):
    for example in ({"image": str(picture)}, {"title": "oak"}, {"description": "made of oak", "title": None, "image": ""}):
        (answer,) = predictor([predictor.read(example)])
        assert len(answer["labels"]) == 5


def test_what_is_left_out_is_missing_not_blank(predictor, picture, tmp_path, encode_image):
    black = tmp_path / "black.png"
    black.write_bytes(encode_image(Image.new("RGB", (32, 32)), "PNG"))
    raws = [predictor.read({"title": "oak"}), predictor.read({"title": "oak", "image": str(black)})]
    without, with_black = predictor(raws)
    assert without["probabilities"] != with_black["probabilities"]


@pytest.mark.parametrize("name", ["png rgba", "png palette with alphas", "webp with alpha and exif", "webp animated", "tiff"])
def test_picture_is_read_as_it_was_packed(predictor, tmp_path, name):
    """The model sees the very bytes that a record of the dataset would hold; those were packed at 40 pixels."""
    data, _ = (drawn.READ_BY_ALL | drawn.REFUSED_BY_THE_GRAPH)[name]
    (tmp_path / "picture").write_bytes(data)
    raw = predictor.read({"image": str(tmp_path / "picture")})
    assert raw["image"] == prepare_image(data, ImageOptions(short_side=40)).data
    assert len(predictor([raw])[0]["labels"]) == 5


def test_images_of_a_file_lie_in_its_folder_unless_others_are_allowed(trained_run, predictor, picture, monkeypatch):
    monkeypatch.setattr("mm_keras.runs.predict.Predictor", lambda workdir: predictor)  # loaded before
    folder = picture.parent / "requests"
    folder.mkdir()
    rows = [{"image": "../picture.png"}, {"image": str(picture)}, {"image": "../picture.png", "title": "oak"}, {"title": "oak"}]
    (folder / "new.jsonl").write_text("\n".join(map(json.dumps, rows)))
    answers = _lines(predict(trained_run, examples_file=str(folder / "new.jsonl")))
    assert ["lies outside of" in answer.get("error", "") for answer in answers] == [True, True, True, False]
    answers = _lines(predict(trained_run, examples_file=folder / "new.jsonl", options=InputOptions(allow_outside=True)))
    assert not any("error" in answer for answer in answers)


def test_blank_texts_are_missing_whatever_their_white_space(predictor):
    blank = predictor.read({"title": "oak", "description": "\u3000\u2003\u00a0\x85"})
    assert blank == predictor.read({"title": " oak\u00a0"})
    with pytest.raises(ValueError, match="has none of the model's inputs"):
        predictor.read({"title": "\u2003"})


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"titel": "oak"}, r"no input 'titel'; its inputs are \['image', 'title', 'description'\]"),
        ({"title": " "}, r"has none of the model's inputs \['image', 'title', 'description'\]"),
        ({"title": ["oak"]}, r"input 'title' must be text. Received: \['oak'\]"),
        ({"image": 3}, r"input 'image' must be text. Received: 3"),
    ],
)
def test_example_that_the_model_cannot_take_is_an_error(predictor, example, message):
    with pytest.raises(ValueError, match=message):
        predictor.read(example)


def test_image_that_is_missing_or_none_is_an_error(predictor, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        predictor.read({"image": str(tmp_path / "gone.jpg")})
    for content in (b"", b"no picture", b"\xff\xd8\xff\xe0 cut off"):
        (tmp_path / "bad.jpg").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.jpg: (empty image|not a picture of|broken image header)"):
            predictor.read({"image": str(tmp_path / "bad.jpg")})


def test_both_or_neither_kind_of_examples_is_an_error(trained_run, tmp_path):
    for example, file in ((None, None), ({}, None), ({"title": "oak"}, str(tmp_path / "x.jsonl"))):
        with pytest.raises(ValueError, match=r"give one example \(--image=.*--examples=FILE\.jsonl"):
            predict(trained_run, example, file)


def test_file_of_examples_is_answered_line_by_line_with_errors_in_place(trained_run, picture, predictor, capsys):
    lines = [
        json.dumps({"image": picture.name, "title": "solid oak"}),
        json.dumps({"title": "one\u2028two \x85 three"}, ensure_ascii=False),
        "",
        "{broken",
        '["a", "list"]',
        json.dumps({"titel": "oak"}),
        json.dumps({"image": "gone.png"}),
        *[json.dumps({"title": f"number {index}"}) for index in range(40)],
    ]
    file = picture.parent / "new.jsonl"
    file.write_text("\n".join(lines) + "\n", "utf-8-sig")
    output = predict(trained_run, examples_file=str(file))
    assert output == picture.parent / "new.predictions.jsonl"
    answers = _lines(output)
    assert len(answers) == len(lines)
    assert [index for index, answer in enumerate(answers) if "error" in answer] == [2, 3, 4, 5, 6]
    assert "expected a JSON object" in answers[4]["error"]
    assert "'titel'" in answers[5]["error"]
    assert "gone.png" in answers[6]["error"]
    (expected,) = predictor([predictor.read({"image": str(picture), "title": "solid oak"})])
    assert answers[0]["labels"] == expected["labels"]
    np.testing.assert_allclose(answers[0]["probabilities"], expected["probabilities"], atol=1e-5)
    assert [answer["id"] for answer in answers[:3]] == ["new:1", "new:2", "new:3"]
    assert re.search(r"new\.predictions\.jsonl: 42 predictions, 5 bad lines", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.jsonl", "", r"none\.jsonl is empty"),
        ("bad.jsonl", "{broken\n{broken\n", r"no row of bad\.jsonl can be read; the first, bad\.jsonl:1: malformed row"),
        (
            "other.csv",
            "a,b\n1,2\n",
            r"none of the run's inputs .*; its columns are \['a', 'b'\].*--text='FIELD=COLUMN'",
        ),
        ("gone.csv", "image\n1.png\n2.png\n", r"nothing was predicted: all 2 rows are bad, the first: .*1\.png"),
        ("note.txt", "text\n", r"none of the run's inputs"),
    ],
)
def test_file_of_which_nothing_can_be_used_is_an_error(trained_run, tmp_path, name, content, reason):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=reason):
        predict(trained_run, examples_file=str(tmp_path / name))


def test_table_one_trained_on_is_answered_row_by_row(trained_run, picture, predictor, capsys):
    rows = [f"p1,{picture.name},solid oak,7,kitchen", "p2,gone.png,,7,x", "p3,,0,7,kitchen", "p4,,,7,kitchen", "p5,a"]
    (picture.parent / "shop.csv").write_text("\n".join(["id,photo,title,price,kind", *rows]))
    output = predict(trained_run, examples_file=picture.parent / "shop.csv")
    answers = _lines(output)
    assert [answer["id"] for answer in answers] == ["p1", "p2", "p3", "p4", "shop:6"]
    assert ["error" in answer for answer in answers] == [False, True, False, True, True]
    expected = predictor([predictor.read({"image": str(picture), "title": "solid oak"}), predictor.read({"title": 0})])
    for answer, wanted in zip((answers[0], answers[2]), expected, strict=True):
        np.testing.assert_allclose(answer["probabilities"], wanted["probabilities"], atol=1e-5)
    out = capsys.readouterr().out
    assert "pictures are those of column 'photo'" in out
    assert "no column for 'description'" in out
    assert "not used: 'price', 'kind'" in out
    assert "2 predictions, 3 bad rows" in out


def test_folder_of_pictures_is_answered_recursively(trained_run, picture, capsys):
    (picture.parent / "in" / "deep").mkdir(parents=True)
    shutil.copy(picture, picture.parent / "in" / "deep" / "a.PNG")
    shutil.copy(picture, picture.parent / "in" / "b.png")
    (picture.parent / "in" / "c.jpg").write_bytes(b"no picture")
    output = predict(trained_run, examples_file=picture.parent / "in")
    assert output == picture.parent / "in.predictions.jsonl"
    assert [(answer["id"], "labels" in answer) for answer in _lines(output)] == [
        ("b.png", True),
        ("c.jpg", False),
        ("deep/a.PNG", True),
    ]
    assert "2 predictions, 1 bad pictures" in capsys.readouterr().out


def test_one_picture_is_printed(trained_run, picture, capsys):
    assert predict(trained_run, examples_file=picture) is None
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_example_that_fails_in_the_model_takes_no_other_along(predictor, monkeypatch):
    """Whatever passes the check of its bytes and is refused in the graph."""
    blank = {"image": b"", "title": b"", "description": b""}
    raws = {"good": blank | {"title": b"oak"}, "bad": blank | {"image": b"no picture"}}
    good, bad = Row("good", {"title": "good"}), Row("bad", {"title": "bad"})
    monkeypatch.setattr(predictor, "read", lambda inputs, roots: raws[inputs["title"]])
    answers = [answer for _, answer in iter_answers(predictor, [good, bad, good])]
    assert ["error" in answer for answer in answers] == [False, True, False]
    assert answers[0] == answers[2]


def test_output_that_is_the_input_is_an_error_and_keeps_it(trained_run, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"title": "oak"}\n')
    with pytest.raises(ValueError, match="is the input itself"):
        predict(trained_run, examples_file=tmp_path / "a.jsonl", output=tmp_path / "a.jsonl")
    assert (tmp_path / "a.jsonl").read_text() == '{"title": "oak"}\n'


def test_file_that_is_not_there_is_an_error(trained_run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.jsonl"):
        predict(trained_run, examples_file=str(tmp_path / "gone.jsonl"))


def test_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no run folder"):
        predict(tmp_path, {"title": "oak"})


def test_multi_label_answers_name_all_labels_above_their_thresholds(multi_label_run, tmp_path):
    run = shutil.copytree(multi_label_run, tmp_path / "run")
    predictor = Predictor(run)
    labels = predictor.features.labels
    (answer,) = predictor([predictor.read({"title": "solid oak"})])
    probabilities = dict(zip(answer["labels"], answer["probabilities"], strict=True))
    best, second, *_ = answer["labels"]
    thresholds = dict.fromkeys(labels, 0.99) | {best: probabilities[best] - 1e-3, second: probabilities[second] + 1e-3}
    write_text(run / "thresholds.json", json.dumps({"split": "val", "thresholds": thresholds}))
    predictor = Predictor(run)
    (answer,) = predictor([predictor.read({"title": "solid oak"})])
    assert answer["predicted"] == [best]


@pytest.fixture
def shop(picture):
    """A table with an id, a picture in a column of its own, a price, and a bad row."""
    rows = [f"p1,{picture.name},solid oak,7", "p2,gone.png,,8", "p3,,0,"]
    (picture.parent / "shop.csv").write_text("\n".join(["sku,front,title,label", *rows]) + "\n")
    return picture.parent / "shop.csv"


@pytest.fixture
def predict_shop(trained_run, predictor, shop, monkeypatch):
    """A function: (output, options, top, embed) -> the output of a run that was trained on the columns sku and front."""
    monkeypatch.setattr("mm_keras.runs.predict.Predictor", lambda workdir: predictor)  # loaded before
    facts = RunFolder(trained_run).facts() | {"columns": {"image": "front", "id": "sku"}}
    monkeypatch.setattr(RunFolder, "facts", lambda self: facts)

    def apply(name, options=InputOptions(), source=shop, **wanted):
        return predict(trained_run, None, source, options, shop.parent / name, Wanted(**wanted))

    return apply


def test_columns_are_those_of_the_training(predict_shop, predictor, picture):
    first, second, _ = _lines(predict_shop("out.jsonl", InputOptions(keep="all")))
    assert (first["id"], first["input label"], second["id"], "error" in second) == ("p1", "7", "p2", True)
    (expected,) = predictor([predictor.read({"image": str(picture), "title": "solid oak"})])
    np.testing.assert_allclose(first["probabilities"], expected["probabilities"], atol=1e-5)


def test_answers_are_written_as_csv(predict_shop):
    frame = pandas.read_csv(predict_shop("out.csv", InputOptions(keep=("label",)), top=1))
    assert list(frame) == ["id", "input label", "label", "probability", "error"]
    assert frame["id"].tolist() == ["p1", "p2", "p3"]
    assert frame["error"].isna().tolist() == [True, False, True]
    frame = pandas.read_csv(predict_shop("lists.csv", top=2))
    assert json.loads(frame["labels"][0])[0] == frame["label"][0]


def test_answers_are_written_as_parquet_with_all_probabilities_and_embeddings(predict_shop, predictor, shop):
    pandas.read_csv(shop).to_parquet(shop.with_suffix(".parquet"))
    output = predict_shop("out.parquet", InputOptions(keep="all"), shop.with_suffix(".parquet"), top=None, embed="title")
    frame = pandas.read_parquet(output)
    probabilities = frame[[f"probability: {label}" for label in predictor.features.labels]]
    np.testing.assert_allclose(probabilities.iloc[[0, 2]].sum(axis=1), 1, atol=1e-4)
    assert frame["input label"].tolist()[:2] == [7, 8]  # numbers stay numbers
    raw = predictor.read({"title": "0"})
    np.testing.assert_allclose(frame["embedding"][2], predictor.embeddings([raw], "title")[0], atol=1e-5)
    assert frame["embedding"][1] is None and "gone.png" in frame["error"][1]


def test_prediction_that_was_cut_off_goes_on(predict_shop, predictor, shop, monkeypatch, capsys):
    monkeypatch.setattr("mm_keras.runs.predict_many._PART", 2)
    expected = predict_shop("whole.jsonl").read_text()
    asked = []
    read = predictor.read

    def fail_at_the_third(inputs, roots):
        asked.append(inputs)
        if inputs.get("title") == "0" and len(asked) < 4:
            raise KeyboardInterrupt
        return read(inputs, roots)

    monkeypatch.setattr(predictor, "read", fail_at_the_third)
    monkeypatch.setattr("mm_keras.runs.predict_many._BATCH_SIZE", 2)
    monkeypatch.setattr("mm_keras.runs.predict_many._AHEAD", 0)
    with pytest.raises(KeyboardInterrupt):
        predict_shop("out.jsonl")
    assert not (shop.parent / "out.jsonl").exists()
    assert predict_shop("out.jsonl").read_text() == expected
    assert "2 rows are answered already; going on behind them" in capsys.readouterr().out
    assert len(asked) == 4
    assert not list(shop.parent.glob(".*"))


def test_parts_of_another_question_are_not_used(tmp_path):
    Parts(tmp_path / "out.csv", "one").add([{"id": 1, "error": "x"}], Counts(1, 0, 1, "x"))
    assert Parts(tmp_path / "out.csv", "one").counts == Counts(1, 0, 1, "x")
    assert Parts(tmp_path / "out.csv", "another").counts == Counts()


def test_dataset_is_answered_record_by_record(predict_shop, dataset, read_split, trained_run):
    records = read_split(dataset, "test")
    answers = _lines(predict_shop("out.jsonl", InputOptions(split="test"), dataset))
    assert [answer["id"] for answer in answers] == [record.id for record in records]
    assert not any("error" in answer for answer in answers)
    with pytest.raises(ValueError, match="has no split 'tset'"):
        predict_shop("out.jsonl", InputOptions(split="tset"), dataset)


@pytest.mark.parametrize(
    ("name", "options", "wanted", "message"),
    [
        ("out.xlsx", {}, {}, r"written as \.jsonl, \.csv, \.parquet. Received: --output=.*out\.xlsx"),
        ("out.csv", {"keep": ("prize",)}, {}, r"has no column 'prize' to keep"),
        ("out.csv", {}, {"embed": "titel"}, r"embeddings of 'fused', 'image', 'title', 'description'. Received: 'titel'"),
    ],
)
def test_what_cannot_be_written_is_an_error(predict_shop, name, options, wanted, message):
    with pytest.raises(ValueError, match=message):
        predict_shop(name, InputOptions(**options), **wanted)
