import functools
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from mm_keras.data.augment import make_augmentation
from mm_keras.data.feature_cache import CACHE_FOLDER, FeatureCache
from mm_keras.data.pipeline import make_evaluation_batches
from mm_keras.model.frozen import frozen_modalities, split_at_frozen
from mm_keras.model.image_tower import build_small_cnn
from mm_keras.model.text_encoder import build_small_text_encoder
from mm_keras.run_folder import RunFolder
from tfrecords_tools.example import SourceExample

NUM = 50


TITLE_ALONE = {"text_fields": ("title",), "max_tokens": {"title": 8}}


def _frozen(build, spec, **options):
    model = build(spec, **options)
    model.trainable = False
    return model


@pytest.fixture(scope="session")
def build_frozen(build_small_model):
    """`build_two_tower` with frozen towers."""
    return functools.partial(
        build_small_model,
        image_tower=functools.partial(_frozen, build_small_cnn, widths=(8, 8)),
        text_encoder=functools.partial(_frozen, build_small_text_encoder, width=8),
    )


@pytest.fixture
def folder(tmp_path, pack_examples, encode_image):
    """Labelled pictures with titles, some without one of the two; weights 1 and 2; five more examples have no label."""
    rng = np.random.default_rng(0)
    examples = [
        SourceExample(
            id=f"e{index:03d}",
            where=f"rows:{index}",
            image=encode_image(rng.integers(0, 255, (20, 20, 3), np.uint8), "JPEG") if index % 7 else None,
            texts={"title": [f"word{index % 5} and word{index % 3}"] if index % 5 or not index % 7 else []},
            labels=["abcd"[index % 4]] if index < NUM else [],
            weight=1 + index % 2,
        )
        for index in range(NUM + 5)
    ]
    return Path(pack_examples(tmp_path / "rows", examples, ("title",)))


@pytest.fixture
def parts(folder, make_small_features, build_frozen):
    """(features, model, encoders, trained part)"""
    keras.utils.set_random_seed(0)
    features = make_small_features(folder, **TITLE_ALONE)
    model = build_frozen(features)
    return features, model, *split_at_frozen(model, features, frozen_modalities(model, features))


@pytest.fixture
def cache(folder, parts):
    features, _, encoders, trained = parts
    return FeatureCache(folder, "train", features, encoders, list(trained.input), batch_size=16)


def test_cache_holds_what_the_encoders_make_of_each_record(folder, parts, cache):
    features, model, _, trained = parts
    (inputs, labels, weights), *_ = make_evaluation_batches(folder, "train", features, NUM, record_weights=True).dataset
    given = {name: np.array(array) for name, array in cache.arrays.items()}
    np.testing.assert_allclose(trained(given), model(inputs), atol=1e-5)
    np.testing.assert_array_equal(cache.labels, labels)
    np.testing.assert_array_equal(cache.weights, weights)
    assert sorted(set(cache.weights)) == [1, 2]


def test_epochs_visit_each_example_at_most_once_in_orders_of_their_own(cache):
    def order(seed):
        batches = cache.training_batches(8, epochs=2, seed=seed)
        assert (batches.steps, batches.num_examples) == (6, 48)
        rows = np.concatenate([inputs["image_encoded"] + weights[:, None] for inputs, _, weights in batches.dataset])
        return rows.reshape(2, 48, -1)

    first, second = order(0)
    assert len(np.unique(cache.arrays["image_encoded"], axis=0)) > 40  # pictures differ; a missing one is zeros
    assert len(np.unique(first, axis=0)) >= len(np.unique(first[:40], axis=0)) > 30
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(order(0), [first, second])
    assert not np.array_equal(order(1)[0], first)


@pytest.mark.parametrize("start", [1, 6, 8])  # 6 steps an epoch
def test_resumed_training_goes_on_with_the_batches_that_were_left(cache, start):
    whole, rest = ([*cache.training_batches(8, 3, 5, start).dataset.as_numpy_iterator()] for start in (0, start))
    assert len(rest) == 18 - start
    for (one, *_), (other, *_) in zip(whole[start:], rest, strict=True):
        np.testing.assert_array_equal(one["image_encoded"], other["image_encoded"])


def test_evaluation_counts_every_example_once(cache):
    batches = cache.evaluation_batches(16)
    labels, weights = (np.concatenate([batch[part] for batch in batches.dataset.as_numpy_iterator()]) for part in (1, 2))
    assert (batches.steps, batches.num_examples, len(weights)) == (4, NUM, 64)
    np.testing.assert_array_equal(weights, [1] * NUM + [0] * 14)
    np.testing.assert_array_equal(labels[:NUM], cache.labels)


def test_cache_is_filled_once_and_anew_for_other_weights_or_features(folder, parts, make_small_features, build_frozen):
    features, model, encoders, trained = parts

    def fill(features=features, encoders=encoders):
        FeatureCache(folder, "train", features, encoders, list(trained.input))
        return sorted(path.name for path in (folder / CACHE_FOLDER).iterdir())

    once = fill()
    marker = folder / CACHE_FOLDER / once[0] / "marker"
    marker.touch()
    keras.layers.Dense(3)  # names of layers made later are numbered otherwise
    again = build_frozen(features)
    again.set_weights(model.get_weights())
    same, _ = split_at_frozen(again, features, frozen_modalities(again, features))
    assert fill(encoders=same) == once
    assert marker.exists()
    smaller = make_small_features(folder, **TITLE_ALONE, image_size=(24, 24))
    small = build_frozen(smaller)
    assert len(fill(smaller, split_at_frozen(small, smaller, frozen_modalities(small, smaller))[0])) == 2
    encoders.weights[0].assign(encoders.weights[0] + 1)
    assert len(fill()) == 3


def test_filling_that_fails_leaves_nothing(folder, parts, monkeypatch):
    features, _, encoders, trained = parts

    def fail(*_, **__):
        raise MemoryError("no room")

    monkeypatch.setattr(encoders, "call", fail)
    with pytest.raises(MemoryError):
        FeatureCache(folder, "train", features, encoders, list(trained.input))
    assert list((folder / CACHE_FOLDER).iterdir()) == []


def _train(train_small, workdir, folder, make_small_features, build, **options):
    options = {"val_split": None, "epochs": 2, "batch_size": 8} | options
    make = functools.partial(make_small_features, **TITLE_ALONE)
    model = train_small(folder, workdir, make_features=make, build_model=build, **options)
    return model, [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_training_on_the_cache_keeps_a_whole_model(folder, tmp_path, train_small, make_small_features, build_frozen):
    model, losses = _train(train_small, tmp_path / "run", folder, make_small_features, build_frozen, val_split="train")
    assert losses[1] < losses[0]
    assert len(list((folder / CACHE_FOLDER).iterdir())) == 1
    run = RunFolder(tmp_path / "run")
    kept, features = run.load_model()
    assert [path.name for path in run.best.parent.iterdir()] == ["best.keras"]
    for inputs, _, _ in make_evaluation_batches(folder, "train", features, 16).dataset:
        np.testing.assert_allclose(kept(inputs), model(inputs), atol=1e-6)


def test_training_without_the_cache_learns_the_same(folder, tmp_path, train_small, make_small_features, build_frozen):
    build = functools.partial(build_frozen, modality_dropout=0.0)
    losses = [
        _train(train_small, tmp_path / str(on), folder, make_small_features, build, cache_frozen=on, epochs=8)[1]
        for on in (True, False)
    ]
    assert losses[0][-1] == pytest.approx(losses[1][-1], rel=0.2)
    assert losses[0][-1] < 0.95 * losses[0][0]


@pytest.mark.parametrize("what", ["augmented images", "a trained tower", "several texts", "switched off", "dropped tokens"])
def test_nothing_is_cached_where_that_would_be_another_training(
    folder, tmp_path, train_small, make_small_features, build_frozen, pack_examples, what
):
    build, options = build_frozen, {"cache_frozen": what != "switched off", "augment": what == "augmented images"}
    if what == "a trained tower":
        build = functools.partial(build_frozen, image_tower=functools.partial(build_small_cnn, widths=(8, 8)))
    if what == "dropped tokens":
        options |= {"augment": make_augmentation(token_dropout=0.1), "modalities": ("title",)}
    if what == "several texts":
        examples = [SourceExample(f"e{i}", "rows", texts={"title": ["one", "two"]}, labels=["ab"[i % 2]]) for i in range(20)]
        folder = Path(pack_examples(tmp_path / "captions", examples, ("title",)))
        options["modalities"] = ("title",)
    _train(train_small, tmp_path / "run", folder, make_small_features, build, **options)
    assert not (folder / CACHE_FOLDER).exists()
