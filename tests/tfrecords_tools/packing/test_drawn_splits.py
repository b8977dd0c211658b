from collections import defaultdict

import pandas
import pytest

from tfrecords_tools.cli.main import main
from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.packing.drawn_splits import DrawnSplits
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.sources import image_folder
from tfrecords_tools.sources.table import Columns, make_source

SPLITS = ("train", "val", "test")


@pytest.fixture
def shop():
    """50 classes of 6 rows, two of each product."""
    rows = [{"title": f"t{i}", "kind": f"class {i % 50}", "tags": f"{i % 50}|{i % 7}", "product": i // 100} for i in range(300)]
    return pandas.DataFrame(rows)


def _classes(info, split):
    return {name for name, count in zip(info.labels.names, info.label_counts(split), strict=True) if count}


def _of_splits(read_split, folder):
    return {record.id: split for split in SPLITS for record in read_split(folder, split)}


def test_every_class_of_a_table_stands_in_every_split_unless_that_is_not_wanted(shop, tmp_path):
    source = make_source([shop], Columns(text=("title",), label="kind"))
    info = pack(source, tmp_path / "by_label", progress=False)
    assert {len(_classes(info, split)) for split in SPLITS} == {50}
    assert (info.provenance["splits_drawn_by"], info.provenance["splits_drawn"]) == ("label", False)
    info = pack(source, tmp_path / "by_id", PackOptions(stratify=False), progress=False)
    assert min(len(_classes(info, split)) for split in SPLITS) < 40
    assert info.provenance["splits_drawn_by"] == "id"


def test_seed_decides_and_nothing_else(shop, tmp_path, read_split):
    def drawn(rows, name, **options):
        pack(
            make_source([rows], Columns(text=("title",), label="kind", id="title")), tmp_path / name, **options, progress=False
        )
        return _of_splits(read_split, tmp_path / name)

    first = drawn(shop, "first", options=PackOptions(workers=1))
    assert drawn(shop.iloc[::-1], "reversed", options=PackOptions(workers=2)) == first
    assert drawn(shop, "seed", options=PackOptions(seed=1)) != first


def test_rows_of_a_group_stay_together(shop, tmp_path, read_split):
    shop["product"] = [f"p{i % 100}" for i in range(300)]  # three rows of one class
    source = make_source([shop], Columns(text=("title",), label="kind", group="product", id="title"))
    for name, options in (("label", PackOptions()), ("hash", PackOptions(stratify=False))):
        pack(source, tmp_path / name, options, progress=False)
        splits = defaultdict(set)
        for row, split in _of_splits(read_split, tmp_path / name).items():
            splits[int(row[1:]) % 100].add(split)
        assert {len(each) for each in splits.values()} == {1}
        assert set().union(*splits.values()) == set(SPLITS)


def test_several_labels_are_spread(shop, tmp_path):
    source = make_source([shop], Columns(text=("title",), label="tags"), label_separator="|")
    info = pack(source, tmp_path / "out", progress=False)
    assert {len(_classes(info, split)) for split in SPLITS} == {50}


def test_image_folder_is_drawn_by_label(tmp_path, small_jpeg):
    for number in range(40):
        path = tmp_path / "flowers" / f"kind {number % 10}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(small_jpeg)
    info = pack(image_folder.make_source(tmp_path / "flowers"), tmp_path / "out", progress=False)
    assert {len(_classes(info, split)) for split in SPLITS} == {10}


def test_splits_of_very_many_examples_are_drawn_by_hash(make_example):
    fractions = {"train": 0.5, "test": 0.5}
    by_label, by_hash = DrawnSplits(fractions, 0, True, most=20), DrawnSplits(fractions, 0, False)
    examples = [make_example(f"e{i}") for i in range(21)]
    assert [by_label.draw(*pair) for pair in enumerate(examples)] == [by_hash.draw(*pair) for pair in enumerate(examples)]
    assert (by_label.by, by_label.too_many, list(by_label.by_labels(set()))) == ("id", True, [])


def test_split_names_are_read_as_what_they_mean_and_said(tmp_path, call):
    names = ["Train", "TRAINING", "validation", "dev", "TEST", "other"]
    pandas.DataFrame({"title": names, "kind": "a", "part": names}).to_csv(tmp_path / "t.csv")
    arguments = ("--text=title", "--label=kind", "--split=part", "--output", tmp_path / "out")
    status, out, _ = call(main, "pack", "table", tmp_path / "t.csv", *arguments)
    assert status == 0
    assert "column 'part' names splits: 'Train' as train, 'TRAINING' as train, 'validation' as val, 'dev' as val" in out
    info = DatasetInfo.load(tmp_path / "out")
    assert {split: info.num_examples(split) for split in info.splits} == {"train": 2, "val": 2, "test": 1, "other": 1}
