import pytest
from PIL import Image

from tfrecords_tools.pack import PackOptions, pack
from tfrecords_tools.stats import compute_stats, format_stats


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
    assert counted["labels_per_example"] == {"min": 0, "median": 1, "p95": 1, "max": 1}
    assert (counted["examples_per_label"]["min"], counted["examples_per_label"]["max"]) == (4, 5)
    assert counted["words"]["title"] == {"min": 1, "median": 5, "p95": 9, "max": 9}
    assert (counted["words"]["caption"]["min"], counted["words"]["caption"]["max"]) == (1, 3)
    assert counted["short_side"] == {"min": 101, "median": 105, "p95": 109, "max": 109}


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


def test_texts_that_name_their_label_repeat_or_conflict_are_counted(tmp_path, make_source, make_example):
    rows = [
        ("Blue wool-scarf, new", "wool scarf"),  # names its label
        ("Wool scarfs", "wool scarf"),
        ("A hat", "mug"),
        ("A hat", "mug"),  # repeats
        ("A hat", "hat"),  # repeats, conflicts, and names its label
    ]
    examples = [make_example(str(i), texts={"title": [title]}, labels=[label]) for i, (title, label) in enumerate(rows)]
    examples.append(make_example("5", texts={"title": [], "about": ["mug"]}, labels=["mug"]))
    examples += [make_example(name, texts={"title": [], "about": ["tag"]}, labels=[]) for name in "67"]
    source = make_source(examples, text_fields=("title", "about"))
    pack(source, tmp_path / "dataset", PackOptions(fractions={"train": 1.0}), progress=False)
    counted = compute_stats(tmp_path / "dataset", progress=False)["train"]
    assert counted["label_in_text"] == {"title": 0.4, "about": pytest.approx(1 / 3)}
    assert counted["repeated_texts"] == {"title": 0.4, "about": pytest.approx(1 / 3)}
    assert counted["conflicting_texts"]["title"] in (0.2, 0.4)  # the order decides which label came first
