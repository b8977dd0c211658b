"""The two small datasets of the tests of the pipeline."""

import pytest

from tests.mm_keras.data.pipeline_rows import LABELS, NUM
from tests.mm_keras.drawn_examples import draw_examples
from tfrecords_tools.sources.example import SourceExample


@pytest.fixture(scope="session")
def folder(tmp_path_factory, pack_examples, encode_image):
    """Examples that their title tells apart, in three shards; each has three captions, the first has no image."""

    def describe(index, draw):
        return {
            "image": encode_image(draw(), "JPEG") if index else None,
            "texts": {"title": [f"t{index}"], "caption": [f"c{index}{which}" for which in "abc"], "none": []},
            "labels": [LABELS[index % 3]] if index < NUM - 5 else [],
            "weight": 1 + index % 2,
        }

    examples = draw_examples(NUM, describe, size=(20, 30))
    return pack_examples(tmp_path_factory.mktemp("pipeline") / "rows", examples, ("title", "caption", "none"))


@pytest.fixture(scope="session")
def tags_folder(tmp_path_factory, pack_examples):
    """A multi-label dataset; the last two of its seven examples have no label."""
    tags = [["a"], ["a", "b"], ["c"], ["a", "b", "c"], ["b"], [], []]
    examples = [
        SourceExample(f"e{index}", f"rows:{index}", texts={"title": [f"t{index}"]}, labels=labels)
        for index, labels in enumerate(tags)
    ]
    return pack_examples(tmp_path_factory.mktemp("pipeline") / "tags", examples, multi_label=True)
