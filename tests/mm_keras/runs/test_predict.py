import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from mm_keras.runs.predict import Predictor, predict
from tfrecords_tools.dataset.atomic_file import write_text


@pytest.fixture(scope="module")
def predictor(trained_run):
    return Predictor(trained_run)


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


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("BMP", "L"), ("BMP", "RGBA"), ("BMP", "P"), ("PNG", "LA"), ("PNG", "I;16"), ("GIF", "P"), ("JPEG", "CMYK")],
)
def test_picture_of_any_kind_is_answered_or_named(predictor, tmp_path, encode_image, kind, mode):
    """A picture that passes the check must not fail in the model, where it would take its whole batch along."""
    path = tmp_path / f"picture.{kind.lower()}"
    base = Image.new("RGB", (50, 40), "teal")
    path.write_bytes(encode_image(base.convert("L").convert(mode) if mode == "I;16" else base.convert(mode), kind))
    try:
        raw = predictor.read({"image": str(path)})
    except ValueError as error:
        assert path.name in str(error)
    else:
        assert len(predictor([raw])[0]["labels"]) == 5


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
        with pytest.raises(ValueError, match=r"bad\.jpg is no readable JPEG, PNG, GIF or BMP"):
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
    assert re.search(r"new\.predictions\.jsonl: 42 predictions, 5 bad lines", capsys.readouterr().out)


def test_empty_file_gives_an_empty_file(trained_run, tmp_path):
    (tmp_path / "none.jsonl").write_text("")
    assert predict(trained_run, examples_file=str(tmp_path / "none.jsonl")).read_text() == ""


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


def test_multi_class_answers_have_no_thresholds(predictor):
    (answer,) = predictor([predictor.read({"title": "oak"})])
    assert set(answer) == {"labels", "probabilities"}
