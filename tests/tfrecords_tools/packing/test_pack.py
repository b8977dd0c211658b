import dataclasses
import json
import os
import random
import subprocess
import sys

import pytest

from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.inspect.verify import verify
from tfrecords_tools.packing.images import ImageOptions
from tfrecords_tools.packing.pack import PackError, PackOptions, pack, write_here
from tfrecords_tools.sources import sample
from tfrecords_tools.sources.example import Rejection, Source

ONE_SPLIT = PackOptions(fractions={"train": 1.0})


def _rejected(folder):
    return [json.loads(line) for line in (folder / "rejected.jsonl").read_text("utf-8").splitlines()]


def test_packed_folder_says_what_it_holds(packed, make_example, small_jpeg, read_split):
    examples = [make_example(f"e{i}", labels=[f"q{i % 11}"], image=small_jpeg if i % 2 else None) for i in range(44)]
    examples[3].texts = {"title": ["", "  "]}
    examples[5].labels = []
    info, folder = packed(examples)
    assert sorted(path.name for path in folder.iterdir()) == [
        "checksums.sha256", "croissant.json", "dataset.json", "dataset_info.json", "features.json", "index",
        "label-ids.labels.txt", "labels.txt",
        "rejected.jsonl", "train-00000-of-00001.tfrecord",
    ]  # fmt: skip
    assert info.labels.names == [f"q{i}" for i in range(11)]  # q9 before q10
    assert info.num_examples("train") == 44
    counts = info.statistics["train"]
    assert (counts["examples"], counts["without_image"], counts["without_label"]) == (44, 22, 1)
    assert counts["without_text"] == {"title": 1}
    assert counts["labels"] == {name: 4 - (name == "q5") for name in info.labels.names}
    records = {record.id: record for record in read_split(folder, "train")}
    assert len(records) == 44
    assert records["e21"].texts == {"title": ("title of e21",)}
    assert (records["e21"].image, records["e21"].height, records["e21"].width) == (small_jpeg, 30, 40)
    assert (records["e20"].image, records["e20"].label_ids, records["e20"].weight) == (b"", (9,), 1.0)
    assert records["e3"].texts == {"title": ()}


def test_loaded_description_equals_the_returned_one(packed, rows):
    info, folder = packed(rows)
    loaded = DatasetInfo.load(folder)
    assert loaded.labels.names == info.labels.names
    assert dataclasses.replace(loaded, labels=info.labels) == info


def test_texts_are_stripped_and_empty_ones_dropped(packed, make_example, read_split):
    _, folder = packed([make_example("e", texts={"title": [" a\n", "", " ", "b c"]})])
    assert read_split(folder, "train")[0].texts == {"title": ("a", "b c")}


def test_weights_and_several_labels_are_kept(packed, make_example, read_split):
    _, folder = packed([make_example("e", labels=["b", "a", "b"], weight=0.5)], multi_label=True)
    record = read_split(folder, "train")[0]
    assert (record.label_ids, record.weight) == ((0, 1), 0.5)


def test_dataset_without_labels_packs_loads_and_verifies(packed, make_example):
    _, folder = packed([make_example("e", labels=[])])
    assert len(DatasetInfo.load(folder).labels) == 0
    assert verify(folder, progress=False) == []


def test_given_splits_are_kept_and_the_others_drawn(packed, make_example, read_split):
    examples = [make_example(f"e{i}", split="held_out" if i < 7 else None) for i in range(400)]
    info, folder = packed(examples, PackOptions(fractions={"train": 0.5, "test": 0.5}))
    assert {record.id for record in read_split(folder, "held_out")} == {f"e{i}" for i in range(7)}
    assert info.num_examples("train") + info.num_examples("test") == 393
    assert 150 < info.num_examples("train") < 243


def test_drawn_split_of_an_example_survives_new_neighbours(packed, make_example, read_split):
    few, many = ([make_example(f"e{i}") for i in range(n)] for n in (50, 80))
    _, first = packed(few, PackOptions(), "first")
    _, second = packed(many, PackOptions(), "second")
    before = {record.id for record in read_split(first, "train")}
    after = {record.id for record in read_split(second, "train")}
    assert before == {example_id for example_id in after if int(example_id[1:]) < 50}


def test_split_of_one_example_has_one_shard(packed, make_example, read_split):
    info, folder = packed([*(make_example(f"e{i}", split="train") for i in range(20)), make_example("x", split="one")])
    assert info.num_examples("one") == 1
    assert [record.id for record in read_split(folder, "one")] == ["x"]
    assert verify(folder, progress=False) == []


def test_bad_split_name_is_rejected_and_the_others_go_on(packed, make_example):
    info, folder = packed([make_example("good"), make_example("bad", split="../x")])
    assert info.num_examples("train") == 1
    assert _rejected(folder)[0] == {
        "id": "bad",
        "where": "rows:bad",
        "reason": "split names are letters, digits and '_'. Received: '../x'",
        "action": "left out",
        "rows": 1,
    }


def test_many_shards_hold_everything_once_in_hash_order(packed, rows, read_split):
    info, folder = packed(rows, dataclasses.replace(ONE_SPLIT, examples_per_shard=7))
    counts = [shard.num_examples for shard in info.shards("train")]
    assert len(counts) == 9
    assert max(counts) <= 15  # 7 expected
    assert info.num_examples("train") == 60
    whole = packed(rows, name="whole")[1]
    assert [record.id for record in read_split(folder, "train")] == [record.id for record in read_split(whole, "train")]


def test_more_shards_than_examples_reach_is_fine(packed, rows):
    info, folder = packed(rows[:12], dataclasses.replace(ONE_SPLIT, examples_per_shard=1))
    counts = [shard.num_examples for shard in info.shards("train")]
    assert len(counts) == sum(counts) == 12
    assert 0 in counts  # by hash: some shard stays empty, and still has its file
    assert verify(folder, progress=False) == []


def test_records_are_shuffled_and_another_seed_shuffles_otherwise(packed, rows, read_split):
    orders = [
        [record.id for record in read_split(packed(rows, dataclasses.replace(ONE_SPLIT, seed=seed), str(seed))[1], "train")]
        for seed in (0, 1)
    ]
    given = [row.id for row in rows]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(given)
    assert orders[0] != orders[1]
    assert given not in orders


@pytest.mark.ci
def test_any_number_of_workers_in_any_process_writes_the_same_bytes(tmp_path, bytes_of):
    """Over 256 examples, so that worker processes are used; among them bad ones, so that reports are compared too."""

    examples = list(sample.iter_examples(300, seed=0))
    examples[::30] = [dataclasses.replace(example, image=b"no image") for example in examples[::30]]
    source = Source("rows", lambda: iter(examples), {"title": False, "description": False}, False)
    for workers in (1, 2, 3):
        options = PackOptions(examples_per_shard=75, workers=workers, images=ImageOptions(short_side=80))
        pack(source, tmp_path / str(workers) / "dataset", options, progress=False)
    script = (
        "import sys; from tfrecords_tools.packing.pack import PackOptions, pack; from tfrecords_tools.sources import sample;"
        "pack(sample.make_source(40), sys.argv[1], PackOptions(examples_per_shard=15), progress=False)"
    )
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        subprocess.run([sys.executable, "-c", script, tmp_path / hash_seed / "sample"], check=True, env=environment)
    one = bytes_of(tmp_path / "1" / "dataset")
    assert {"dataset.json", "rejected.jsonl", "train-00003-of-00004.tfrecord"} <= set(one)
    assert one["rejected.jsonl"].count(b"\n") == 10
    assert one == bytes_of(tmp_path / "2" / "dataset") == bytes_of(tmp_path / "3" / "dataset")
    assert bytes_of(tmp_path / "1" / "sample") == bytes_of(tmp_path / "2" / "sample")


def test_order_of_the_source_does_not_change_the_shards(packed, rows, bytes_of):
    _, first = packed(rows, PackOptions(), "first")
    _, second = packed(random.Random(0).sample(rows, len(rows)), PackOptions(), "second")
    for name, data in bytes_of(first).items():
        assert not name.endswith(".tfrecord") or data == (second / name).read_bytes()


def test_second_of_two_equal_ids_is_left_out_with_both_places(packed, rows, make_example, read_split):
    copies = [make_example("e3", texts={"title": [text]}) for text in ("second", "third")]
    copies = [dataclasses.replace(copy, where=f"other.csv:{i}") for i, copy in enumerate(copies)]
    _, folder = packed([*rows, *copies])
    records = [record for record in read_split(folder, "train") if record.id == "e3"]
    assert [record.texts["title"] for record in records] == [("title of e3",)]
    assert [(r["id"], r["where"], r["reason"]) for r in _rejected(folder)] == [
        ("e3", f"other.csv:{i}", "duplicate id 'e3': first seen at rows:e3") for i in (0, 1)
    ]


def test_too_many_equal_ids_are_counted_together(packed, rows):
    with pytest.raises(PackError, match=r"2 × duplicate id\. For example: "):
        packed([*rows[:2], *(dataclasses.replace(row, where="again") for row in rows[:2])], PackOptions(max_bad_fraction=0.4))


def test_rows_that_a_source_could_not_read_are_reported_in_their_place(packed, rows):
    broken = Rejection("", "x.csv:17", "malformed row: 3 cells under 4 columns")
    info, folder = packed([*rows[:2], broken, *rows[2:], dataclasses.replace(rows[0], where="again")])
    assert info.num_examples("train") == 60
    assert [entry["where"] for entry in _rejected(folder)] == ["x.csv:17", "again"]
    assert info.provenance["rejected"] == {"left out": 2}


def test_reports_stand_in_the_order_of_the_source(packed, rows, make_example):
    bad = [
        make_example("bad image", image=b"?"),
        Rejection("", "broken row", "malformed row"),
        make_example("bad label", labels=["a", "b"]),
        rows[0],
        make_example("bad split", split="a b"),
        *(make_example(f"bad image {i}", image=b"?") for i in range(5)),
    ]
    _, folder = packed([*rows, *bad])
    places = [entry["where"].removeprefix("rows:") for entry in _rejected(folder)]
    assert places == [entry.where.removeprefix("rows:") for entry in bad]


def test_label_that_is_no_line_is_an_error_and_leaves_nothing(packed, make_example, tmp_path):
    with pytest.raises(ValueError, match=r"single lines\. Received: 'two\\nlines'"):
        packed([make_example("e", labels=["two\nlines"])])
    assert list(tmp_path.iterdir()) == []


def test_record_whose_image_is_missing_is_kept_without_it_and_reported(packed, rows, make_example, tmp_path, read_split):
    bad = [
        make_example("gone", image=tmp_path / "gone.jpg"),
        make_example("broken", image=b"GIF89a"),
        make_example("folder", image=tmp_path),
    ]
    info, folder = packed([*rows, *bad])
    assert info.num_examples("train") == 63
    kept = {record.id: record for record in read_split(folder, "train")}
    assert (kept["gone"].image, kept["gone"].height, kept["gone"].texts["title"]) == (b"", 0, ("title of gone",))
    reported = {entry["id"]: entry for entry in _rejected(folder)}
    assert {entry["action"] for entry in reported.values()} == {"kept without its image"}
    assert reported["gone"]["reason"] == f"missing image: {tmp_path / 'gone.jpg'} does not exist"
    assert reported["broken"]["reason"].startswith("bad image: ")
    assert reported["folder"]["reason"] == f"forbidden image: {tmp_path} is a folder, not a file"
    assert info.provenance["rejected"] == {"kept without its image": 3}
    assert info.statistics["train"]["without_image"] == 63


def test_bad_image_is_named_in_its_report(packed, rows, make_example, tmp_path):
    (tmp_path / "p7.jpg").write_bytes(b"<html>")
    _, folder = packed([*rows, make_example("x", image=tmp_path / "p7.jpg")])
    assert _rejected(folder)[0]["reason"].startswith("bad image: p7.jpg: not a picture of a known format, but an HTML page")


def test_record_whose_image_is_missing_is_left_out_on_request(packed, rows, make_example, tmp_path):
    options = dataclasses.replace(ONE_SPLIT, keep_without_image=False)
    info, folder = packed([*rows, make_example("gone", image=tmp_path / "gone.jpg")], options)
    assert info.num_examples("train") == 60  # those that never named an image are not bad
    assert [(entry["id"], entry["action"]) for entry in _rejected(folder)] == [("gone", "left out")]


def test_record_with_neither_image_nor_text_is_left_out(packed, rows, make_example, tmp_path):
    bad = [make_example("empty", texts={"title": [" "]}), make_example("gone", texts={}, image=tmp_path / "gone.jpg")]
    info, folder = packed([*rows, *bad])
    assert info.num_examples("train") == 60
    assert [(entry["id"], entry["reason"]) for entry in _rejected(folder)] == [
        ("empty", "neither image nor text"),
        ("gone", f"missing image: {tmp_path / 'gone.jpg'} does not exist"),
    ]


def test_several_labels_in_a_single_label_dataset_are_rejected(packed, rows, make_example):
    info, folder = packed([*rows, make_example("two", labels=["a", "b"])])
    assert info.num_examples("train") == 60
    assert _rejected(folder)[0]["reason"] == "several labels in a single-label dataset: ['a', 'b']"


def test_numbering_of_the_source_is_kept_with_classes_that_no_example_has(tmp_path, make_example, read_split):
    source = Source(
        "rows", lambda: iter([make_example("1", split="train")]), {"title": False}, False, labels=["unseen", "b", "a"]
    )
    info = pack(source, tmp_path / "dataset", progress=False)
    assert info.labels.names == ["unseen", "b", "a"]
    assert read_split(tmp_path / "dataset", "train")[0].label_ids == (2,)


def test_given_vocabulary_keeps_its_order_and_leaves_other_labels_out(packed, make_example, read_split):
    vocabulary = LabelVocabulary(["z", "a"])
    info, folder = packed(
        [make_example("1"), make_example("2", labels=["z"]), make_example("3", labels=["new"])], labels=vocabulary
    )
    assert info.labels.names == ["z", "a"]
    assert {record.id: record.label_ids for record in read_split(folder, "train")} == {"1": (1,), "2": (0,)}
    assert _rejected(folder)[0]["id"] == "3"
    assert "unknown label 'new'; the vocabulary holds 2 names" in _rejected(folder)[0]["reason"]


def test_half_of_a_surrogate_pair_in_an_id_or_label_is_rejected(packed, rows, make_example):
    """JSON can spell it (`"\\ud83d"`), UTF-8 cannot."""
    info, folder = packed([*rows, make_example("cut \ud83d"), make_example("x", labels=["\ud83d"])])
    assert info.num_examples("train") == 60
    assert [entry["id"] for entry in _rejected(folder)] == ["cut \ud83d", "x"]


def test_shard_that_the_engine_loses_is_an_error(tmp_path, rows):
    source = Source("rows", lambda: iter(rows), {"title": False}, False)
    options = dataclasses.replace(ONE_SPLIT, examples_per_shard=len(rows) // 2, workers=1)

    def lose_one(job, plans):
        yield from list(write_here(job, plans))[1:]

    with pytest.raises(PackError, match=rf"\d+ of the {len(rows)} examples of split 'train' became records or were rejected"):
        pack(source, tmp_path / "ds", options, progress=False, engine=lose_one)
    assert not (tmp_path / "ds").exists()
