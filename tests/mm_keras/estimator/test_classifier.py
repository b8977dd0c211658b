import json
import pickle

import keras
import numpy as np
import pandas
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from mm_keras import MultimodalClassifier

COLOURS = {"red": 0, "green": 1, "blue": 2}
WORDS = ("oak", "mug")


def _frame(count: int, seed: int) -> pandas.DataFrame:
    """Classes 0 to 5: the picture tells the colour, the text tells the word; cells of all kinds, some of them empty."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        colour, word = list(COLOURS)[number % 3], WORDS[number // 3 % 2]
        picture = Image.new("RGB", (20, 16), colour)
        photo = np.asarray(picture) if number % 2 else picture
        rows.append(
            {"Title (en)": f"the {word}", "photo": photo, "kind": COLOURS[colour] * 2 + WORDS.index(word), "price": number}
        )
    frame = pandas.DataFrame(rows, index=rng.permutation(count) * 10)
    frame.iloc[-1, frame.columns.get_loc("photo")] = None
    return frame


@pytest.fixture(scope="module")
def tower():
    """Average colour: an image tower that needs no training."""
    pixels = keras.Input((16, 16, 3))
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(pixels))


@pytest.fixture(scope="module")
def unfitted(tower, tiny_bert):
    return MultimodalClassifier("photo", "Title (en)", image_encoder=tower, text_encoder=tiny_bert, verbose=0)


@pytest.fixture(scope="module")
def classifier(unfitted):
    return clone(unfitted).fit(_frame(60, seed=0), "kind")


@pytest.fixture(scope="module")
def new():
    return _frame(24, seed=1).iloc[:-1]


def test_answers_are_labels_as_they_were_given_in_the_rows_order(classifier, new):
    answers = classifier.predict(new)
    assert answers.name == "kind" and answers.dtype == np.int64 and answers.index.equals(new.index)
    assert (answers == new["kind"]).all()
    probabilities = classifier.predict_proba(new)
    assert probabilities.columns.tolist() == classifier.classes_.tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert classifier.score(new, new["kind"]) == 1


def test_columns_may_stand_in_any_order_and_rows_may_be_few(classifier, new):
    whole = classifier.predict_proba(new)
    shuffled = classifier.predict_proba(new[["kind", "photo", "price", "Title (en)"]].iloc[::-1])
    np.testing.assert_allclose(shuffled.iloc[::-1], whole, atol=1e-6)
    np.testing.assert_allclose(classifier.predict_proba(new.iloc[[3]]), whole.iloc[[3]], atol=1e-6)
    assert classifier.predict(new.iloc[:0]).empty and classifier.predict_proba(new.iloc[:0]).shape == (0, 6)
    twice = pandas.concat([new.iloc[:2], new.iloc[:2]])
    assert classifier.predict(twice).tolist() == [*new["kind"].iloc[:2], *new["kind"].iloc[:2]]


def test_inputs_can_be_hidden(classifier, new):
    assert classifier.evaluate(new)["top_1"] == 1
    assert classifier.evaluate(new, hide=["photo"])["top_1"] < 0.6
    with pytest.raises(ValueError, match=r"hide names inputs, which are \['photo', 'Title \(en\)'\]. Received: 'foto'"):
        classifier.evaluate(new, hide=["foto"])


def test_rows_that_lack_everything_or_cannot_be_read_are_answered_with_a_warning(classifier, new, tmp_path):
    (tmp_path / "bad.jpg").write_text("no picture")
    rows = new.iloc[:2].copy()
    rows["photo"] = [str(tmp_path / "bad.jpg"), None]
    rows["Title (en)"] = ["the oak", None]
    with (
        pytest.warns(UserWarning, match=r"the pictures of 1 rows cannot be read .* row \d+: .*bad\.jpg"),
        pytest.warns(UserWarning, match="1 rows have none of the inputs"),
    ):
        answers = classifier.predict(rows)
    assert answers.iloc[0] % 2 == WORDS.index("oak")


def test_missing_column_is_named_with_the_nearest_one(classifier, new):
    with pytest.raises(ValueError, match=r"no column 'photo'; did you mean 'fotos'\? Its columns are"):
        classifier.predict(new.rename(columns={"photo": "fotos"}))


def test_embeddings(classifier, new):
    assert classifier.embed(new, of="photo").shape == (23, 3)
    assert classifier.embed(new, of="Title (en)").shape[0] == classifier.embed(new).shape[0] == 23
    with pytest.raises(ValueError, match=r"embed takes of='fused' or 'Title \(en\)' or 'photo'. Received: 'image'"):
        classifier.embed(new, of="image")


@pytest.mark.ci
def test_saved_classifier_answers_the_same(classifier, new, tmp_path):
    classifier.save(tmp_path / "run")
    loaded = MultimodalClassifier.load(tmp_path / "run")
    np.testing.assert_allclose(loaded.predict_proba(new), classifier.predict_proba(new), atol=1e-6)
    assert loaded.classes_.dtype == np.int64
    with pytest.raises(FileExistsError, match="exists already; choose another path, or pass overwrite=True"):
        classifier.save(tmp_path / "run")


def test_it_is_an_estimator(unfitted, classifier):
    copy = clone(classifier)
    assert copy.get_params().keys() == unfitted.get_params().keys() and not hasattr(copy, "classes_")
    assert pickle.loads(pickle.dumps(MultimodalClassifier(text="title"))).text == "title"
    with pytest.raises(TypeError, match=r"is kept by save\(path\)"):
        pickle.dumps(classifier)
    assert classifier.feature_names_in_.tolist() == ["photo", "Title (en)"]
    assert "make_features.text_fields = ('Title (en)',)" in classifier.to_gin()


@pytest.mark.ci
def test_cross_validation_and_several_labels(tower):
    frame = _frame(36, seed=2).iloc[:-1]
    colours = MultimodalClassifier("photo", image_encoder=tower, verbose=0)
    assert cross_val_score(colours, frame, frame["kind"] // 2, cv=2).tolist() == [1, 1]
    frame["tags"] = [f"warm|{kind // 2}" if kind // 2 == 0 else str(kind // 2) for kind in frame["kind"]]
    colours.set_params(label_separator="|").fit(frame, "tags")
    assert colours.predict(frame.iloc[:3]).tolist() == [["0", "warm"], ["1"], ["2"]]
    assert colours.score(frame, "tags") == 1


@pytest.mark.parametrize(
    ("arguments", "y", "message"),
    [
        ({}, "kind", r"name the columns: MultimodalClassifier\(image='photo'"),
        ({"text": "titel"}, "kind", r"no column 'titel'"),
        ({"text": "Title (en)"}, "sort", "no column 'sort'"),
        ({"text": "Title (en)"}, [1, 2], "there are 5 examples and 2 labels"),
        ({"text": "Title (en)"}, None, r"fit needs labels: fit\(X, 'category'\)"),
    ],
)
def test_what_cannot_be_learned_is_an_error(arguments, y, message):
    with pytest.raises(ValueError, match=message):
        MultimodalClassifier(**arguments, preset="scratch", verbose=0).fit(_frame(5, seed=0), y)


@pytest.mark.ci
def test_report_is_of_the_rows_that_are_given(classifier, new, tmp_path, monkeypatch):
    monkeypatch.setattr("mm_keras.report.report.PARTS_BY_DEFAULT", ("verdict", "inputs"))
    assert classifier.report(new, tmp_path / "a" / "page.html") == tmp_path / "a" / "page.html"
    content = json.loads((tmp_path / "a" / "page_data" / "page.json").read_text())
    assert content["num_examples"] == len(new)
    assert content["measures"]["accuracy"]["value"] == pytest.approx(classifier.score(new, "kind"))
    rows = pandas.read_csv(tmp_path / "a" / "page_data" / "tables" / "predictions.csv", index_col="id")
    assert (rows["best"].loc[new.index] == new["kind"]).all()
    classifier.report(new.drop(columns="kind"), tmp_path / "b" / "page.html")
    assert not json.loads((tmp_path / "b" / "page_data" / "page.json").read_text())["has_labels"]
