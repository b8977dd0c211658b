import collections
import functools
import itertools
import json

import numpy as np
import pyarrow as pa
import pytest

from mm_keras.data.augment import make_augmentation
from mm_keras.data.feature_cache import FeatureCache
from mm_keras.data.pipeline import make_training_batches
from mm_keras.data.sampling import SampledRecords, check_runs, class_weights, draw, make_sampling
from mm_keras.distribution.workers import Worker
from mm_keras.model.frozen import split_at_frozen
from mm_keras.model.head import build_head
from mm_keras.model.text_runs import EncodeRuns
from mm_keras.model.tuning_dnn import build_tuning_dnn
from mm_keras.training.checkpoint import CheckpointError
from mm_keras.training.optimizer import make_optimizer
from mm_keras.training.train import train
from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.sources.example import SourceExample


@pytest.fixture(scope="module")
def pack_classes(tmp_path_factory, pack_examples):
    """A function: (class -> number of examples, name) -> a dataset whose ids begin with the name."""

    def make(counts, name, **options):
        examples = [
            SourceExample(f"{name}{label}{index}", "", texts={"title": [f"{label} {index}"]}, labels=[label] if label else [])
            for label, count in counts.items()
            for index in range(count)
        ]
        return pack_examples(tmp_path_factory.mktemp("sampled") / name, examples, **options)

    return make


@pytest.fixture(scope="module")
def skewed(pack_classes):
    """64 examples of a, 16 of b, 4 of c, in two files."""
    return pack_classes({"a": 64, "b": 16, "c": 4}, "s")


@pytest.fixture(scope="module")
def text_features(skewed, make_small_features):
    return make_small_features(skewed, image_size=None, text_fields=("title",), max_tokens=4)


def _ids(folder, features, sampling, epochs=1, batch_size=4, seed=0, **options):
    sampled = SampledRecords(Split.open(folder, "train"), sampling, [text.field for text in features.texts])
    batches = make_training_batches(
        Split.open(folder, "train"), features, batch_size, epochs, seed, augment=False, sampled=sampled, **options
    )
    ids = [[each.decode() for each in batch] for batch in batches.ids.as_numpy_iterator()]
    return ids, batches


def _classes(ids):
    return collections.Counter(each[1] for each in itertools.chain(*ids))


@pytest.mark.parametrize(
    ("balance", "shares"),
    [(1.0, {"a": 28, "b": 28, "c": 28}), (0.5, {"a": 48, "b": 24, "c": 12}), (0.25, {"a": 57, "b": 20, "c": 7})],
)
def test_classes_are_shown_in_proportion_to_a_power_of_their_size(skewed, text_features, balance, shares):
    ids, batches = _ids(skewed, text_features, make_sampling(balance))
    assert (batches.steps, batches.num_examples) == (21, 84)
    assert dict(_classes(ids)) == pytest.approx(shares, abs=1)


def test_sources_are_shown_in_proportion_to_a_power_of_their_size(tmp_path, pack_examples, make_small_features, skewed):
    examples = [
        SourceExample(f"{source}/{index}.jpg", "", texts={"title": ["x"]}, labels=["ab"[index % 2]])
        for source, count in (("google", 64), ("flickr", 16))
        for index in range(count)
    ]
    folder = pack_examples(tmp_path / "web", examples)
    features = make_small_features(folder, image_size=None, text_fields=("title",), max_tokens=4)
    for balance, share in ((1.0, 40), (0.5, 80 * 8 / 12), (0.0, 64)):
        sampling = make_sampling(balance, balance_by="source", text_runs=1 if balance else 4)
        ids, _ = _ids(folder, features, sampling)
        assert abs(sum(each.startswith("google") for each in itertools.chain(*ids)) - share) <= 1
    with pytest.raises(ValueError, match=r"needs ids whose first folder is their source; those of .* are as 's"):
        SampledRecords(Split.open(skewed, "train"), make_sampling(1.0, balance_by="source"))


def test_no_example_is_repeated_more_than_its_rate_asks_for(skewed, text_features):
    ids, _ = _ids(skewed, text_features, make_sampling(1.0))
    times = collections.Counter(itertools.chain(*ids))
    assert max(count for each, count in times.items() if each[1] == "a") == 1
    assert {times[f"sb{index}"] for index in range(16)} <= {1, 2}
    assert {times[f"sc{index}"] for index in range(4)} == {7}


def test_an_epoch_may_show_a_part_of_the_split_and_each_epoch_another_one(skewed, text_features):
    ids, batches = _ids(skewed, text_features, make_sampling(epoch_fraction=0.5), epochs=2)
    assert batches.steps == 10
    epochs = [list(itertools.chain(*ids[:10])), list(itertools.chain(*ids[10:]))]
    assert [len(set(epoch)) for epoch in epochs] == [40, 40]  # none twice
    assert set(epochs[0]) != set(epochs[1])


def test_order_depends_on_seed_and_epoch_alone_and_a_resumed_training_goes_on_in_it(skewed, text_features):
    sampling = make_sampling(0.5)
    whole, batches = _ids(skewed, text_features, sampling, epochs=3)
    assert whole == _ids(skewed, text_features, sampling, epochs=3)[0]
    assert whole[:21] != whole[21:42]
    assert whole[:21] != _ids(skewed, text_features, sampling, seed=1)[0]
    for start in (0, 5, 21, 40, 62):
        assert _ids(skewed, text_features, sampling, epochs=3, start=start)[0] == whole[start:]
    tokens = [inputs["title_token_ids"].numpy().tolist() for inputs, _, _ in batches.dataset]
    resumed = _ids(skewed, text_features, sampling, epochs=3, start=40)[1]
    assert [inputs["title_token_ids"].numpy().tolist() for inputs, _, _ in resumed.dataset] == tokens[40:]


def test_labels_are_those_of_the_ids(skewed, text_features):
    ids, batches = _ids(skewed, text_features, make_sampling(1.0))
    labels = ["".join("abc"[label] for label in labels.numpy()) for _, labels, _ in batches.dataset]
    assert labels == ["".join(each[1] for each in batch) for batch in ids]


def test_workers_share_the_batches_of_one(skewed, text_features):
    whole, _ = _ids(skewed, text_features, make_sampling(0.5))
    parts = [_ids(skewed, text_features, make_sampling(0.5), worker=Worker(index, 2))[0] for index in range(2)]
    assert [sorted([*one, *two]) for one, two in zip(*parts, strict=True)] == [sorted(batch) for batch in whole]


def test_datasets_are_mixed_with_their_rates(skewed, text_features, pack_classes):
    web = pack_classes({"a": 10, "b": 30, "c": 20}, "w", labels=LabelVocabulary(["a", "b", "c"]))
    ids, batches = _ids(skewed, text_features, make_sampling(mix={web: 0.25}), epochs=2)
    assert batches.num_examples == 112  # of which 84 are of the first dataset, that is all of them
    first_epoch = collections.Counter(itertools.chain(*ids[:28]))
    assert {count for each, count in first_epoch.items() if each[0] == "s"} == {1}
    assert sum(count for each, count in first_epoch.items() if each[0] == "w") == 28
    assert len([each for each in first_epoch if each[0] == "w"]) == 28
    balanced, _ = _ids(skewed, text_features, make_sampling(1.0, mix={web: 0.25}))
    assert dict(_classes([[each for each in itertools.chain(*balanced) if each[0] == "w"]])) == pytest.approx(
        {"a": 28 / 3, "b": 28 / 3, "c": 28 / 3}, abs=1
    )


def test_examples_without_a_label_are_left_out(pack_classes, make_small_features):
    folder = pack_classes({"a": 6, "b": 2, "": 5}, "u")
    features = make_small_features(folder, image_size=None, text_fields=("title",), max_tokens=4)
    ids, batches = _ids(folder, features, make_sampling(1.0))
    assert batches.num_examples == 8
    assert dict(_classes(ids)) == {"a": 4, "b": 4}


def test_rarest_label_decides():
    ids = pa.chunked_array([[[0, 1], [0], [], [0]], [[1, 2]]])
    rarest, weights = class_weights(ids, 4, 1.0)
    assert rarest.tolist() == [1, 0, 4, 0, 2]
    assert weights.tolist() == pytest.approx([1 / 2, 1 / 3, 1, 1 / 3, 1])
    assert class_weights(ids, 4, 0.0)[1].tolist() == [1, 1, 1, 1, 1]


def test_each_number_is_drawn_as_often_as_its_rate_says_or_once_more():
    rates = np.array([0.3, 2.5, 1.2, 4.0])
    rng = np.random.default_rng(0)
    groups = np.array([0, 1, 0, 1])
    times = np.array([np.bincount(draw(rates, groups, 8, rng), minlength=4) for _ in range(4000)])
    assert set(times[:, 1]) == {2, 3}
    assert set(times[:, 3]) == {4}
    assert set(times[:, 0] + times[:, 2]) == {1, 2}
    assert times.mean(axis=0) == pytest.approx(rates, abs=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"balance": 1.5}, r"balance is within 0 .* Received: 1\.5"),
        ({"mix": {"x": 0}}, r"Received: \{'x': 0\}"),
        ({"mix": {"x": 0.5, "y": 0.5}}, "together below 1"),
        ({}, "needs balance, mix, text_runs or epoch_fraction"),
        ({"epoch_fraction": 1.5}, "epoch_fraction is within"),
    ],
)
def test_wrong_numbers_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_sampling(**options)


def test_datasets_that_differ_are_not_mixed(skewed, pack_classes):
    def mix(other):
        SampledRecords(Split.open(skewed, "train"), make_sampling(mix={other: 0.5}))

    with pytest.raises(ValueError, match=r"other labels: number 1 is 'b' there and 'd' here; pack the latter with --labels="):
        mix(pack_classes({"a": 4, "d": 4}, "d"))
    with pytest.raises(ValueError, match=r"number 2 is 'c' there and nothing here"):
        mix(pack_classes({"a": 4, "b": 4}, "e"))
    with pytest.raises(ValueError, match="other text fields: 'caption' is only in"):
        mix(pack_classes({"a": 4, "b": 4, "c": 4}, "f", text_fields=("title", "caption")))
    with pytest.raises(ValueError, match=r"one label an example, .* several labels an example: they cannot be mixed"):
        mix(pack_classes({"a": 4, "b": 4, "c": 4}, "g", multi_label=True))
    with pytest.raises(ValueError, match=r"has no split 'train' to mix in; it has \['test'\]"):
        mix(pack_classes({"a": 4, "b": 4, "c": 4}, "h", fractions={"test": 1.0}))


def test_cached_features_are_shown_in_the_same_order(skewed, text_features):
    sampling = make_sampling(0.5)
    ids, _ = _ids(skewed, text_features, sampling, epochs=2)
    cache = FeatureCache(Split.open(skewed, "train"), text_features, {}, list(text_features.inputs()))
    batches = cache.training_batches(4, 2, 0, sampled=SampledRecords(Split.open(skewed, "train"), sampling))
    assert [[each.decode() for each in batch] for batch in batches.ids.as_numpy_iterator()] == ids
    labels = ["".join("abc"[label] for label in labels.numpy()) for _, labels, _ in batches.dataset]
    assert labels == ["".join(each[1] for each in batch) for batch in ids]


@pytest.fixture(scope="module")
def described(tmp_path_factory, pack_examples):
    """40 examples of a, 11 of b, 3 of c, each class with one text."""
    texts = {"a": "oak chair", "b": "steel mug with oak", "c": "blue"}
    examples = [
        SourceExample(f"s{label}{index:02}", "", texts={"title": [texts[label]]}, labels=[label])
        for label, count in (("a", 40), ("b", 11), ("c", 3))
        for index in range(count)
    ]
    return pack_examples(tmp_path_factory.mktemp("described") / "d", examples)


def test_equal_texts_come_in_runs_and_examples_take_turns(described, make_small_features):
    features = make_small_features(described, image_size=None, text_fields=("title",), max_tokens=4)
    epochs, batches = _ids(described, features, make_sampling(text_runs=4), epochs=2, batch_size=12)
    assert (len(epochs), batches.steps) == (8, 4)
    for ids in (epochs[:4], epochs[4:]):
        shown = [batch[start : start + 4] for batch in ids for start in range(0, 12, 4)]
        assert all(len({each[1] for each in run}) == 1 for run in shown)
        runs = collections.Counter(run[0][1] for run in shown)
        assert runs["a"] in (8, 9) and runs["b"] in (2, 3) and runs["c"] <= 1  # 40, 11 and 3 of 54, in 12 runs of 4
        times = collections.Counter(itertools.chain(*ids))
        assert max(times[each] for each in times if each[1] != "c") <= 2
        assert sum(each[1] == "a" for each in times) == min(4 * runs["a"], 40)
    assert epochs[:4] != epochs[4:]
    balanced, _ = _ids(described, features, make_sampling(1.0, text_runs=4), batch_size=12)
    assert _classes(balanced) == {"a": 16, "b": 16, "c": 16}
    assert max(collections.Counter(itertools.chain(*balanced)).values()) == 6  # three of c in 16 places


def test_runs_of_several_texts_a_field_are_refused(tmp_path, pack_examples):
    examples = [SourceExample(str(i), "", texts={"title": ["one", "two"]}, labels=["ab"[i % 2]]) for i in range(6)]
    folder = pack_examples(tmp_path / "d", examples)
    with pytest.raises(ValueError, match=r"text_runs is for one text a field; .* has records of several in 'title'"):
        SampledRecords(Split.open(folder, "train"), make_sampling(text_runs=2), ["title"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cached": ["title"]}, "no text encoder of this training runs in every step"),
        ({"batch_size": 20, "replicas": 2}, "a replica's 10 examples of a batch are no multiple of it"),
        ({"worker": Worker(0, 2)}, "it is for one process, not for 2 workers"),
        ({"augment": make_augmentation(mixup=0.2)}, "MixUp and CutMix give an example another one's texts"),
    ],
)
def test_runs_that_save_nothing_or_would_be_torn_apart_are_refused(make_spec, options, message):
    fine = {"features": make_spec(), "cached": [], "batch_size": 16, "replicas": 1, "worker": Worker(), "augment": False}
    check_runs(4, **fine)
    with pytest.raises(ValueError, match=f"make_sampling.text_runs = 4: {message}"):
        check_runs(4, **fine | options)
    check_runs(1, **fine | options)


def test_training_with_an_encoder_that_runs_once_a_run_ends_with_the_same_weights(
    described, tmp_path, make_small_features, build_small_model, monkeypatch
):
    """SGD, since the first steps of Adam are the signs of gradients. Neither dropout, which differs within a run, nor clipping:
    TensorFlow takes the norm of word embeddings' gradients before those of one word are added up."""
    sizes = []
    whole = EncodeRuns.call

    def call(self, inputs, training=False):
        made = whole(self, inputs, training)
        sizes.append((training, inputs["token_ids"].shape[0]))
        return made

    monkeypatch.setattr(EncodeRuns, "call", call)
    models = {}
    for name, split in (("once", split_at_frozen), ("plain", lambda *given: split_at_frozen(*given[:-1], 1))):
        monkeypatch.setattr("mm_keras.training.build.split_at_frozen", split)
        models[name] = train(
            described,
            tmp_path / name,
            functools.partial(make_small_features, image_size=None, text_fields=("title",), max_tokens=4),
            functools.partial(
                build_small_model, tuning_dnn=functools.partial(build_tuning_dnn, units=(8,), dropout=0), modality_dropout=0.0,
                head=functools.partial(build_head, dropout=0),
            ),
            functools.partial(make_optimizer, algorithm="sgd", learning_rate=0.1, clip_norm=None),
            epochs=3,
            batch_size=12,
            val_split=None,
            sampling=make_sampling(text_runs=4),
        )  # fmt: skip
    assert (True, 12) in sizes
    for found, expected in zip(*(model.get_weights() for model in models.values()), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_training_mixes_datasets_and_is_resumed_with_the_same_sampling_alone(
    skewed, pack_classes, tmp_path, make_small_features, build_small_model
):
    web = pack_classes({"a": 4, "b": 30, "c": 20}, "w", labels=LabelVocabulary(["a", "b", "c"]))
    options = {
        "make_features": functools.partial(make_small_features, image_size=None, text_fields=("title",), max_tokens=4),
        "build_model": build_small_model,
        "epochs": 1,
        "batch_size": 16,
        "val_split": None,
    }
    train(skewed, tmp_path / "run", sampling=make_sampling(1.0, mix={web: 0.25}), **options)
    facts = tmp_path / "run" / "run.json"
    write_text(facts, json.dumps(json.loads(facts.read_text()) | {"finished": False}))
    for sampling in (None, make_sampling(0.5, mix={web: 0.25}), make_sampling(1.0)):
        with pytest.raises(CheckpointError, match=r"sampling\."):
            train(skewed, tmp_path / "run", sampling=sampling, resume=True, **options)
