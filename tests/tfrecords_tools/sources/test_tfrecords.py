import json

import numpy as np
import pytest

from tfrecords_tools.cli.main import main
from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.inspect.verify import verify
from tfrecords_tools.packing.images import ImageOptions
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.sources.example import RecordImage, Rejection, Source, SourceExample
from tfrecords_tools.sources.files import SourceError
from tfrecords_tools.sources.table import Columns, TableError
from tfrecords_tools.sources.tfrecords import Options, make_source


def _read(*folders, **options):
    rows = list(make_source(Options(folders, **options)).examples())
    examples = {row.id: row for row in rows if isinstance(row, SourceExample)}
    return examples, [(row.id, row.where, row.reason, row.action) for row in rows if isinstance(row, Rejection)]


@pytest.fixture
def make_dataset(tmp_path, make_example, make_source, encode_image):
    """A function: (name, ids, other arguments of examples) -> a packed dataset with images of 90x60 noise."""

    def make(name, ids, text_fields=("title",), labels=None, **fields):
        rng = np.random.default_rng(0)
        examples = [
            make_example(i, image=encode_image(rng.integers(0, 255, (60, 90, 3), np.uint8)), **({"split": "train"} | fields))
            for i in ids
        ]
        pack(make_source(examples, text_fields), tmp_path / name, labels=labels, progress=False)
        return tmp_path / name

    return make


@pytest.fixture
def repack(tmp_path):
    """A function: (folders, pack options, other options) -> the dataset packed from these."""

    def apply(*folders, pack_options=PackOptions(), **options):
        info = pack(make_source(Options(folders, **options)), tmp_path / "out", pack_options, progress=False, overwrite=True)
        assert verify(tmp_path / "out", progress=False) == []
        return info

    return apply


def _shards(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.tfrecord")}


def test_packing_again_gives_the_same_bytes(dataset, repack, tmp_path):
    info = repack(dataset, pack_options=PackOptions(examples_per_shard=10))
    assert _shards(tmp_path / "out") == _shards(dataset)
    assert info.labels.names == DatasetInfo.load(dataset).labels.names


def test_shards_of_another_size_hold_the_same_records(dataset, repack, read_split, tmp_path):
    repack(dataset, pack_options=PackOptions(examples_per_shard=5))
    assert len(list((tmp_path / "out").glob("train-*"))) == 4
    for split in ("train", "test"):
        assert read_split(tmp_path / "out", split) == read_split(dataset, split)


def test_image_bytes_are_kept_whatever_the_options_of_packing(make_dataset, repack, read_split, tmp_path):
    folder = make_dataset("d", ["a", "b"])
    info = repack(folder, pack_options=PackOptions(images=ImageOptions(short_side=16, quality=5, max_pixels=1)))
    assert read_split(tmp_path / "out", "train") == read_split(folder, "train")
    assert info.images["short_side"] == 256
    assert info.statistics["train"]["images_reencoded"] == 0


def test_images_of_datasets_that_were_packed_differently_have_no_one_description(make_dataset, repack, tmp_path):
    first, second = make_dataset("first", ["a"]), make_dataset("second", ["b"])
    assert repack(first, second).images["quality"] == 90
    info = DatasetInfo.load(second)
    info.images["quality"] = 80
    info.save(second)
    assert repack(first, second).images == {}


def test_images_are_made_anew_where_asked(make_dataset, repack, read_split, tmp_path):
    info = repack(make_dataset("d", ["a"]), resize=True, pack_options=PackOptions(images=ImageOptions(short_side=16)))
    record = read_split(tmp_path / "out", "train")[0]
    assert (record.height, record.width, info.images["short_side"]) == (16, 24, 16)


def test_images_stay_in_their_shards_until_they_are_written(dataset):
    examples, _ = _read(dataset)
    assert {type(example.image) for example in examples.values()} == {RecordImage}


def test_records_without_image_or_with_weight_stay_as_they_are(tmp_path, make_example, make_source, repack, read_split):
    examples = [make_example("a", weight=0.25, split="train"), make_example("b", labels=[], split="train")]
    pack(make_source(examples), tmp_path / "d", progress=False)
    repack(tmp_path / "d")
    assert read_split(tmp_path / "out", "train") == read_split(tmp_path / "d", "train")


def test_numbering_of_labels_is_kept_and_new_ones_follow(make_dataset, repack, tmp_path):
    first = make_dataset("first", ["a"], labels=LabelVocabulary(["z", "unseen", "a"]))
    second = make_dataset("second", ["b"], labels=LabelVocabulary(["b", "a"]))
    assert repack(first).labels.names == ["z", "unseen", "a"]
    assert repack(first, second).labels.names == ["z", "unseen", "a", "b"]


def test_equal_ids_of_merged_datasets_are_duplicates_unless_prefixed(make_dataset, repack, read_split, tmp_path):
    folders = make_dataset("first", ["a", "b"]), make_dataset("second", ["b", "c"])
    info = repack(*folders, pack_options=PackOptions(max_bad_fraction=0.5))
    assert info.num_examples("train") == 3
    assert "first seen at first/train-00000-of-00001.tfrecord: record" in (tmp_path / "out/rejected.jsonl").read_text()
    repack(*folders, prefix_ids=True)
    assert {record.id for record in read_split(tmp_path / "out", "train")} == {"first/a", "first/b", "second/b", "second/c"}


def test_merged_datasets_have_the_text_fields_of_all(make_dataset, repack, read_split, tmp_path):
    first = make_dataset("first", ["a"])
    second = make_dataset("second", ["b"], text_fields=("caption",), texts={"caption": ["x", "y"]})
    assert repack(first, second).text_fields == {"title": False, "caption": False}
    texts = {record.id: record.texts for record in read_split(tmp_path / "out", "train")}
    assert texts == {"a": {"title": ("title of a",), "caption": ()}, "b": {"title": (), "caption": ("x", "y")}}


def test_field_that_is_derived_in_one_dataset_alone_is_an_error(make_dataset, tmp_path, make_example):
    derived = Source("rows", lambda: iter([make_example("b")]), {"title": True}, False)
    pack(derived, tmp_path / "second", progress=False)
    with pytest.raises(SourceError, match="'title' is derived from the label in one dataset, and not in another"):
        make_source(Options((make_dataset("first", ["a"]), tmp_path / "second")))
    assert make_source(Options((tmp_path / "second",))).text_fields == {"title": True}


def test_splits_and_labels_and_ids_are_filtered(dataset, write):
    assert set(_read(dataset, splits=("test",))[0]) == {f"e{i}" for i in range(10)}
    examples, _ = _read(dataset, labels=("b",))
    assert {int(key[1:]) % 2 for key in examples} == {1}
    assert make_source(Options((dataset,), labels=("b",))).labels == ["b"]
    ids = write("ids.txt", "e3\r\ne4\nnone\n")
    assert set(_read(dataset, ids=ids)[0]) == {"e3", "e4"}
    assert set(_read(dataset, without_ids=ids)[0]) == {f"e{i}" for i in range(30)} - {"e3", "e4"}


def test_of_several_labels_the_wanted_ones_are_kept(tmp_path, make_source, make_example):
    examples = [make_example("1", labels=["a", "b"]), make_example("2", labels=["c"])]
    pack(make_source(examples, multi_label=True), tmp_path / "d", progress=False)
    examples, _ = _read(tmp_path / "d", labels=("b",))
    assert {key: example.labels for key, example in examples.items()} == {"1": ["b"]}


@pytest.mark.parametrize(("field", "kept"), [("image", {"i", "all"}), ("title", {"t", "all"}), ("label", {"i", "t", "all"})])
def test_records_lack_nothing_that_is_required(tmp_path, make_source, make_example, small_jpeg, field, kept):
    examples = [
        make_example("i", image=small_jpeg, texts={}),
        make_example("t"),
        make_example("u", labels=[], texts={"about": ["x"]}),
        make_example("all", image=small_jpeg),
    ]
    pack(make_source(examples, ("title", "about")), tmp_path / "d", progress=False)
    assert set(_read(tmp_path / "d", require=(field,))[0]) == kept


def test_splits_are_drawn_anew_where_asked(dataset, repack):
    info = repack(dataset, resplit=True, pack_options=PackOptions(fractions={"all": 1.0}))
    assert {split: info.num_examples(split) for split in info.splits} == {"all": 30}


def test_columns_are_joined_by_id(dataset, write, repack, read_split, tmp_path):
    rows = ["key,w,title,about,class", *(f"e{i},0.5,New {i},,b" for i in range(29)), "e0,9,again,,a", "other,1,x,y,z"]
    columns = Columns(id="key", weight="w", text=("title", "about"), label="class")
    info = repack(dataset, join=write("t.csv", "\n".join(rows)), columns=columns, derived_from_label=("about",))
    assert (info.labels.names, info.text_fields) == (["b"], {"title": False, "about": True})
    records = {record.id: record for split in ("train", "test") for record in read_split(tmp_path / "out", split)}
    assert records["e4"].texts == {"about": (), "title": ("New 4",)}
    assert (records["e4"].weight, records["e4"].label_ids) == (0.5, (0,))
    assert (records["e29"].weight, records["e29"].texts["title"]) == (1.0, ("title of e29",))
    assert records["e4"].image == {r.id: r for r in read_split(dataset, "test")}["e4"].image
    rejected = [json.loads(line) for line in (tmp_path / "out/rejected.jsonl").read_text().splitlines()]
    assert sorted((row["where"], row["reason"], row["action"]) for row in rejected) == [
        ("t.csv", "1 of 30 records have no row", "kept as they were"),
        ("t.csv", "1 of 31 rows have no record", "rows not used"),
        ("t.csv:31", "another row has this id; the first is used", "row not used"),
    ]


def test_joined_labels_may_be_several_and_splits_new(dataset, write):
    path = write("t.csv", "id,tags,part\n" + "".join(f"e{i},red|round,dev\n" for i in range(30)))
    options = {"join": path, "columns": Columns(id="id", label="tags", split="part"), "label_separator": "|"}
    source = make_source(Options((dataset,), **options))
    assert (source.multi_label, source.labels) == (True, None)
    examples, rejections = _read(dataset, **options)
    assert rejections == []
    assert {(example.split, *example.labels) for example in examples.values()} == {("val", "red", "round")}


def test_rows_that_cannot_be_read_are_told(dataset, write):
    path = write("t.csv", "id,w\ne1,0.5\ne2,heavy\n,1\n")
    _, rejections = _read(dataset, join=path, columns=Columns(id="id", weight="w"))
    assert [(where, action) for _, where, _, action in rejections[:2]] == [
        ("t.csv:3", "row not used"),
        ("t.csv:4", "row not used"),
    ]


def test_table_whose_ids_fit_no_record_is_an_error(dataset, write):
    path = write("t.csv", "id,w\nE1,0.5\n")
    with pytest.raises(SourceError, match=r"no row of t\.csv has the id of a record in its column 'id'"):
        _read(dataset, join=path, columns=Columns(id="id", weight="w"))


@pytest.mark.parametrize("columns", [Columns(id="id"), Columns(weight="w"), Columns()])
def test_join_that_is_not_said_in_full_is_an_error(dataset, write, columns):
    with pytest.raises(SourceError, match="a join needs a table"):
        make_source(Options((dataset,), join=write("t.csv", "id,w\n"), columns=columns))
    with pytest.raises(SourceError, match="a join needs a table"):
        make_source(Options((dataset,), columns=Columns(id="id", weight="w")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": ("dev",)}, r"have no split 'dev'; they have \['test', 'train'\]"),
        ({"labels": ("c",)}, r"have no label 'c'; they have \['a', 'b'\]"),
        ({"require": ("about",)}, r"have no field 'about'; they have \['image', 'label', 'title'\]"),
    ],
)
def test_names_that_the_datasets_do_not_have_are_errors(dataset, options, message):
    with pytest.raises(SourceError, match=message):
        make_source(Options((dataset,), **options))


def test_what_is_no_dataset_or_table_is_an_error(dataset, tmp_path, write):
    with pytest.raises(FileNotFoundError, match="is no dataset folder"):
        make_source(Options((tmp_path,)))
    with pytest.raises(TableError, match="has no column 'w'"):
        make_source(Options((dataset,), join=write("t.csv", "id,x\n"), columns=Columns(id="id", weight="w")))


def test_damaged_shard_is_an_error(dataset, repack, tmp_path):
    shard = sorted(dataset.glob("train-*"))[0]
    data = bytearray(shard.read_bytes())
    data[-20] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ValueError, match="wrong checksum of the data"):
        repack(dataset)
    assert not (tmp_path / "out").exists()


def test_expected_accuracy_is_kept_by_what_keeps_all_records(tmp_path, make_example, repack):
    source = Source("rows", lambda: iter([make_example("a")]), {"title": False}, False, ceilings={"all": 0.9})
    pack(source, tmp_path / "d", progress=False)
    assert repack(tmp_path / "d").ceilings == {"all": 0.9}
    assert repack(tmp_path / "d", require=("title",)).ceilings == {}


def test_command_line_joins_and_filters(dataset, write, tmp_path):
    table = write("t.csv", "id,w,note\n" + "".join(f"e{i},0.5,n\n" for i in range(30)))
    arguments = ["--splits=train", "--keep_labels=a", f"--join={table}", "--join_id=id", "--weight=w", "--text=note"]
    assert main(["pack", "tfrecords", str(dataset), *arguments, f"--output={tmp_path / 'out'}"]) == 0
    info = DatasetInfo.load(tmp_path / "out")
    assert (info.num_examples("train"), info.labels.names) == (10, ["a"])
    assert info.text_fields == {"title": False, "note": False}
    assert str(tmp_path) not in json.dumps(info.provenance)
