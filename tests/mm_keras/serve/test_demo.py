"""What the demo's page asks for; `test_demo_page` clicks through the page itself."""

import asyncio
import base64
import io

import numpy as np
import pytest
from PIL import Image

from mm_keras.serve.demo.explain import disagreement, explain_regions, log_odds
from mm_keras.serve.demo.routes import add_demo
from mm_keras.serve.models import ModelSource

KEY = "review_text_42d93221"


@pytest.fixture(scope="module")
def demo(start, exported):
    with start(ModelSource("reviews", exported[0]), pages=add_demo) as client:
        yield client


@pytest.fixture
def form(exported):
    return {"image": {"b64": base64.b64encode(exported[2]["image"][0]).decode()}, "Review Text": "oak mug"}


def _scores(client, features, **form):
    answer = client.post(f"/classify?top={len(features.labels)}", json=form).json()
    return {each["label"]: each["probability"] for each in answer["labels"]}


def _log_odds(scores, label):
    return np.log(scores[label]) - np.log(sum(scores.values()) - scores[label])


def test_the_page_forbids_what_comes_from_elsewhere(demo):
    answer = demo.get("/")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "https://" not in answer.text and 'lang="en"' in answer.text


def test_the_model_is_described_with_samples(demo):
    about = demo.get("/demo/model").json()
    assert [(each["name"], each["key"], each["is_image"]) for each in about["inputs"]] == [
        ("image", "image", True),
        ("Review Text", KEY, False),
    ]
    assert (about["model"], about["version"], about["num_labels"], about["multi_label"]) == ("reviews", 1, 4, False)
    assert [sample["texts"][KEY] for sample in about["samples"]] == ["oak mug", "steel", "the blue mug"]
    assert about["samples"][0]["image"].startswith("data:image/jpeg;base64,")
    assert (about["can_add_classes"], about["has_neighbours"]) == (False, False)


def test_an_input_added_what_is_lost_without_it(demo, exported, form):
    features = exported[1]
    answer = demo.post("/demo/explain/inputs", json=form).json()
    whole = _scores(demo, features, **form)
    assert answer["label"] == max(whole, key=whole.get)
    for each in answer["inputs"]:
        name = "image" if each["name"] == "image" else "Review Text"
        rest = _scores(demo, features, **{key: value for key, value in form.items() if key != name})
        assert each["added"] == pytest.approx(_log_odds(whole, answer["label"]) - _log_odds(rest, answer["label"]), abs=1e-3)
        assert each["without"] == pytest.approx(rest[answer["label"]], abs=1e-5)
        alone = _scores(demo, features, **{name: form[name]})
        assert each["alone"]["label"] == max(alone, key=alone.get)


def test_a_word_mattered_as_much_as_is_lost_without_it(demo, exported, form):
    features = exported[1]
    answer = demo.post("/demo/explain/words", json=form).json()
    whole = _scores(demo, features, **form)
    best = max(whole, key=whole.get)
    assert [word["text"] for word in answer[KEY]] == ["oak ", "mug"]
    without = _scores(demo, features, **{**form, "Review Text": "oak "})
    assert answer[KEY][1]["weight"] == pytest.approx(_log_odds(whole, best) - _log_odds(without, best), abs=1e-3)


def test_one_word_alone_is_weighed_against_knowing_nothing(demo, exported):
    answer = demo.post("/demo/explain/words", json={"Review Text": "oak"}).json()
    scores = _scores(demo, exported[1], **{"Review Text": "oak"})
    known = _log_odds(scores, max(scores, key=scores.get))
    assert answer[KEY][0]["weight"] == pytest.approx(known - np.log(1 / 3), abs=1e-3)  # of one label in four


def test_odds_are_exact_where_a_model_is_sure():
    sure = np.array([[1.0, 1e-20, 3e-20], [1.0, 1e-10, 3e-10]], "float32")
    np.testing.assert_allclose(log_odds(sure, 0, multi_label=False), -np.log([4e-20, 4e-10]), rtol=1e-5)
    np.testing.assert_allclose(log_odds(np.array([[0.8, 0.9]]), 0, multi_label=True), np.log(4))


def test_regions_are_where_the_label_comes_from(encode_image):
    """The model asked here sees nothing but the top left corner."""

    async def ask(examples):
        bright = [0.01 + 0.98 * np.asarray(Image.open(io.BytesIO(each["image"])))[:4, :4].mean() / 255 for each in examples]
        return np.array([[value, 1 - value] for value in bright])

    pixels = np.zeros((70, 70, 3), "uint8")
    pixels[:10, :10] = 255
    found = asyncio.run(explain_regions(ask, {"image": encode_image(pixels, "PNG")}))
    assert (found["rows"], found["columns"], int(np.argmax(found["weights"]))) == (7, 7, 0)
    assert found["weights"][0] > 2 and max(found["weights"][1:]) == pytest.approx(0)


def test_inputs_that_contradict_each_other_for_sure_are_told_of():
    labels = ("mug", "lamp")
    told = disagreement(np.array([0.9, 0.1]), np.array([0.2, 0.8]), labels)
    assert told == "Picture and text disagree: the picture alone says mug (90%), the text alone lamp (80%)."
    assert disagreement(np.array([0.9, 0.1]), np.array([0.6, 0.4]), labels) is None
    assert disagreement(np.array([0.45, 0.4, 0.15]), np.array([0.1, 0.8, 0.1]), (*labels, "pot")) is None
    assert disagreement(None, np.array([0.2, 0.8]), labels) is None


def test_what_cannot_be_explained_is_told(demo):
    assert demo.post("/demo/explain/words", json={}).json() == {"error": "the example has no input"}
    assert demo.post("/demo/explain/nope", json={"Review Text": "a"}).status_code == 404
    broken = {"image": {"b64": base64.b64encode(b"no picture").decode()}}
    assert "the picture cannot be read" in demo.post("/demo/explain/regions", json=broken).json()["error"]
    assert "start the demo with it" in demo.post("/demo/explain/neighbours", json={"Review Text": "a"}).json()["why"]
    no_pictures = demo.post("/demo/classes", json={"label": "stool", "pictures": "a.jpg"})
    assert (no_pictures.status_code, "must be a list of at most 16" in no_pictures.json()["error"]) == (400, True)
    refused = demo.post("/demo/classes", json={"label": "stool", "text": "an oak stool"})
    assert (refused.status_code, "cannot take new classes" in refused.json()["error"]) == (400, True)
