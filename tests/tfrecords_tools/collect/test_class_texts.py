import csv
from pathlib import Path

import pytest

from tfrecords_tools.collect.class_texts import check_class_texts

IMAGED = Path(__file__).parents[4] / "shared" / "data" / "imaged"


def kinds(texts, **options):
    return {(problem.label, problem.kind) for problem in check_class_texts(texts, **options)}


def test_text_of_another_thing_is_found():
    texts = {"Boat": "The cat is a domestic species.", "Cat": "The cat is a small carnivore."}
    assert kinds(texts) == {("Boat", "no_mention")}


def test_stems_and_compounds_count_as_a_mention():
    texts = {"Hot dog": "A hotdog is a sausage.", "Beaver": "Beavers are large rodents.", "Bicycle wheel": "Wheels roll."}
    assert kinds(texts) == set()


def test_short_name_inside_of_a_word_is_no_mention():
    assert kinds({"Van": "To advance means to go on."}) == {("Van", "no_mention")}


def test_empty_and_shared_texts_are_found_and_named():
    texts = {"Ladder": " ", "Beer": "Beer and bears.", "Bear": "Beer  and bears."}
    assert kinds(texts) == {("Ladder", "empty"), ("Beer", "duplicate"), ("Bear", "duplicate")}
    assert "the same text as Bear" in check_class_texts(texts)[1].detail


def test_labels_that_are_ids_are_checked_by_their_names():
    assert kinds({"/m/1": "A mug is a cup."}, names={"/m/1": "Mug"}) == set()
    assert kinds({"/m/1": "A jug is a cup."}, names={"/m/1": "Mug"}) == {("/m/1", "no_mention")}


def test_language_without_a_stemmer_compares_words():
    assert kinds({"kissa": "Kissa on eläin."}, language="klingon") == set()


@pytest.mark.skipif(not IMAGED.is_dir(), reason="needs the ImageD texts, which are not ours to publish")
def test_wrong_articles_of_imaged_are_found():
    with open(next(IMAGED.glob("*class-descriptions*.csv")), encoding="utf-8-sig") as file:
        names = dict(row[:2] for row in csv.reader(file))
    with open(IMAGED / "definitions.csv", encoding="utf-8-sig") as file:
        texts = {row["LabelName"]: row["Definition"] for row in csv.DictReader(file)}
    problems = check_class_texts(texts, names)
    found = {(names[problem.label], problem.kind) for problem in problems}
    assert {(name, "no_mention") for name in ("Banana", "Beer", "Boat", "Bidet")} | {("Ladder", "empty")} <= found
    assert ("Accordion", "no_mention") not in found
