"""What several of these test files need: encoded pictures, sources made of a few examples, a packed dataset."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from tfrecords_tools.example import Source, SourceExample
from tfrecords_tools.pack import PackOptions, pack
from tfrecords_tools.schema import decode_example
from tfrecords_tools.shards import iter_records


@pytest.fixture(scope="session")
def encode_image():
    """A function: pixels (array or Pillow image) -> encoded bytes."""

    def encode(image, kind="JPEG", **options) -> bytes:
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def small_jpeg(encode_image):
    return encode_image(Image.new("RGB", (40, 30), "teal"))


@pytest.fixture(scope="session")
def make_example():
    """A function: id -> a SourceExample with a title and a label, unless told otherwise."""

    def make(example_id: str, **fields) -> SourceExample:
        fields = {"texts": {"title": [f"title of {example_id}"]}, "labels": ["a"]} | fields
        return SourceExample(id=example_id, where=f"rows:{example_id}", **fields)

    return make


@pytest.fixture(scope="session")
def make_source():
    """A function: examples and rejections -> a Source."""

    def make(examples, text_fields=("title",), multi_label=False) -> Source:
        return Source("rows", lambda: iter(examples), dict.fromkeys(text_fields, False), multi_label)

    return make


@pytest.fixture
def write(tmp_path):
    """A function: (path in tmp_path, bytes, text or a JSON value) -> the path of the file made."""

    def to_file(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, bytes | str):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to_file


@pytest.fixture
def read_split():
    """A function: (dataset folder, split) -> its decoded records, in order."""

    def read(folder, split):
        shards = sorted(folder.glob(f"{split}-*.tfrecord"))
        return [decode_example(serialized) for shard in shards for serialized in iter_records(shard)]

    return read


@pytest.fixture
def dataset(tmp_path, make_source, make_example, small_jpeg):
    """A packed dataset of 30 examples in two labels, in `train` (2 shards) and `test` (1 shard)."""
    examples = [
        make_example(f"e{i}", image=small_jpeg, labels=["ab"[i % 2]], split="test" if i < 10 else "train") for i in range(30)
    ]
    pack(make_source(examples), tmp_path / "dataset", PackOptions(examples_per_shard=10), progress=False)
    return tmp_path / "dataset"
