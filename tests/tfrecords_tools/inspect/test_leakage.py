import cv2
import numpy as np
import pytest

from tfrecords_tools.inspect.leakage import find_leaks, near_pairs, perceptual_hash
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.sources.example import Source, SourceExample


def picture(seed: int, side: int = 128) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def distance(a: bytes, b: bytes) -> int:
    return (perceptual_hash(a) ^ perceptual_hash(b)).bit_count()


@pytest.mark.parametrize("seed", range(5))
def test_hash_survives_reencoding_resizing_and_brightness(seed):
    original = picture(seed, 256)
    assert distance(jpeg(original), jpeg(original, quality=40)) <= 4
    assert distance(jpeg(original), jpeg(cv2.resize(original, (150, 150), interpolation=cv2.INTER_AREA))) <= 4
    assert distance(jpeg(original), jpeg(cv2.convertScaleAbs(original, alpha=0.8, beta=10))) <= 4


def test_hashes_of_different_pictures_are_far_apart():
    hashes = [perceptual_hash(jpeg(picture(seed))) for seed in range(40)]
    distances = [(a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > 8


@pytest.fixture
def dataset(tmp_path):
    def example(name, split, seed, label="a", quality=90):
        return SourceExample(name, name, jpeg(picture(seed), quality), labels=[label], split=split)

    examples = [example(f"train-{seed}", "train", seed) for seed in range(20)]
    examples += [example("copy", "test", 3, quality=50), example("mislabelled", "val", 5, label="b")]
    examples += [example("twin", "train", 7), example("other", "test", 100)]
    examples += [SourceExample("textonly", "textonly", texts={"title": ["x"]}, labels=["a"], split="test")]
    source = Source("rows", lambda: iter(examples), {"title": False}, multi_label=False)
    pack(source, tmp_path / "data", PackOptions(workers=1), progress=False)
    return tmp_path / "data"


def test_copies_in_other_splits_are_found_and_nothing_else(dataset):
    leaks = find_leaks(dataset, progress=False)
    found = {frozenset((leak.id, leak.other_id)): leak for leak in leaks}
    assert set(found) == {frozenset(("train-3", "copy")), frozenset(("train-5", "mislabelled"))}
    assert found[frozenset(("train-3", "copy"))].same_labels
    assert not found[frozenset(("train-5", "mislabelled"))].same_labels


def test_all_near_pairs_are_found_whatever_band_differs():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 300, dtype=np.uint64)
    splits = rng.integers(0, 3, 300)
    near = hashes[:100] ^ np.array(
        [sum(1 << int(bit) for bit in rng.choice(64, 4, replace=False)) for _ in range(100)], np.uint64
    )
    hashes, splits = np.concatenate([hashes, near]), np.concatenate([splits, (splits[:100] + 1) % 3])
    found = {frozenset(pair[:2]) for pair in near_pairs(hashes, splits, 4)}
    assert {frozenset((index, 300 + index)) for index in range(100)} <= found
    assert all((int(hashes[a]) ^ int(hashes[b])).bit_count() <= 4 for a, b in map(tuple, found))


def test_distance_out_of_range_is_an_error(dataset):
    with pytest.raises(ValueError, match="Received: 16"):
        find_leaks(dataset, max_distance=16)
