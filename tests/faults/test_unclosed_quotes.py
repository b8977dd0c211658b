"""Kind: a loss that is counted in events instead of rows. A quote that nobody closes makes one cell of all rows behind it."""

import json

import pytest

from tfrecords_tools.packing.pack import PackError, PackOptions, pack
from tfrecords_tools.sources.example import Rejection, SourceError
from tfrecords_tools.sources.table import Columns, make_source

COLUMNS = Columns(text=("title",), label="label")


@pytest.fixture
def table(tmp_path):
    """A function: lines -> a CSV file with the columns title, price and label."""

    def write(lines, name="t.csv", header="title,price,label"):
        path = tmp_path / name
        path.write_text("\n".join([header, *lines]) + "\n")
        return path

    return write


def _read(path, columns=COLUMNS, **options):
    """The titles and the rejections of a table."""
    rows = list(make_source([path], columns, **options).examples())
    titles = [row.texts["title"][0] for row in rows if not isinstance(row, Rejection)]
    return titles, [row for row in rows if isinstance(row, Rejection)]


def _lines(number, first=0):
    return [f"thing {index},{index},{'ab'[index % 2]}" for index in range(first, first + number)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('"5 inch tube,3,a', "is not closed in it; the lines up to 22"),  # to the end of the file
        ('12,"x,a', "is not closed in it"),  # in a later cell
        ('"quoted" twice,3,a', "line 2"),  # closed, and text behind it: costs its own line without more
    ],
)
def test_only_the_row_with_the_quote_is_lost(table, line, reason):
    titles, rejections = _read(table([line, *_lines(20)]))
    assert titles == [f"thing {index}" for index in range(20)]
    assert [(row.where, row.rows) for row in rejections] == [("t.csv:2", 1)]
    assert reason in rejections[0].reason


def test_quotes_in_every_row_are_counted_row_by_row(table):
    titles, rejections = _read(table([f'"{line}' for line in _lines(50)]))
    assert titles == []
    assert [(row.where, row.rows) for row in rejections] == [(f"t.csv:{line}", 1) for line in range(2, 52)]


def test_quote_that_another_row_happens_to_close_swallows_nothing_either(table):
    """The row would parse: one cell of twelve lines, and as many cells as there are columns."""
    titles, rejections = _read(table(['"5 inch tube,3,a', *_lines(10), '12",4,b', *_lines(2, 10)]))
    assert titles == [*(f"thing {index}" for index in range(10)), '12"', "thing 10", "thing 11"]
    assert [row.where for row in rejections] == ["t.csv:2"]


def test_texts_of_many_lines_stay_one_cell(table):
    text = "\n".join(f"line {index}, with a comma" for index in range(400))
    titles, rejections = _read(table([f'"{text}",1,a', *_lines(2)]))
    assert titles == [text, "thing 0", "thing 1"]
    assert not rejections


@pytest.mark.parametrize("columns", ["title,price,label", "title"])
def test_more_than_a_few_hundred_swallowed_lines_stop_the_reading(table, columns):
    lines = [line if "," in columns else line.partition(",")[0] for line in _lines(980)]
    path = table([*lines[:19], '"' + lines[19], *lines[20:]], header=columns)
    roles = COLUMNS if "," in columns else Columns(text=("title",))
    with pytest.raises(SourceError, match=r"t\.csv:21: a cell begins with a quote\b.* line 981.*--no_quotes"):
        _read(path, roles)
    titles, rejections = _read(path, roles, quotes=False)
    assert (len(titles), titles[19], rejections) == (980, '"thing 19', [])


def test_quote_in_a_table_of_millions_of_rows_stops_without_reading_them_all(tmp_path):
    path = tmp_path / "t.csv"
    with open(path, "w") as file:
        file.write('title,price,label\n"5 inch,1,a\n')
        for _ in range(40):
            file.write("a thing of some length that fills the memory,1,a\n" * 20_000)
    with pytest.raises(SourceError, match=r"t\.csv:2: a cell begins with a quote"):
        _read(path)


@pytest.mark.parametrize("quote", ["", '"'])
def test_cell_over_the_limit_costs_its_row_alone_and_is_not_blamed_on_a_quote(table, quote):
    cell = ("many words\n" if quote else "many words ") * 110_000
    titles, rejections = _read(table([f"{quote}{cell}{quote},1,a", *_lines(3)]))
    assert titles == ["thing 0", "thing 1", "thing 2"]
    assert [(row.where, row.rows) for row in rejections] == [("t.csv:2", 1)]
    assert "a cell of 1,210,000 characters" in rejections[0].reason
    assert "quote" not in rejections[0].reason


def test_limit_of_bad_rows_and_the_report_count_rows(tmp_path, table):
    """Lines without commas behind the quote do not look like rows of three cells, but each of a single column may be one."""
    path = table(["thing", "other", '"open', *map(str, range(30)), *"abcdefgh"], header="title")
    source = make_source([path], Columns(text=("title",)))
    with pytest.raises(PackError, match=r"at least 39 of 41 examples are bad, over the allowed fraction of 0\.2"):
        pack(source, tmp_path / "out", progress=False)
    info = pack(source, tmp_path / "out", PackOptions(fractions={"train": 1.0}, max_bad_fraction=1.0), progress=False)
    assert info.provenance["rejected"] == {"left out": 39}
    (line,) = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["rows"] == 39
    assert "(lines 4–42); an unclosed quote, perhaps" in json.loads(line)["reason"]
