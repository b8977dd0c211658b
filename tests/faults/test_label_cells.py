"""Kind: a guess instead of a question. What a label cell means is clear, or it is asked before packing, or told."""

import json

import pandas as pd
import pytest

from tfrecords_tools.cli.main import main
from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.packing.summary import summary_lines
from tfrecords_tools.sources.table import Columns, TableError, make_source
from tfrecords_tools.sources.table_cells import LabelCells, list_in

COLUMNS = Columns(text=("title",), label="tags")


def _source(cells, **options):
    return make_source([pd.DataFrame({"title": [f"t{i}" for i in range(len(cells))], "tags": cells})], COLUMNS, **options)


def _labels(cells, **options):
    return [getattr(row, "labels", None) or getattr(row, "reason", []) for row in _source(cells, **options).examples()]


SPELLED = {
    "['red', 'round']": ["red", "round"],  # str(list)
    '["red", "it\'s"]': ["red", "it's"],  # JSON
    "['red' 'round']": ["red", "round"],  # str(array of NumPy), whose words Python would glue together
    "array(['red', 'round'], dtype=object)": ["red", "round"],
    "('red', 'round')": ["red", "round"],
    "{'red', 'round'}": ["red", "round"],
    "['it\\'s', None]": ["it's", None],
    "[1, 2]": [1, 2],
    "[1. 2.]": [1.0, 2.0],
    "[]": [],
    "[red]": None,
    "(red)": None,
    "[red, round]": None,
    "red": None,
    "": None,
    "[[[[[[": None,
    "[" * 50_000 + "]" * 50_000: None,
}


@pytest.mark.parametrize("cell", SPELLED, ids=lambda cell: cell[:20])
def test_texts_that_spell_lists_are_told_from_texts(cell):
    assert list_in(cell) == SPELLED[cell]


@pytest.mark.parametrize("cell", [cell for cell, items in SPELLED.items() if items])
def test_spelled_list_is_several_labels_where_that_is_said_and_otherwise_asked(cell):
    expected = [str(item).removesuffix(".0") for item in SPELLED[cell] if item is not None]
    source = _source([cell] * 3, multi_label=True)
    assert [row.labels for row in source.examples()] == [expected] * 3
    assert "spell lists" in source.notes[0]
    assert _labels([cell] * 3, label_separator=",") == [expected] * 3  # no part of it is called "['red'"
    with pytest.raises(TableError, match=r"hold lists, such as .*--multi_label"):
        _source([cell, "red", "round"])


def test_stray_list_costs_its_row(tmp_path):
    labels = _labels(["red"] * 30 + ["['red', 'round']"])
    assert labels[:30] == [["red"]] * 30
    assert "is a list: where examples may carry several labels, say so (--multi_label" in labels[30]


@pytest.mark.parametrize(
    ("cell", "options", "reason"),
    [
        ("[red, round]", {"multi_label": True}, r"looks like a list, whose items JSON and Python would quote"),
        ("[red, round]", {"label_separator": ","}, r"looks like a list"),
        ('{"red": 1, "round": 0}', {"multi_label": True}, "is an object; name labels, or a list of them"),
        ('{"red": 1, "round": 0}', {}, "is an object"),
    ],
)
def test_cell_that_may_mean_several_things_costs_its_row(cell, options, reason):
    cells = LabelCells("tags", options.get("label_separator"), bool(options))
    with pytest.raises(ValueError, match=reason):
        cells.read(cell)


@pytest.mark.parametrize("cell", ["[music]", "(unknown)", "[UNK]|red", "C[1]"])
def test_brackets_in_names_are_names(cell):
    assert LabelCells("tags", "|", True).read(cell) == cell.split("|")


def test_cells_with_commas_are_asked_about_where_several_labels_are_said_and_told_of_otherwise():
    cells = ["red, round", "red, long", "blue, round", "blue"]
    with pytest.raises(TableError, match=r"may hold several labels, such as 'red, round': .*--label_separator=','"):
        _source(cells, multi_label=True)
    assert _labels(cells, label_separator=",")[0] == ["red", "round"]
    assert "hold no '|': is ',' the separator in 'red, round'?" in _source(cells, label_separator="|").notes[0]
    assert "If they hold several labels, say so: --label_separator=','" in _source(cells).notes[0]
    assert not _source(["tench, Tinca tinca", "goldfish, Carassius auratus"] * 5).notes


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        ([1.0, None, 2.0], ["1", "2"]),  # integers, after pandas met an empty cell
        (["1", "1.0", "", "2"], ["1", "2"]),
        ([1, 1.0, "1", "1.0"], ["1"]),
        ([0.5, 1.5], ["0.5", "1.5"]),
        (["007", "7"], ["007", "7"]),
        (["v1.0", "1.10"], ["1.10", "v1.0"]),
    ],
)
def test_whole_numbers_are_one_class_however_they_are_written(cells, labels):
    read = [row.labels for row in _source(pd.Series(cells, dtype=object)).examples()]
    assert sorted({name for names in read for name in names}) == labels


def test_numbers_written_otherwise_are_told():
    assert "hold whole numbers such as 1.0, which are written 1" in _source([1.0, None, 2.0]).notes[0]
    assert not _source([1, 2]).notes


@pytest.fixture
def shop(tmp_path):
    """A function: rows of title, tags and split -> a JSON Lines file."""

    def write(*rows):
        lines = [json.dumps(dict(zip(("title", "tags", "split"), row, strict=True))) for row in rows]
        (tmp_path / "shop.jsonl").write_text("\n".join(lines))
        return tmp_path / "shop.jsonl"

    return write


@pytest.mark.parametrize(
    ("options", "meaning"),
    [(["--multi_label", "--empty_means_none"], "no label applies"), ([], "kept for prediction")],
)
def test_unlabelled_rows_are_counted_told_of_and_left_out_where_asked(shop, tmp_path, call, options, meaning):
    path = shop(("a", "x", "train"), ("b", None, "train"), ("c", "y", "train"), ("d", "", "train"))
    arguments = ("pack", "table", path, "--text=title", "--label=tags", "--split=split", *options)
    status, out, _ = call(main, *arguments, "--output", tmp_path / "kept")
    assert status == 0
    assert "2 of 4 examples have no label: " in out
    assert meaning in out
    status, out, _ = call(main, *arguments, "--output", tmp_path / "left", "--unlabelled=leave_out")
    assert status == 0
    assert "2 without a label were left out, as asked" in out
    info = DatasetInfo.load(tmp_path / "left")
    assert (info.num_examples("train"), info.provenance["rejected"]) == (2, {})


def test_rows_of_which_no_label_is_known_are_no_examples_without_labels(shop, tmp_path, call):
    path = shop(("a", ["x", "y"], "train"), ("b", None, "train"), ("c", [], "train"), ("d", "", "train"))
    arguments = ("pack", "table", path, "--text=title", "--label=tags", "--multi_label", "--output", tmp_path / "out")
    status, out, _ = call(main, *arguments, "--fractions=train=1")
    assert status == 0
    assert "2 without a label were left out; where empty cells say that no label applies: --empty_means_none" in out
    assert "1 of 2 examples have no label: taken for examples to which no label applies" in out


FLAGS = pd.DataFrame(
    {"title": list("abcdef"), "red": [1, 0, None, 1.0, True, "no"], "round": ["x", "0", "", "", "FALSE", "maybe"]}
)


def test_a_column_a_label(call, tmp_path):
    source = make_source([FLAGS], Columns(text=("title",), labels=("round", "red")))
    assert source.multi_label and source.labels == ["round", "red"]
    *examples, odd = source.examples()
    assert [row.labels for row in examples] == [["round", "red"], [], [], ["red"], ["red"]]
    assert [row.unknown_labels for row in examples] == [False, False, True, False, False]
    assert "label column 'round' holds 1 or 0 (also true, yes" in odd.reason and "Received: 'maybe'" in odd.reason
    FLAGS.to_csv(tmp_path / "t.csv")
    arguments = ("pack", "table", tmp_path / "t.csv", "--text=title", "--labels=red,round", "--output", tmp_path / "out")
    assert call(main, *arguments, "--fractions=train=1")[0] == 0
    assert DatasetInfo.load(tmp_path / "out").labels.names == ["red", "round"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": "red", "labels": ("round",)}, r"one column \(--label\), or in one column each \(--labels\)"),
        ({"labels": ("red", "red")}, "label column 'red' is named twice"),
        ({"labels": ("red", "title")}, "column 'title' is both the label and a text"),
        ({"labels": ("red", "blue")}, "no column 'blue'"),
        ({"label": "red,round"}, "are --labels=red,round"),
        ({"label": "red", "split": "round", "group": "round"}, "--group=round says which rows stay together"),
    ],
)
def test_label_columns_that_contradict_each_other_are_an_error(columns, message):
    with pytest.raises(TableError, match=message):
        make_source([FLAGS], Columns(text=("title",), **columns))


def test_classes_without_training_examples_are_named_with_their_counts(shop, tmp_path):
    rows = [("a", "x", "train"), ("b", "y", "train"), ("c", "unseen", "test"), ("d", "unseen", "test"), ("", "ghost", "val")]
    source = make_source([shop(*rows, ("e", "x", "val"))], Columns(text=("title",), label="tags", split="split"))
    info = pack(source, tmp_path / "out", PackOptions(max_bad_fraction=0.5), progress=False)
    lines = "\n".join(summary_lines(info, "out"))
    assert "1 left out: see out/rejected.jsonl" in lines
    assert "no example at all of 1 class: 'ghost' (1 left out)" in lines
    assert "no training example of 1 class, which cannot be learned: 'unseen' (test 2)" in lines
    assert "classes without an example to be measured by: 1 in 'val', 2 in 'test'" in lines


def test_names_that_may_mean_something_else_are_told(shop, tmp_path):
    names = ["cat", "Cat", "nan", "caf\u00e9", "cafe\u0301", "dog"]
    source = make_source(
        [shop(*((f"t{i}", name, "train") for i, name in enumerate(names)))], Columns(text=("title",), label="tags")
    )
    lines = summary_lines(pack(source, tmp_path / "out", PackOptions(fractions={"train": 1.0}), progress=False), "out")
    assert "'nan' is a class like any other" in lines[0]
    assert "'Cat' and 'cat'" in lines[1]
    assert "'cafe\u0301' and 'caf\u00e9'" in lines[1]


def test_quantity_that_is_taken_for_classes_is_told(shop, tmp_path):
    prices = [("a", "9.99", "train"), ("b", "1.5", "train"), ("c", "12", "train")]
    source = make_source([shop(*prices)], Columns(text=("title",), label="tags", split="split"))
    lines = summary_lines(pack(source, tmp_path / "out", progress=False), "out")
    assert "2 of 3 classes are numbers with fractions, such as '1.5': a quantity is no class" in lines[0]


def test_dataset_without_gaps_has_nothing_to_tell(shop, tmp_path):
    source = make_source(
        [shop(("a", "x", "train"), ("b", "y", "train"))], Columns(text=("title",), label="tags", split="split")
    )
    assert summary_lines(pack(source, tmp_path / "out", progress=False), "out") == []
