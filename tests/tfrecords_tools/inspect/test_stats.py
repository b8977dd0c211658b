import itertools
import json

import numpy as np
import pytest
from PIL import Image

from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.inspect import text_stats
from tfrecords_tools.inspect.stats import compute_stats, format_stats, make_histogram
from tfrecords_tools.inspect.text_stats import TextStats, words_of
from tfrecords_tools.packing.pack import PackOptions, pack


@pytest.fixture
def folder(tmp_path, make_source, make_example, encode_image):
    """Ten examples: i words in the title, labels a×5 and b×4 and none, images of short side 100+i in half of them."""
    examples = [
        make_example(
            f"e{i}",
            texts={"title": ["word " * i], "caption": ["one", "two words"] if i < 5 else []},
            labels=[] if i == 9 else ["a" if i < 5 else "b"],
            image=encode_image(Image.new("L", (300, 100 + i))) if i % 2 else None,
            split="all",
        )
        for i in range(1, 10)
    ]
    examples.append(make_example("e0", texts={"caption": ["three more words"]}, split="all"))
    source = make_source(examples, text_fields=("title", "caption"))
    pack(source, tmp_path / "dataset", PackOptions(), progress=False)
    return tmp_path / "dataset"


def test_stats_count_what_was_packed(folder):
    stats = compute_stats(folder, progress=False)
    assert list(stats) == ["all"]
    counted = stats["all"]
    assert (counted["examples"], counted["shards"]) == (10, 1)
    assert counted["megabytes"] == round(sum(path.stat().st_size for path in folder.glob("*.tfrecord")) / 1e6, 2)
    assert counted["missing"] == {"image": 0.5, "title": 0.1, "caption": 0.5}
    assert counted["unlabelled"] == 0.1
    expected = {"min": 0, "median": 1, "p95": 1, "max": 1, "histogram": [[0, 0, 1], [1, 1, 9]]}
    assert counted["labels_per_example"] == expected
    assert counted["examples_per_label"] == {"min": 4, "median": 4, "p95": 5, "max": 5, "histogram": [[4, 4, 1], [5, 5, 1]]}
    assert counted["frequent_labels"] == {"a": 5, "b": 4}
    ones = [[words, words, 1] for words in range(1, 10)]
    assert counted["words"]["title"] == {"min": 1, "median": 5, "p95": 9, "max": 9, "histogram": ones}
    assert counted["words"]["caption"]["histogram"] == [[1, 1, 4], [2, 2, 4], [3, 3, 1]]
    assert counted["frequent_words"] == {
        "title": {"word": 45},
        "caption": {"one": 4, "two": 4, "words": 5, "more": 1, "three": 1},
    }
    assert list(counted["frequent_words"]["caption"]) == ["words", "one", "two", "more", "three"]
    sides = [[side, side, side % 2] for side in range(101, 110)]
    assert counted["short_side"] == {"min": 101, "median": 105, "p95": 109, "max": 109, "histogram": sides}
    assert counted["height"] == counted["short_side"]
    assert counted["width"] == {"min": 300, "median": 300, "p95": 300, "max": 300, "histogram": [[300, 300, 5]]}
    assert counted["missing_by_source"] == {}
    assert json.loads(json.dumps(stats)) == stats


def test_dataset_without_images_or_labels_has_no_spreads(tmp_path, make_source, make_example):
    examples = [make_example("e0", labels=[])]
    pack(make_source(examples), tmp_path / "dataset", PackOptions(fractions={"train": 1.0}), progress=False)
    stats = compute_stats(tmp_path / "dataset", progress=False)
    assert stats["train"]["short_side"] == stats["train"]["examples_per_label"] == {}
    assert "  short_side          none" in format_stats(stats).splitlines()


def test_text_form_shows_shares_and_spreads(folder):
    lines = format_stats(compute_stats(folder, progress=False)).splitlines()
    assert lines[0].startswith("all: 10 examples, ")
    assert lines[1].split(None, 1) == ["missing", "image 50.0%, title 10.0%, caption 50.0%, label 10.0%"]
    assert "  words/title         min 1  median 5  p95 9  max 9" in lines
    assert "  labels              a 5, b 4" in lines
    assert "  words in caption    words 5, one 4, two 4, more 1, three 1" in lines


def _text_stats(rows, labels=("mug", "hat", "wool scarf")):
    """Of (text or texts, label ids) pairs."""
    stats = TextStats()
    for texts, label_ids in rows:
        stats.add([texts] if isinstance(texts, str) else texts, label_ids, [words_of(label) for label in labels])
    return stats


def test_shares_are_of_the_examples_that_have_a_text(tmp_path, make_source, make_example):
    rows = [(["a mug"], ["mug"]), (["a hat"], ["mug"]), ([], ["mug"]), ([], ["mug"])]
    examples = [
        make_example(str(i), texts={"title": texts, "about": ["x"]}, labels=labels) for i, (texts, labels) in enumerate(rows)
    ]
    source = make_source(examples, text_fields=("title", "about"))
    pack(source, tmp_path / "dataset", PackOptions(fractions={"train": 1.0}), progress=False)
    counted = compute_stats(tmp_path / "dataset", progress=False)["train"]
    assert counted["label_in_text"] == {"title": 0.5, "about": 0.0}
    assert counted["repeated_texts"] == {"title": 0.0, "about": 1.0}
    assert counted["conflicting_texts"] == {"title": 0.0, "about": 0.0}


@pytest.mark.parametrize(
    ("text", "label", "names_it"),
    [
        ("Blue wool-scarf, new", "Wool Scarf", True),
        ("Wool scarfs", "wool scarf", False),
        ("swool scarf", "wool scarf", False),
        ("Cafe\u0301 au lait", "CAFÉ", True),  # decomposed and composed
        ("...", "!!!", False),
        ("", "!!!", False),
    ],
)
def test_texts_name_their_label_by_whole_words(text, label, names_it):
    assert _text_stats([([text, "another"], (0,))], [label]).shares()["label_in_text"] == names_it


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Wool-scarf (NEW), Levi's №5", "wool scarf new levi s no5"),
        ("हिन्दी_किताब", "हिन्दी किताब"),  # vowel signs belong to their letters
        ("Cafe\u0301 ÉTÉ 猫2", "café été 猫2"),
        (" \u200b…\n", ""),
    ],
)
def test_words_are_letters_and_digits_of_any_alphabet(text, words):
    assert words_of(text) == words


def test_repeated_and_conflicting_texts_count_every_example_that_has_them():
    rows = [("A hat", (0,)), ("A hat", (0,)), ("A hat", (1,)), ("A cap", (0, 1)), ("A cap", (0, 1)), ("A", (0,))]
    for order in itertools.permutations(rows):
        assert _text_stats(order).shares() == {
            "label_in_text": pytest.approx(1 / 6),
            "repeated_texts": pytest.approx(5 / 6),
            "conflicting_texts": pytest.approx(3 / 6),
        }
    several = [(["a", "b"], (0,)), (["a", "c"], (0,)), (["b", "a"], (0,)), (["ab"], (0,))]
    assert _text_stats(several).shares()["repeated_texts"] == 0
    assert _text_stats([]).shares() == {"label_in_text": 0, "repeated_texts": 0, "conflicting_texts": 0}


def test_frequent_words_leave_function_words_out():
    stats = _text_stats([("The dog and THE Dog's bone, of a dog", (0,)), ("Über-bone №5", (0,))])
    assert stats.frequent_words(3) == {"dog": 3, "bone": 2, "no5": 1}
    assert len(stats.frequent_words(10)) == 4


def test_memory_for_words_is_bounded_and_frequent_words_survive(monkeypatch):
    monkeypatch.setattr(text_stats, "_MAX_WORDS", 100)
    stats = TextStats()
    for i in range(1000):
        stats.add([f"dog w{i} {'cat' if i % 2 else ''}"], (), [])
        assert len(stats._words) <= 102
    assert stats.frequent_words(2) == {"dog": 1000, "cat": 500}


def test_memory_of_texts_is_12_bytes_an_example():
    stats = _text_stats([(f"text {i}", (0,)) for i in range(1000)])
    kept = [value for value in vars(stats).values() if hasattr(value, "itemsize")]
    assert sum(value.itemsize * len(value) for value in kept) == 12 * 1000


def test_examples_per_label_are_counted_in_a_logarithmic_histogram(tmp_path, make_source, make_example):
    sizes = {"a": 1, "b": 1, "c": 7, "d": 100, "e": 113, "f": 130}
    names = [name for name, size in sizes.items() for _ in range(size)]
    examples = [make_example(str(i), labels=[name]) for i, name in enumerate(names)]
    labels = LabelVocabulary([*sizes, "unused"])
    pack(make_source(examples), tmp_path / "d", PackOptions(fractions={"all": 1.0}), labels, progress=False)
    spread = compute_stats(tmp_path / "d", progress=False)["all"]["examples_per_label"]
    histogram = spread.pop("histogram")
    assert spread == {"min": 0, "median": 7, "p95": 130, "max": 130}
    assert [bar for bar in histogram if bar[2]] == [[0, 0, 1], [1, 1, 2], [6, 7, 1], [100, 125, 2], [126, 157, 1]]
    assert all(after[0] == before[1] + 1 for before, after in itertools.pairwise(histogram))


@pytest.mark.parametrize("values", [[3], [0, 50], [0, 5, 5000], [120, 256], [1, 3000], [10, 100], [999, 1000, 1001], [0]])
def test_histograms_hold_every_value_once_in_few_bins(values):
    for logarithmic in (False, True):
        bins = make_histogram(np.array(values), np.arange(1, len(values) + 1), logarithmic)
        assert sum(count for _, _, count in bins) == sum(range(1, len(values) + 1))
        assert all(sum(low <= value <= high for low, high, _ in bins) == 1 for value in values)
        assert all(after[0] == before[1] + 1 for before, after in itertools.pairwise(bins))
        assert len(bins) <= 45


def test_bins_are_equal_unless_values_spread_over_more_than_a_decade():
    def widths(*values):
        return [high - low + 1 for low, high, _ in make_histogram(np.array(values), np.ones(len(values), int), False)]

    assert widths(3, 9) == [1] * 7
    assert set(widths(120, 256)) == {4}
    assert widths(1, 3000)[:12] == [1, 1, 1, 1, 1, 2, 2, 3, 3, 4, 5, 7]
    assert widths(1, 3000)[-1] > 300


def _packed_ids(packed, make_example, ids):
    _, folder = packed(
        [make_example(name, texts={"title": ["t"] if i % 2 else []}, image=image) for i, (name, image) in enumerate(ids)]
    )
    return compute_stats(folder, progress=False)["train"]["missing_by_source"]


def test_missing_modalities_are_told_by_the_first_folder_of_the_ids(packed, make_example, small_jpeg):
    ids = [("google/1/a.jpg", small_jpeg), ("google/b.jpg", None), ("flickr/c.jpg", small_jpeg), ("d.jpg", None)]
    assert _packed_ids(packed, make_example, ids) == {
        "(no folder)": {"examples": 1, "missing": {"image": 1.0, "title": 0.0}},
        "flickr": {"examples": 1, "missing": {"image": 0.0, "title": 1.0}},
        "google": {"examples": 2, "missing": {"image": 0.5, "title": 0.5}},
    }


@pytest.mark.parametrize("number", [1, 21])
def test_one_folder_or_very_many_are_no_sources(packed, make_example, small_jpeg, number):
    assert _packed_ids(packed, make_example, [(f"{i % number}/{i}.jpg", small_jpeg) for i in range(40)]) == {}


def test_record_that_breaks_the_description_is_named(packed, rows):
    info, folder = packed(rows)
    info.text_fields = {}
    info.save(folder)
    with pytest.raises(ValueError, match=r"train-00000-of-00001.tfrecord: record 'e\d+' has a text field .*'title'.*verify"):
        compute_stats(folder, progress=False)
    info.text_fields, info.labels = {"title": False}, LabelVocabulary([])
    info.save(folder)
    with pytest.raises(ValueError, match=r"or a label that dataset.json does not list"):
        compute_stats(folder, progress=False)
