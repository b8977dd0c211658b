import errno
import functools
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from mm_keras.data import encode_once, feature_cache
from mm_keras.data.augment import make_augmentation
from mm_keras.data.encode_once import CACHE_FOLDER
from mm_keras.data.feature_cache import FeatureCache
from mm_keras.data.pipeline import make_evaluation_batches
from mm_keras.data.preprocess import Preprocessor
from mm_keras.data.text import make_word_tokenizer
from mm_keras.model.frozen import frozen_modalities, split_at_frozen
from mm_keras.model.image_tower import build_small_cnn
from mm_keras.model.text_encoder import build_small_text_encoder
from mm_keras.runs.run_folder import RunFolder
from mm_keras.training.cache_choice import choose_cached
from tests.mm_keras.drawn_examples import draw_examples
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.dataset.schema import decode_example
from tfrecords_tools.dataset.shards import iter_records
from tfrecords_tools.sources.example import SourceExample

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


@pytest.fixture(scope="module")
def packed(tmp_path_factory, pack_examples, encode_image):
    """Labelled pictures with titles, some without one of the two; weights 1 and 2; five more examples have no label.

    For copying: a dataset holds the caches that are made of it.
    """

    def describe(index, draw):
        return {
            "image": encode_image(draw(), "JPEG") if index % 7 else None,
            "texts": {"title": [f"word{index % 5} and word{index % 3}"] if index % 5 or not index % 7 else []},
            "labels": ["abcd"[index % 4]] if index < NUM else [],
            "weight": 1 + index % 2,
        }

    return Path(pack_examples(tmp_path_factory.mktemp("packed") / "rows", draw_examples(NUM + 5, describe), ("title",)))


@pytest.fixture
def folder(tmp_path, packed):
    """The dataset, without any cache."""
    return Path(shutil.copytree(packed, tmp_path / "rows"))


@pytest.fixture(scope="module")
def parts(packed, make_small_features, build_frozen):
    """(features, model, encoders, trained part); tests do not change their weights."""
    keras.utils.set_random_seed(0)
    features = make_small_features(packed, **TITLE_ALONE)
    model = build_frozen(features)
    return features, model, *split_at_frozen(model, features, frozen_modalities(model, features))


@pytest.fixture(scope="module")
def cache(tmp_path_factory, packed, parts):
    """The filled cache of a copy of the dataset, for reading."""
    features, _, encoders, trained = parts
    folder = shutil.copytree(packed, tmp_path_factory.mktemp("cached") / "rows")
    return FeatureCache(Split.open(folder, "train"), features, encoders, list(trained.input))


def _everything(cache):
    return cache.inputs(np.arange(len(cache.labels)))


def test_cache_holds_what_the_encoders_make_of_each_record(folder, parts, cache):
    features, model, _, trained = parts
    (inputs, labels, weights), *_ = make_evaluation_batches(
        Split.open(folder, "train"), features, NUM, record_weights=True
    ).dataset
    given = _everything(cache)
    np.testing.assert_allclose(trained(given), model(inputs), atol=1e-5)
    np.testing.assert_array_equal(cache.labels, labels)
    np.testing.assert_array_equal(cache.weights, weights)
    assert sorted(set(cache.weights)) == [1, 2]
    np.testing.assert_array_equal(given["title_present"], inputs["title_present"])
    np.testing.assert_array_equal(given["image_present"], inputs["image_present"])
    records = (decode_example(each) for shard in sorted(folder.glob("*.tfrecord")) for each in iter_records(shard))
    assert cache.ids.tolist() == [record.id for record in records if record.label_ids]


def test_labels_of_a_multi_label_dataset_come_as_zeros_and_ones(multi_label_dataset, make_small_features, build_frozen):
    features = make_small_features(multi_label_dataset, text_fields=(), max_tokens={}, image_size=(16, 16))
    model = build_frozen(features)
    encoders, trained = split_at_frozen(model, features, ("image",))
    cache = FeatureCache(Split.open(multi_label_dataset, "val"), features, encoders, list(trained.input))
    batches = make_evaluation_batches(Split.open(multi_label_dataset, "val"), features, 8).dataset
    labels = np.concatenate([labels for _, labels, _ in batches])[: len(cache.labels)]
    np.testing.assert_array_equal(cache.labels, labels)
    assert cache.labels.sum() > len(cache.labels)


def test_epochs_visit_each_example_at_most_once_in_orders_of_their_own(cache):
    def order(seed):
        batches = cache.training_batches(8, epochs=2, seed=seed)
        assert (batches.steps, batches.num_examples) == (6, 48)
        rows = np.concatenate([inputs["image_encoded"] + weights[:, None] for inputs, _, weights in batches.dataset])
        return rows.reshape(2, 48, -1)

    first, second = order(0)
    assert len(np.unique(_everything(cache)["image_encoded"], axis=0)) > 40  # pictures differ; a missing one is zeros
    assert len(np.unique(first, axis=0)) >= len(np.unique(first[:40], axis=0)) > 30
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(order(0), [first, second])
    assert not np.array_equal(order(1)[0], first)


def test_batches_name_their_records(cache):
    batches = cache.training_batches(8, epochs=2, seed=3)
    rows = {record_id: row for row, record_id in enumerate(cache.ids)}
    seen = 0
    for (inputs, labels, _), ids in zip(batches.dataset, batches.ids, strict=True):
        records = np.array([rows[each.decode()] for each in ids.numpy()])
        np.testing.assert_array_equal(inputs["title_encoded"], cache.inputs(records)["title_encoded"])
        np.testing.assert_array_equal(labels, cache.labels[records])
        seen += len(records)
    assert seen == 96


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("start", [1, 6, 8])  # 6 steps an epoch
def test_resumed_training_goes_on_with_the_batches_that_were_left(cache, start, in_memory, monkeypatch):
    monkeypatch.setattr(feature_cache, "_IN_MEMORY", 2**30 if in_memory else 0)
    whole, rest = ([*cache.training_batches(8, 3, 5, start).dataset.as_numpy_iterator()] for start in (0, start))
    assert len(rest) == 18 - start
    for (one, *_), (other, *_) in zip(whole[start:], rest, strict=True):
        np.testing.assert_array_equal(one["image_encoded"], other["image_encoded"])
        np.testing.assert_array_equal(one["title_encoded"], other["title_encoded"])


def test_evaluation_counts_every_example_once(cache):
    batches = cache.evaluation_batches(16)
    labels, weights = (np.concatenate([batch[part] for batch in batches.dataset.as_numpy_iterator()]) for part in (1, 2))
    assert (batches.steps, batches.num_examples, len(weights)) == (4, NUM, 64)
    np.testing.assert_array_equal(weights, [1] * NUM + [0] * 14)
    np.testing.assert_array_equal(labels[:NUM], cache.labels)


def _caches(folder):
    return sorted(path.name for path in (folder / CACHE_FOLDER).iterdir())


def test_cache_is_filled_once_and_anew_for_other_weights_or_features(folder, parts, make_small_features, build_frozen):
    features, model, encoders, trained = parts

    def fill(features=features, encoders=encoders):
        FeatureCache(Split.open(folder, "train"), features, encoders, list(trained.input))
        return _caches(folder)

    once = fill()
    assert len(once) == 2  # of the image and of the title
    times = {path: path.stat().st_mtime_ns for path in (folder / CACHE_FOLDER).rglob("*.npy")}
    keras.layers.Dense(3)  # names of layers made later are numbered otherwise
    again = build_frozen(features)
    again.set_weights(model.get_weights())
    same, _ = split_at_frozen(again, features, frozen_modalities(again, features))
    assert fill(encoders=same) == once
    assert times == {path: path.stat().st_mtime_ns for path in (folder / CACHE_FOLDER).rglob("*.npy")}
    assert len(fill(features=make_small_features(folder, **TITLE_ALONE, image_fit="crop"))) == 3  # the title's is shared
    same["title"].weights[0].assign(same["title"].weights[0] + 1)
    assert len(fill(encoders=same)) == 4


def test_trainings_share_what_they_have_in_common(folder, parts, make_small_features, build_frozen):
    features, _, encoders, trained = parts
    FeatureCache(Split.open(folder, "train"), features, encoders, list(trained.input))
    once = _caches(folder)
    alone = features.only(["image"])
    _, baseline = split_at_frozen(build_frozen(alone), alone, ("image",))
    FeatureCache(Split.open(folder, "train"), alone, {"image": encoders["image"]}, list(baseline.input))
    assert _caches(folder) == once


def test_each_distinct_text_is_encoded_once_and_only_as_long_as_it_is(folder, parts, monkeypatch):
    features, _, encoders, trained = parts
    seen = []
    monkeypatch.setattr(encode_once, "_BLOCK_TEXTS", 4)
    iter_buckets = encode_once.iter_buckets

    def watched(given, **options):
        for rows, batch in iter_buckets(given, **options):
            seen.append(batch["padding_mask"])
            yield rows, batch

    monkeypatch.setattr(encode_once, "iter_buckets", watched)
    cache = FeatureCache(Split.open(folder, "train"), features, encoders, list(trained.input))
    titles = {(index % 5, index % 3) if index % 5 or not index % 7 else None for index in range(NUM)}
    assert sum(map(len, seen)) == len(titles)
    assert all(mask.any(axis=0).all() for mask in seen if mask.any())
    assert np.ptp(_everything(cache)["title_encoded"], axis=0).max() > 0


@pytest.mark.slow
def test_of_several_texts_training_draws_one_an_epoch_and_evaluation_takes_the_first(
    tmp_path, pack_examples, make_small_features, build_frozen
):
    texts = {f"e{i}": [f"text{i}", "both", f"third{i}"][: 1 + i % 3] for i in range(24)}
    examples = [
        SourceExample(name, "rows", texts={"title": each}, labels=["ab"[len(each) % 2]]) for name, each in texts.items()
    ]
    folder = Path(pack_examples(tmp_path / "captions", examples, ("title",)))
    features = make_small_features(
        folder, image_size=None, **TITLE_ALONE, make_tokenizer=functools.partial(make_word_tokenizer, min_count=1)
    )
    model = build_frozen(features)
    encoders, trained = split_at_frozen(model, features, ("title",))
    cache = FeatureCache(Split.open(folder, "train"), features, encoders, list(trained.input))

    def embed(text):
        made = Preprocessor(features).texts({"title": tf.constant([text])})
        return encoders["title"]({name: made[f"title_{name}"] for name in encoders["title"].input})[0]

    evaluated = _everything(cache)
    for record, name in enumerate(cache.ids):
        assert evaluated["title_present"][record]
        np.testing.assert_allclose(evaluated["title_encoded"][record], embed(texts[name][0]), atol=1e-6)
    drawn = {name: set() for name in texts}
    batches = cache.training_batches(8, epochs=20, seed=0)
    for (inputs, *_), ids in zip(batches.dataset, batches.ids, strict=True):
        for embedding, record_id in zip(inputs["title_encoded"].numpy(), ids.numpy(), strict=True):
            name = record_id.decode()
            match = [text for text in texts[name] if np.allclose(embed(text), embedding, atol=1e-6)]
            assert match
            drawn[name].update(match)
    assert drawn == {name: set(each) for name, each in texts.items()}


def test_filling_that_fails_says_so_and_goes_on_where_it_stopped(folder, parts, monkeypatch):
    features, _, encoders, trained = parts
    monkeypatch.setattr(encode_once, "_BLOCK_TEXTS", 4)
    iter_buckets, calls = encode_once.iter_buckets, []

    def fail_at_the_third(given, **options):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        yield from iter_buckets(given, **options)

    monkeypatch.setattr(encode_once, "iter_buckets", fail_at_the_third)
    with pytest.raises(OSError, match=r"the disk is full.*cache_frozen = False"):
        FeatureCache(Split.open(folder, "train"), features, encoders, list(trained.input))
    assert not list((folder / CACHE_FOLDER).rglob("*.unfinished"))
    FeatureCache(Split.open(folder, "train"), features, encoders, list(trained.input))
    assert len(calls) == 3 + 4 - 2  # blocks: two before the failure, which is repeated, and one more than that


def _train(train_small, workdir, folder, make_small_features, build, **options):
    options = {"val_split": None, "epochs": 2, "batch_size": 8} | options
    make = functools.partial(make_small_features, **TITLE_ALONE)
    model = train_small(folder, workdir, make_features=make, build_model=build, **options)
    return model, [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_training_on_the_cache_keeps_a_whole_model(folder, tmp_path, train_small, make_small_features, build_frozen):
    model, losses = _train(train_small, tmp_path / "run", folder, make_small_features, build_frozen, val_split="train")
    assert losses[1] < losses[0]
    assert len(_caches(folder)) == 2
    run = RunFolder(tmp_path / "run")
    kept, features = run.load_model()
    assert [path.name for path in run.best.parent.iterdir()] == ["best.keras"]
    for inputs, _, _ in make_evaluation_batches(Split.open(folder, "train"), features, 16).dataset:
        np.testing.assert_allclose(kept(inputs), model(inputs), atol=1e-6)


@pytest.mark.slow
def test_training_without_the_cache_learns_the_same(folder, tmp_path, train_small, make_small_features, build_frozen):
    build = functools.partial(build_frozen, modality_dropout=0.0)
    losses = [
        _train(train_small, tmp_path / str(on), folder, make_small_features, build, cache_frozen=on, epochs=8)[1]
        for on in (True, False)
    ]
    assert losses[0][-1] == pytest.approx(losses[1][-1], rel=0.2)
    assert losses[0][-1] < 0.95 * losses[0][0]


def _another_training(what, build_frozen):
    """(a builder of the model, options of `train`) with which cached outputs would be those of another training."""
    build, options = build_frozen, {"cache_frozen": what != "switched off", "augment": what == "augmented images"}
    if what == "a trained tower":
        build = functools.partial(build_frozen, image_tower=functools.partial(build_small_cnn, widths=(8, 8)))
    if what == "dropped tokens":
        options |= {"augment": make_augmentation(token_dropout=0.1), "modalities": ("title",)}
    return build, options


every_other_training = pytest.mark.parametrize(
    "what", ["augmented images", "a trained tower", "switched off", "dropped tokens"]
)


@every_other_training
def test_nothing_is_cached_where_that_would_be_another_training(parts, build_frozen, what):
    build, options = _another_training(what, build_frozen)
    features = parts[0].only(options.get("modalities", parts[0].modalities))
    assert choose_cached(build(features), features, options["augment"], options["cache_frozen"], NUM) == ()


@pytest.mark.slow
@every_other_training
def test_another_training_leaves_no_cache(folder, tmp_path, train_small, make_small_features, build_frozen, what):
    build, options = _another_training(what, build_frozen)
    _train(train_small, tmp_path / "run", folder, make_small_features, build, **options)
    assert not (folder / CACHE_FOLDER).exists()
