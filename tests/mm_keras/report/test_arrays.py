"""Calibration, neighbours, copies, drift, confusions and maps: functions of arrays."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from mm_keras.report.calibration import calibration_error, claimed_and_true, histogram, reliability, risk_coverage
from mm_keras.report.confusion import co_occurrence, confusion_counts, most_confused, top_confusions
from mm_keras.report.drift import domain_score, label_drift, number_drift
from mm_keras.report.maps import make_maps_of
from mm_keras.report.near_duplicates import copied_pictures, copied_texts, names_its_label
from mm_keras.report.neighbours import nearest, novelty
from tfrecords_tools.inspect.leakage import perceptual_hash


def test_reliability_of_probabilities_that_come_true():
    rng = np.random.default_rng(0)
    claimed = rng.random(20_000)
    came_true = rng.random(20_000) < claimed
    bins = reliability(claimed, came_true)
    assert sum(each["count"] for each in bins) == 20_000
    assert calibration_error(bins) < 0.02
    assert calibration_error(reliability(claimed, np.ones(20_000, bool))) == pytest.approx(0.5, abs=0.01)
    assert calibration_error([]) == 0


def test_the_surest_answers_are_wrong_less_often():
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    curve = risk_coverage(confidence, np.array([True, True, False, False]))
    assert [(point["coverage"], point["risk"]) for point in curve] == [(0.25, 0), (0.5, 0), (0.75, 1 / 3), (1, 0.5)]
    assert risk_coverage(np.zeros(0), np.zeros(0, bool)) == []


def test_claims_of_one_label_are_those_of_the_best():
    answers, true = np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([[False, True], [False, True]])
    claimed, came_true = claimed_and_true(answers, true, False)
    assert (claimed.tolist(), came_true.tolist()) == ([0.8, 0.6], [True, False])
    assert len(claimed_and_true(answers, true, True)[0]) == 4
    counts = histogram(claimed, came_true, 0.0, 1.0)
    assert (sum(counts["yes"]), sum(counts["no"])) == (1, 1)


def test_nearest_examples_are_those_of_the_smallest_angle():
    rng = np.random.default_rng(0)
    known, queries = rng.normal(size=(50, 8)), rng.normal(size=(7, 8))
    cosines = queries @ known.T / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(known, axis=1)
    found, distances = nearest(queries, known, 5)
    assert (found == np.argsort(-cosines, axis=1)[:, :5]).all()
    assert distances == pytest.approx(1 - np.sort(cosines, axis=1)[:, ::-1][:, :5], abs=1e-5)
    assert (nearest(known, known, 1, same=True)[0][:, 0] != np.arange(50)).all()
    assert nearest(queries, known[:0], 5)[0].shape == (7, 0)


def test_what_is_unlike_the_training_is_far_from_it():
    rng = np.random.default_rng(0)
    known = rng.normal(size=(200, 8)) + 5
    own, of_known = novelty(np.concatenate([rng.normal(size=(20, 8)) + 5, rng.normal(size=(5, 8)) - 5]), known)
    assert (own[20:] > of_known.max()).all()
    assert np.median(own[:20]) < np.percentile(of_known, 95)
    assert not novelty(known[:3], known[:1])[0].any()


def _jittered(picture: Image.Image, rng) -> bytes:
    """The picture with another brightness and size, cut by a few pixels, and encoded anew."""
    cut = rng.integers(0, 3, size=4)
    picture = picture.crop((int(cut[0]), int(cut[1]), picture.width - int(cut[2]), picture.height - int(cut[3])))
    picture = ImageEnhance.Brightness(picture).enhance(float(rng.uniform(0.85, 1.15)))
    scale = rng.uniform(0.7, 1.2)
    picture = picture.resize((int(picture.width * scale), int(picture.height * scale)))
    return _encoded(picture, int(rng.integers(50, 90)))


def _encoded(picture, quality=90) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _tiny(pictures):
    """A stand-in for embeddings: 8 x 8 pixels, less their mean."""
    pixels = [np.asarray(Image.open(io.BytesIO(each)).resize((8, 8)), np.float32).ravel() for each in pictures]
    return np.stack([each - each.mean() for each in pixels])


def _hash_all(pictures):
    return np.array([perceptual_hash(each) for each in pictures], np.uint64)


def test_copies_of_pictures_are_found_all_of_them_and_no_others():
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(120):
        noise = rng.normal(0, 60, size=(12, 12, 3)) + rng.uniform(60, 190, size=3)
        pictures.append(Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).resize((160, 160), Image.Resampling.BICUBIC))
    tests, trained = pictures[:60], pictures[60:]
    known = [_encoded(each) for each in trained] + [_jittered(each, rng) for each in tests[:30]]
    given = [_encoded(each) for each in tests]
    found = copied_pictures(_hash_all(given), _hash_all(known), _tiny(given), _tiny(known))
    assert found == [(row, 60 + row) for row in range(30)]
    assert set(copied_pictures(_hash_all(given), _hash_all(known))) <= set(found)  # hashes alone


def test_embeddings_that_are_nearly_equal_excuse_some_bits():
    vectors = np.eye(3)
    hashes = np.array([0, 0xFFFF0000, 0xFFFF00000000], np.uint64)
    near = hashes ^ np.array([0xFF, 0xFF, 0xFFFFFFFFFF], np.uint64)
    assert copied_pictures(hashes, near) == []
    assert copied_pictures(hashes, near, vectors, vectors) == [(0, 0), (1, 1)]


def test_copies_of_texts_are_found():
    known = ["Solid oak table, classic look", "A mug", "blue wool scarf for winter days", ""]
    texts = ["solid OAK table classic look!", "a mug", "red wool scarf for winter days", "something else entirely", ""]
    assert copied_texts(texts, known) == [(0, 0)]
    long = " ".join(f"word{i}" for i in range(30))
    assert copied_texts([long.replace("word7", "other")], [*known, long]) == [(0, 4)]
    assert copied_texts([long.replace("word", "other")], [*known, long]) == []
    assert copied_texts([], []) == []


def test_texts_that_name_their_label_are_found_all_of_them():
    names = ["wool scarf", "mug", "???"]
    texts = ["A Wool-Scarf (new)", "woolscarf", "smug", "my mug", "???", ""]
    assert names_its_label(texts, np.array([0, 0, 1, 1, 2, 1]), names).tolist() == [True, False, False, True, False, False]
    several = np.array([[1, 1, 0], [0, 1, 0]])
    assert names_its_label(["a mug", "a scarf"], several, names).tolist() == [True, False]
    assert not names_its_label(["a mug"], np.array([-1]), names).any()


def test_drift_is_seen_where_there_is_some():
    rng = np.random.default_rng(0)
    same = label_drift(np.array([100, 100]), np.array([52, 48]))
    assert (same["distance"], same["chance"] > 0.05) == (pytest.approx(0.02), True)
    assert label_drift(np.array([100, 100]), np.array([90, 10]))["chance"] < 1e-6
    assert label_drift(np.array([5, 0]), np.array([0, 0])) == {"distance": 0, "chance": 1}
    assert number_drift(rng.normal(size=300), rng.normal(size=300) + 1)["chance"] < 1e-6
    assert number_drift(np.zeros(0), np.ones(3)) is None
    train, test = rng.normal(size=(200, 12)), rng.normal(size=(100, 12))
    assert domain_score(train, test) == pytest.approx(0.5, abs=0.12)
    assert domain_score(train, test + 1) > 0.85
    assert domain_score(train[:5], test) is None


def test_confusions_are_counted():
    true = np.eye(3, dtype=bool)[[0, 0, 1, 2, 2]]
    predicted = np.eye(3, dtype=bool)[[0, 1, 1, 1, 1]]
    counts = confusion_counts(true, predicted)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 2, 0]]
    assert top_confusions(counts, 5) == [(2, 1, 2), (0, 1, 1)]
    assert sorted(most_confused(counts, 2)) == [1, 2]
    assert most_confused(np.zeros((1000, 1000), int), 30).size == 0
    large = np.diag(np.arange(1000))
    large[3, 7] = 9
    assert {3, 7} <= set(most_confused(large, 30).tolist())
    assert len(most_confused(large, 30)) == 30


def test_labels_that_occur_together():
    shares = co_occurrence(np.array([[1, 1, 0], [1, 0, 0]], bool))
    assert shares.tolist() == [[1, 0.5, 0], [1, 1, 0], [0, 0, 0]]


def test_maps_keep_groups_apart_and_refuse_what_is_no_map():
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1], 30)
    vectors = rng.normal(size=(60, 10)) * 0.1 + np.eye(10)[groups * 4] * 3
    maps = make_maps_of(vectors)
    assert list(maps) == ["t-SNE", "principal components"]
    for points in maps.values():
        assert points.shape == (60, 2)
        found, _ = nearest(points - points.mean(axis=0), points - points.mean(axis=0), 1, same=True)
        assert (groups[found[:, 0]] == groups).mean() > 0.9
    assert make_maps_of(vectors[:4]) == make_maps_of(np.ones((20, 3))) == {}
    assert make_maps_of(vectors[:6])["t-SNE"].shape == (6, 2)
