"""How the tests of tables read them."""

from tfrecords_tools.sources.example import Rejection, SourceExample
from tfrecords_tools.sources.table import Columns, make_source

TITLE = Columns(text=("title",))
ALL = Columns(image="image", text=("title", "about"), label="label", id="id", split="split", weight="weight")


def read_table(table, columns=TITLE, **options):
    """The examples and the rejections of a table that passed the check of its columns."""
    rows = list(make_source([table], columns, **options).examples())
    return (
        [row for row in rows if isinstance(row, SourceExample)],
        [(row.where, row.reason) for row in rows if isinstance(row, Rejection)],
    )


def read_titles(table, columns=TITLE, **options):
    examples, rejections = read_table(table, columns, **options)
    assert rejections == []
    return [example.texts["title"][0] for example in examples]
