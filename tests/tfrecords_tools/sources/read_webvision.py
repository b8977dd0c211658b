"""How the tests of WebVision read a folder."""

from tfrecords_tools.sources.example import Rejection, SourceExample
from tfrecords_tools.sources.webvision import Options, make_source


def read_webvision(root, **options):
    rows = list(make_source(Options(root, **options)).examples())
    examples = {row.id: row for row in rows if isinstance(row, SourceExample)}
    return examples, [(row.id, row.where, row.reason, row.action) for row in rows if isinstance(row, Rejection)]


def texts_of(examples):
    return {example_id: {field: texts for field, (texts,) in e.texts.items()} for example_id, e in examples.items()}
