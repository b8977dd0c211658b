import time

import keras
import numpy as np
import pandas
import pytest
from sklearn.model_selection import GridSearchCV

from mm_keras import MultimodalClassifier
from mm_keras.cli.main import main
from mm_keras.estimator import fitting
from mm_keras.estimator.kept_folders import folder_of
from tfrecords_tools.dataset.folder import Dataset

WORDS = ("oak", "mug", "lamp")


def _frame(count, classes=2):
    kinds = np.arange(count) % classes
    return pandas.DataFrame({"name": [f"the {WORDS[kind]} number {row}" for row, kind in enumerate(kinds)], "kind": kinds})


@pytest.fixture(scope="module")
def words():
    """A text encoder that needs no training: which of the words are in a text."""
    texts = keras.Input((1,), dtype="string")
    ids = keras.layers.TextVectorization(output_sequence_length=4, vocabulary=[*WORDS, "the", "number"])(texts)
    one_hot = keras.layers.Embedding(7, 7, embeddings_initializer=keras.initializers.Identity())(ids)
    return keras.Model(texts, keras.layers.GlobalAveragePooling1D()(one_hot), name="words")


@pytest.fixture
def unfitted(words):
    return MultimodalClassifier(text="name", text_encoder=words, verbose=0)


@pytest.fixture(scope="module")
def solved_run(words, tmp_path_factory):
    """A run whose head was solved, of the classes 0 and 1."""
    classifier = MultimodalClassifier(text="name", text_encoder=words, verbose=0).fit(_frame(30), "kind")
    return classifier.save(tmp_path_factory.mktemp("solved") / "run")


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    """A run that was trained by gradient, of the classes 0 and 1."""
    classifier = MultimodalClassifier(text="name", preset="scratch", verbose=0).fit(_frame(60), "kind")
    assert classifier.score(_frame(20), "kind") == 1
    return classifier.save(tmp_path_factory.mktemp("trained") / "run")


def test_text_encoder_may_be_a_keras_model_and_goes_with_the_run(solved_run):
    loaded = MultimodalClassifier.load(solved_run)
    assert loaded.predict(_frame(6)).tolist() == [0, 1, 0, 1, 0, 1]
    assert (loaded.classes_.dtype, loaded.text) == (np.int64, ("name",))
    assert loaded.evaluate(_frame(6))["top_1"] == 1  # it knows its label column


def test_a_column_a_label_is_learned_and_remembered(unfitted):
    frame = _frame(24, classes=3)
    frame["oak"], frame["mug"] = (frame["kind"] == 0) * 1.0, (frame["kind"] == 1) * 1.0
    frame.loc[0, ["oak", "mug"]] = None
    with pytest.warns(UserWarning, match="1 of 24 examples have no label and are left out"):
        unfitted.fit(frame, ["oak", "mug"])
    assert unfitted.predict(_frame(3, classes=3)).tolist() == [["oak"], ["mug"], []]
    assert unfitted.evaluate(frame)["micro_f1"] == 1


def test_solved_run_goes_on_with_another_class(unfitted, solved_run, capsys):
    unfitted.set_params(verbose=2)
    with pytest.raises(
        ValueError, match=r"bring the classes \['2'\], compared with .* which knows \['0', '1'\]\. .*new_classes=True"
    ):
        unfitted.fit(_frame(30, classes=3), "kind", start_from=solved_run)
    with pytest.raises(ValueError, match=r"and \['1'\] have none: add rows of them"):
        unfitted.fit(_frame(30, classes=3).query("kind != 1"), "kind", start_from=solved_run, new_classes=True)
    unfitted.fit(_frame(45, classes=3), "kind", start_from=solved_run, new_classes=True)
    out = capsys.readouterr().out
    assert "its vocabulary and its 2 classes are taken over, its head is solved anew" in out
    assert "new classes: ['2']" in out
    assert unfitted.classes_.tolist() == [0, 1, 2]
    assert unfitted.predict(_frame(6, classes=3)).tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.ci
def test_trained_run_goes_on_with_more_rows_and_classes(trained_run, capsys):
    classifier = MultimodalClassifier(text="name", verbose=2)
    with pytest.raises(ValueError, match=r"the rows bring the classes \['2'\] and lack \['1'\], compared with"):
        classifier.fit(_frame(40).query("kind == 0").assign(kind=[0, 2] * 10), "kind", start_from=trained_run)
    with pytest.raises(ValueError, match=r"sees \['name'\], and the classifier \['image', 'name'\]"):
        MultimodalClassifier("photo", "name").fit(_frame(10).assign(photo=None), "kind", start_from=trained_run)
    classifier.fit(_frame(60, classes=3), "kind", start_from=trained_run, new_classes=True)
    assert "the new class '2' begins between its nearest ones: " in capsys.readouterr().out
    assert classifier.classes_.tolist() == [0, 1, 2]
    assert classifier.score(_frame(30, classes=3), "kind") > 0.9
    assert "# goes on from" in classifier.to_gin()


@pytest.mark.ci
def test_packed_rows_are_found_again(unfitted, words, tmp_path):
    frame = _frame(20)
    unfitted.fit(frame, "kind")
    again = MultimodalClassifier(text="name", text_encoder=words, verbose=0).fit(frame.copy(), "kind")
    assert again._folders[1] is unfitted._folders[1]
    assert again.fit(frame[:15], "kind")._folders[1] is not unfitted._folders[1]
    again.fit(frame, "kind", folder=tmp_path / "packed")
    assert (tmp_path / "packed" / "dataset.json").is_file()
    with pytest.raises(ValueError, match="holds a dataset of another source_options"):
        again.fit(frame[:15], "kind", folder=tmp_path / "packed")


def test_folders_of_old_rows_are_dropped():
    first = folder_of("first")
    path = first.path
    del first
    for number in range(8):
        folder_of(number)
    assert not path.exists()


@pytest.mark.parametrize(("verbose", "said"), [(0, False), (2, True)])
def test_library_says_as_much_as_is_asked(unfitted, capsys, verbose, said):
    unfitted.set_params(verbose=verbose).fit(_frame(20), "kind")
    out, err = capsys.readouterr()
    assert ("texts: the model 'words' that was passed" in out, bool(out)) == (said, said)
    assert err == ""


@pytest.mark.ci
def test_command_and_class_make_the_same_model(tiny_bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _frame(60).to_csv("shop.csv", index=False)
    bert = [f"--text_encoder={tiny_bert}", "--preset=frozen", "--train_only"]
    assert main(["train", "--table=shop.csv", "--text=name", "--label=kind", *bert]) == 0
    assert main(["predict", "runs/shop", "shop.csv", "--output=out.parquet", "--top=all"]) == 0
    answers = pandas.read_parquet("out.parquet")[["probability: 0", "probability: 1"]]
    loaded = MultimodalClassifier.load("runs/shop").predict_proba("shop.csv")
    np.testing.assert_allclose(loaded, answers, atol=1e-6)
    fitted = MultimodalClassifier(text="name", text_encoder=tiny_bert, preset="frozen", verbose=0).fit("data/shop")
    np.testing.assert_allclose(fitted.predict_proba("shop.csv"), loaded, atol=1e-6)


@pytest.mark.slow
def test_search_over_parameters(unfitted):
    search = GridSearchCV(unfitted, {"seed": [0, 1]}, cv=2).fit(_frame(24), _frame(24)["kind"])
    assert search.best_score_ == 1 and search.predict(_frame(2)).tolist() == [0, 1]


@pytest.mark.slow
def test_time_limit_holds():
    began = time.monotonic()
    MultimodalClassifier(text="name", preset="scratch", verbose=0).fit(_frame(4000), "kind", time_limit=30)
    assert time.monotonic() - began < 33


def test_time_limit_above_frozen_encoders_takes_as_many_rows_as_can_be_encoded(unfitted, monkeypatch, capsys):
    monkeypatch.setattr(fitting, "affordable_rows", lambda *_: 70)
    frame = pandas.concat([_frame(150), pandas.DataFrame({"name": ["the lamp"], "kind": [2]})])
    unfitted.set_params(verbose=2).fit(frame, "kind", time_limit=60)
    assert "time_limit=60: 70 rows can be learned from; of more they are drawn by label" in capsys.readouterr().out
    info = Dataset.open(unfitted.run_.facts()["dataset"]).info
    assert info.num_examples("train") == 71  # with the only one of its class
    assert unfitted.classes_.tolist() == [0, 1, 2]
