import csv
import json

import numpy as np
import pytest

from mm_keras.studies.relevance import Rule, corrupt_table
from mm_keras.studies.relevance_pairs import (
    Caption,
    choose_training,
    fold_of,
    longest_sentences,
    read_captions,
    write_pairs,
)
from mm_keras.studies.relevance_report import auc, found, similarity_to_class, write_report
from tfrecords_tools.dataset.folder import Dataset
from tfrecords_tools.sources.example import SourceExample

CLASSES = {"mug": "A mug is a cup. It holds tea.", "lamp": "A lamp gives light. It stands on a table, or it hangs. Yes."}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, pack_examples):
    """Captions of mugs and lamps; one is a single word, and one is missing."""
    rows = [(f"{name}{i}", name, [f"a {name} number {i}"], ["of mine"]) for name in CLASSES for i in range(10)]
    rows += [("short", "mug", ["mug"], []), ("none", "lamp", [], [])]
    examples = [SourceExample(id, id, None, {"title": title, "description": more}, [name]) for id, name, title, more in rows]
    return pack_examples(tmp_path_factory.mktemp("relevance") / "data", examples, ("title", "description"))


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text("label,description\n" + "".join(f'{name},"{text}"\n' for name, text in CLASSES.items()))
    return path


def test_captions_are_joined_and_those_of_a_word_left_out(dataset):
    captions = read_captions(Dataset.open(dataset), ["title", "description"])
    assert len(captions) == 20
    assert Caption("mug3", "a mug number 3 of mine", "mug") in captions
    with pytest.raises(ValueError, match=r"has the text fields \['description', 'title'\]. Received: \['caption'\]"):
        read_captions(Dataset.open(dataset), ["caption"])


def test_pairs_are_each_caption_with_each_sentence_of_its_class(dataset, texts, tmp_path):
    path = write_pairs(dataset, texts, tmp_path / "pairs", ["title"], number=10, sentences=2)
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    ids = sorted({row["id"].partition("#")[0] for row in rows if row["label"] == "lamp" and row["split"] == "train"})
    of_one = [row for row in rows if row["id"].startswith(f"{ids[0]}#")]
    sentences = [row["text"].partition(" number ")[2][2:] for row in of_one]
    assert sentences == ["A lamp gives light.", "It stands on a table, or it hangs."]
    assert {row["split"] for row in of_one} == {"train"}
    tests = [row for row in rows if row["split"] == "val"]
    assert len(tests) == 10 and all("." not in row["text"] for row in tests)  # as they will be scored: without a sentence
    texts.write_text("label,description\nmug,A mug.\n")
    with pytest.raises(ValueError, match=r"has no text for 1 of 2 classes with captions: \['lamp'\]"):
        write_pairs(dataset, texts, tmp_path / "pairs", ["title"])


def test_fold_that_is_left_out_is_in_no_pair(dataset, texts, tmp_path):
    seen = []
    for fold in range(2):
        path = write_pairs(dataset, texts, tmp_path / str(fold), ["title"], folds=2, fold=fold)
        ids = {row["id"].partition("#")[0] for row in csv.DictReader(path.read_text("utf-8").splitlines())}
        assert {fold_of(id, 2) for id in ids} == {1 - fold}
        seen.append(ids)
    assert len(seen[0] | seen[1]) == 20


def test_longest_sentences_keep_their_order():
    text = "A mug. It is a cup with a handle. It holds tea! Is it hot? No."
    assert longest_sentences(text, 2) == ["It is a cup with a handle.", "It holds tea!"]
    assert longest_sentences("no end") == ["no end"]


def test_rare_classes_give_half_of_their_captions_and_every_class_keeps_a_fifth():
    labels = ["common"] * 1000 + ["rare"] * 20 + ["single"]
    chosen = choose_training(labels, 200)
    count = {name: chosen[[label == name for label in labels]].sum() for name in set(labels)}
    assert count["rare"] == 10 and count["single"] == 1
    assert abs(count["common"] - 1000 * 200 / 1021) < 1
    most = choose_training(labels, 10**6)
    assert most[:1000].sum() == 800 and most[1000:1020].sum() == 16


def test_coefficients_follow_the_rule():
    own = np.array([0.95, 0.99, 0.7, 0.6, 0.49, 0.3])
    mean = np.array([0.1, 0.1, 0.8, 0.1, 0.1, 0.1])
    # 0.7 is below the mean, 0.49 and 0.3 below 0.5; of the kept, the two sure ones are equal and share the ranks 2 and 3.
    np.testing.assert_allclose(Rule().coefficients(own, mean), [2.5 / 3, 2.5 / 3, 0, 1 / 3, 0, 0])
    kept = Rule(above_mean=False, least=0.4).coefficients(own, mean)
    np.testing.assert_allclose(kept, [0.9, 0.9, 0.6, 0.4, 0.2, 0])
    np.testing.assert_allclose(Rule(curve="square").coefficients(own, mean)[3], 1 / 9)
    np.testing.assert_allclose(Rule(curve="flat").coefficients(own, mean), [1, 1, 0, 1, 0, 0])
    many = Rule().coefficients(np.random.default_rng(0).uniform(0.5, 0.9, 1000), np.zeros(1000))
    np.testing.assert_allclose(np.histogram(many, 10, (0, 1))[0], 100, atol=1)  # uniform, whatever the scores
    for wrong in ({"least": 1.5}, {"curve": "cubic"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Rule(**wrong)


def test_corruption_swaps_its_share_between_classes_and_names_it(tmp_path):
    rows = [f"{i},text of {i},{'ab'[i % 2]},{'train' if i < 80 else 'test'}" for i in range(100)]
    (tmp_path / "t.csv").write_text("\n".join(["id,text,label,split", *rows]) + "\n")
    path = corrupt_table(tmp_path / "t.csv", tmp_path / "out", "text", "label", 0.25, split="train")
    after = list(csv.DictReader(path.read_text().splitlines()))
    swapped = (tmp_path / "out" / "swapped.txt").read_text().split()
    changed = [row["id"] for row in after if row["text"] != f"text of {row['id']}"]
    assert sorted(changed) == sorted(swapped) and 14 <= len(swapped) <= 20
    label = {row["id"]: row["label"] for row in after}
    assert all(label[row["text"].split()[-1]] != row["label"] for row in after if row["id"] in swapped)
    assert all(int(id) < 80 for id in swapped)
    assert sorted(row["text"] for row in after) == sorted(f"text of {i}" for i in range(100)) or len(swapped) < 20
    with pytest.raises(ValueError, match="has no column 'body'"):
        corrupt_table(tmp_path / "t.csv", tmp_path / "out", "body", "label", 0.25)


def test_report_counts_what_is_found_and_shows_examples(tmp_path, texts, capsys):
    said = {"mug": "a mug with a cup of tea", "lamp": "a lamp with light"}
    captions = [Caption(str(index), said[name], name) for index, name in enumerate(["mug", "lamp"] * 5)]
    captions[0] = Caption("0", "gives light on a table", "mug")
    own = np.array([0.1, 0.8, *[0.9] * 8])
    summary = write_report(tmp_path, captions, own, np.where(own > 0.5, 1.0, 0.0), 0.5, {"0", "1"}, texts)
    assert summary["known_wrong"] == {
        "captions": 2,
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "auc": 1.0,
        "auc_of_text_similarity": pytest.approx(summary["known_wrong"]["auc_of_text_similarity"]),
    }
    assert json.dumps(summary)
    report = (tmp_path / "report.md").read_text()
    assert "| mug" in report and "| 4 (80%)  |" in report and "| 5 (100%) |" in report
    assert "0.0 to 0.2: 1 captions, 0 kept\n- dropped (0.10), mug: gives light on a table" in report
    assert (tmp_path / "histograms.png").read_bytes().startswith(b"\x89PNG")
    assert "drops 50.0%" in capsys.readouterr().out


def test_similarity_is_least_for_what_is_of_another_class():
    captions = [Caption("1", "a cup of tea", "mug"), Caption("2", "a light on the table", "mug")]
    right, wrong = similarity_to_class(captions, CLASSES)
    assert right > wrong
    assert auc(np.array([right, wrong]), np.array([False, True])) == 1
    assert auc(np.ones(2), np.zeros(2, bool)) is None
    assert found(np.zeros(2, bool), np.ones(2, bool)) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
