"""A damaged dataset is found where its records are read: the error names the shard, and what was made of it is not kept."""

import dataclasses
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from mm_keras.data.damage import naming_damage
from mm_keras.data.encode_once import FrozenEncoder, encode_images
from mm_keras.data.pipeline import iter_texts, make_evaluation_batches, make_training_batches
from mm_keras.data.record_index import read_index
from tfrecords_tools.dataset.checksums import DamagedFileError
from tfrecords_tools.dataset.folder import Dataset, Split
from tfrecords_tools.dataset.index import index_file
from tfrecords_tools.dataset.shards import CorruptShardError
from tfrecords_tools.sources.example import SourceExample

SECOND = "train-00001-of-00002.tfrecord"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, pack_examples, encode_image):
    """12 examples in two shards."""
    pixels = np.random.default_rng(0).integers(0, 255, (12, 24, 24, 3), dtype="uint8")
    examples = [
        SourceExample(f"e{n}", f"t:{n}", encode_image(pixels[n]), {"title": [f"oak mug {n}"]}, ["ab"[n % 2]]) for n in range(12)
    ]
    return Path(pack_examples(tmp_path_factory.mktemp("whole") / "ds", examples, examples_per_shard=6))


@pytest.fixture
def split(whole, tmp_path) -> Split:
    return Dataset.open(shutil.copytree(whole, tmp_path / "ds")).split("train")


@pytest.fixture(scope="module")
def features(make_spec):
    return dataclasses.replace(make_spec(image=(16, 16)), labels=("a", "b"))


def _write(path, change):
    path.write_bytes(change(path.read_bytes()))


def _flip(data):
    """Another byte in the midst of the last record."""
    return data[:-60] + bytes([data[-60] ^ 1]) + data[-59:]


def _read(how, split, features):
    """Reads all of a split."""
    if how == "words for a vocabulary":
        return list(iter_texts(split, ["title"]))
    with naming_damage(split):
        if how == "training":
            batches = make_training_batches(split, features, 4, epochs=1, augment=False)
        else:
            batches = make_evaluation_batches(split, features, 4)
        return list(batches.dataset)


@pytest.mark.parametrize("how", ["training", "evaluation", "words for a vocabulary"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), f"{SECOND} is damaged: it is missing"),
        (lambda path: _write(path, lambda data: data[:-1]), f"{SECOND} is damaged: it has .* bytes, dataset.json says"),
        (lambda path: _write(path, _flip), rf"{SECOND}: record \d at byte \d+: wrong checksum of the data"),
    ],
    ids=["missing", "cut", "a bit flipped"],
)
def test_damaged_shard_is_named(split, features, how, damage, message):
    damage(split.dataset.folder / SECOND)
    with pytest.raises(CorruptShardError, match=message) as caught:
        _read(how, split, features)
    assert "tfrecords-tools verify" in str(caught.value)


@pytest.mark.parametrize("how", ["training", "evaluation", "words for a vocabulary"])
@pytest.mark.parametrize("more", [1, -1])
def test_records_are_counted_against_what_is_promised(split, features, how, more):
    """As where a shard was cut at a record's end while it was read, when its size had been looked at."""
    shards = split.shards
    found = shards[1].num_examples
    shards[1] = dataclasses.replace(shards[1], num_examples=found + more)
    if how == "training" and more < 0:
        pytest.skip("an epoch leaves records out anyway")
    with pytest.raises(CorruptShardError, match=f"{SECOND}: {found} records, dataset.json says {found + more}"):
        _read(how, split, features)


def test_damaged_index_is_named(split):
    path = split.dataset.folder / index_file(SECOND)
    split.shards[1] = dataclasses.replace(split.shards[1], num_examples=99)
    with pytest.raises(CorruptShardError, match=rf"{index_file(SECOND)} is damaged: \d rows, dataset.json says 99"):
        read_index(split, ["id", "label/ids"])
    _write(path, lambda data: data[:-40])
    with pytest.raises(DamagedFileError, match=rf"{index_file(SECOND)} is damaged: "):
        read_index(split, ["id", "label/ids"])


def test_nothing_is_cached_of_a_damaged_shard(split, features):
    """The cache is found again by dataset.json's checksums, so it would stay wrong after the shard was brought back."""
    inputs = keras.Input((16, 16, 3))
    encoder = FrozenEncoder(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs)))
    sizes = [shard.num_examples for shard in split.shards]
    path = split.dataset.folder / SECOND
    good = path.read_bytes()
    _write(path, _flip)
    with pytest.raises(CorruptShardError, match=rf"{SECOND} is damaged: its sha256 is not that of dataset.json"):
        encode_images(split, features, encoder, sizes)
    assert [block.name for block in (split.dataset.folder / ".features").glob("*/[!.]*")] == [Path(split.shards[0].file).stem]
    path.write_bytes(good)
    rows = encode_images(split, features, encoder, sizes).take(np.arange(12))
    assert (rows > 0).all()
    block = next((split.dataset.folder / ".features").glob("*/train-00001*/encoded.npy"))
    _write(block, lambda data: data[:-8] + bytes(8))  # zeros where numbers were
    np.testing.assert_array_equal(encode_images(split, features, encoder, sizes).take(np.arange(12)), rows)
