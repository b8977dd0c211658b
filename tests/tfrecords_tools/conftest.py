"""What several of these test files need: encoded pictures, sources made of a few examples, a packed dataset."""

import dataclasses
import json

import pytest
from PIL import Image

from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.sources.example import Source, SourceExample


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


@pytest.fixture(scope="session")
def bytes_of():
    """A function: a folder -> the bytes of every file in it, by path."""

    def read(folder) -> dict[str, bytes]:
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return read


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
def dataset(tmp_path, make_source, make_example, small_jpeg):
    """A packed dataset of 30 examples in two labels, in `train` (2 shards) and `test` (1 shard)."""
    examples = [
        make_example(f"e{i}", image=small_jpeg, labels=["ab"[i % 2]], split="test" if i < 10 else "train") for i in range(30)
    ]
    pack(make_source(examples), tmp_path / "dataset", PackOptions(examples_per_shard=10), progress=False)
    return tmp_path / "dataset"


@pytest.fixture
def packed(tmp_path, make_source):
    """A function: examples -> (DatasetInfo, folder); everything bad is allowed unless options say otherwise."""

    def apply(
        examples, options=PackOptions(fractions={"train": 1.0}), name="dataset", labels=None, overwrite=False, **declared
    ):
        if options.max_bad_fraction == PackOptions.max_bad_fraction:
            options = dataclasses.replace(options, max_bad_fraction=1.0)
        info = pack(make_source(examples, **declared), tmp_path / name, options, labels, overwrite, progress=False)
        return info, tmp_path / name

    return apply


@pytest.fixture
def rows(make_example):
    return [make_example(f"e{i}") for i in range(60)]
