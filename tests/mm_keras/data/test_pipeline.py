import dataclasses
import itertools
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from mm_keras.data.augment import make_augmentation
from mm_keras.data.pipeline import make_evaluation_batches
from tests.mm_keras.data.pipeline_rows import NUM, TEXT_ONLY, assert_contract, assert_equal, ids_of, make_spec, make_training
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.dataset.schema import encode_example
from tfrecords_tools.dataset.shards import ShardWriter


@pytest.mark.parametrize("kind", ["augmented training", "training", "evaluation"])
def test_batches_are_what_the_features_promise(folder, kind):
    features = make_spec(fields=("title", "caption", "none"))
    if kind == "evaluation":
        batches = make_evaluation_batches(Split.open(folder, "train"), features, 16)
    else:
        batches = make_training(folder, features, augment=kind == "augmented training")
    assert_contract(batches, features)


@pytest.mark.parametrize("fields_and_image", [(("title",), None), ((), (16, 24))])
def test_batches_of_one_modality_hold_nothing_else(folder, fields_and_image):
    fields, image = fields_and_image
    features = make_spec(image, fields)
    assert_contract(make_training(folder, features), features)
    assert_contract(make_evaluation_batches(Split.open(folder, "train"), features, 16), features)


@pytest.mark.parametrize("multi_label", [False, True])
def test_model_takes_in_exactly_a_batch(request, build_small_model, multi_label):
    prefix = "multi_label_" if multi_label else ""
    features, dataset = (request.getfixturevalue(prefix + name) for name in ("features", "dataset"))
    model = build_small_model(features)
    expected = {name: ((None, *shape), dtype) for name, (shape, dtype) in features.inputs().items()}
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in model.input.items()} == expected
    batches = make_evaluation_batches(Split.open(dataset, "val"), features, 8)
    assert_contract(batches, features, num_labels=len(features.labels) if multi_label else None)
    inputs, _, _ = next(iter(batches.dataset))
    assert model(inputs).shape == (8, len(features.labels))


def test_multi_labels_are_multi_hot_for_an_example_without_any_too(tags_folder):
    features = make_spec(None, ("title",), multi_label=True)
    expected = {
        "t0": [1, 0, 0],
        "t1": [1, 1, 0],
        "t2": [0, 0, 1],
        "t3": [1, 1, 1],
        "t4": [0, 1, 0],
        "t5": [0, 0, 0],
        "t6": [0, 0, 0],
    }
    for batches in (
        make_training(tags_folder, features, 7),
        make_evaluation_batches(Split.open(tags_folder, "train"), features, 7),
    ):
        assert_contract(batches, features, num_labels=3)
        (words,) = ids_of(batches)
        ((_, labels, weights),) = batches.dataset.as_numpy_iterator()
        assert {word: row.tolist() for word, row in zip(words, labels, strict=True)} == expected
        assert weights.tolist() == [1] * 7


def test_label_that_stands_twice_counts_once(tmp_path, tags_folder, read_split):
    """Our packing never writes such a record; others may."""
    folder = shutil.copytree(tags_folder, tmp_path / "twice")
    (shard,) = folder.glob("train-*.tfrecord")
    writer = ShardWriter(shard)
    for record in read_split(tags_folder, "train"):
        writer.write(encode_example(dataclasses.replace(record, label_ids=record.label_ids * 2)))
    writer.close()
    features = make_spec(None, ("title",), multi_label=True)
    splits = Split.open(folder, "train"), Split.open(tags_folder, "train")
    splits[0].shards[0] = dataclasses.replace(splits[0].shards[0], num_bytes=writer.num_bytes)
    found, expected = (make_evaluation_batches(split, features, 7) for split in splits)
    assert_equal(found, expected)


def test_records_carry_their_label_and_weight(folder):
    batches = make_training(folder, batch_size=20)
    for words, (_, labels, weights) in zip(ids_of(batches), batches.dataset.as_numpy_iterator(), strict=True):
        indices = [int(word[1:]) for word in words]
        assert labels.tolist() == [index % 3 for index in indices]
        assert weights.tolist() == [1 + index % 2 for index in indices]


def test_same_seed_gives_identical_batches_under_any_global_seed(folder):
    features = make_spec()
    keras.utils.set_random_seed(1)
    first = make_training(folder, features, epochs=2, seed=5)
    ids = ids_of(first)
    assert ids_of(first) == ids  # read a second time
    tf.random.set_seed(0)
    second = make_training(folder, features, epochs=2, seed=5)
    assert ids_of(second) == ids
    keras.utils.set_random_seed(77)
    assert_equal(first, make_training(folder, features, epochs=2, seed=5))


def test_another_seed_gives_another_order(folder):
    orders = {tuple(itertools.chain(*ids_of(make_training(folder, seed=seed, batch_size=100)))) for seed in range(4)}
    assert len(orders) == 4


def test_every_epoch_has_another_order_and_visits_no_example_twice(folder):
    batches = make_training(folder, epochs=4, batch_size=16)
    assert (batches.steps, batches.num_examples) == (6, 96)
    ids = list(itertools.chain(*ids_of(batches)))
    epochs = [ids[start : start + 96] for start in range(0, len(ids), 96)]
    labelled = {f"t{index}" for index in range(NUM - 5)}
    for epoch in epochs:
        assert len(set(epoch)) == 96
        assert set(epoch) <= labelled
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert len({frozenset(labelled - set(epoch)) for epoch in epochs}) > 1  # what is left out changes


def test_order_mixes_shards_and_moves_records_far(folder):
    ids = list(itertools.chain(*ids_of(make_training(folder, batch_size=100))))
    assert ids != sorted(ids)
    stored = [
        record for batch in ids_of(make_evaluation_batches(Split.open(folder, "train"), TEXT_ONLY, 100)) for record in batch
    ]
    moved = [abs(ids.index(word) - place) for place, word in enumerate(stored)]
    assert np.mean(moved) > 15  # a third of 100 if it were perfect


@pytest.mark.parametrize(
    "make", [make_training, lambda folder: make_evaluation_batches(Split.open(folder, "train"), TEXT_ONLY, 16)]
)
def test_no_pass_waits_for_the_autotuner_at_its_end(folder, make):
    assert make(folder).dataset.options().autotune.enabled is False


def test_batch_as_large_as_the_split_is_its_one_batch(folder):
    assert make_training(folder, batch_size=100).steps == 1


def test_batch_larger_than_the_split_is_an_error(folder):
    with pytest.raises(ValueError, match="batch_size 101 is larger than split 'train' with its 100 labelled examples"):
        make_training(folder, batch_size=101)


def test_of_several_texts_training_draws_one_anew_and_evaluation_takes_the_first(folder):
    batches = make_training(folder, epochs=6, batch_size=50)
    drawn = {}
    for titles, captions in zip(ids_of(batches), ids_of(batches, "caption"), strict=True):
        for title, caption in zip(titles, captions, strict=True):
            assert caption[1:-1] == title[1:]
            drawn.setdefault(title, []).append(caption[-1])
    assert all(len(letters) == 6 for letters in drawn.values())
    assert sum(len(set(letters)) > 1 for letters in drawn.values()) > 90
    counts = np.array([sum(letters.count(which) for letters in drawn.values()) for which in "abc"])
    assert all(abs(counts - 200) < 45)
    evaluation = make_evaluation_batches(Split.open(folder, "train"), TEXT_ONLY, 50)
    assert {caption[-1] for batch in ids_of(evaluation, "caption") for caption in batch} == {"a"}


def test_field_without_any_text_is_missing(folder):
    for batches in (
        make_training(folder, make_spec(None, ("none",))),
        make_evaluation_batches(Split.open(folder, "train"), make_spec(None, ("none",)), 10),
    ):
        for inputs, _, _ in batches.dataset:
            assert not np.any(inputs["none_present"])
            assert not np.any(inputs["none_padding_mask"])


@pytest.mark.parametrize("augment", [True, False])
def test_images_are_augmented_anew_in_each_epoch_if_at_all(folder, augment):
    batches = make_training(folder, make_spec(), epochs=2, batch_size=100, augment=augment)
    epochs = []
    for words, (inputs, _, _) in zip(ids_of(batches), batches.dataset.as_numpy_iterator(), strict=True):
        epochs.append(dict(zip(words, inputs["image"], strict=True)))
        assert inputs["image_present"].sum() == 99
        assert not inputs["image"][words.index("t0")].any()
        assert inputs["image"].min() >= 0
        assert inputs["image"].max() <= 255
    changed = sum(not np.array_equal(epochs[0][word], epochs[1][word]) for word in epochs[0])
    assert changed == (99 if augment else 0)


AUGMENTED = make_augmentation(
    color_jitter=0.4, rand_augment=2, mixup=0.8, cutmix=1.0, token_dropout=0.2, min_area=0.5, mirror=False
)


def _make_augmented(folder, **options):
    return make_training(folder, make_spec(), epochs=2, batch_size=20, seed=3, augment=AUGMENTED, **options)


@pytest.fixture(scope="module")
def augmented(folder):
    """(Batches with all augmentations, all of these batches as arrays): to make and run the pipeline takes seconds."""
    batches = _make_augmented(folder)
    return batches, list(batches.dataset.as_numpy_iterator())


def test_batches_with_all_augmentations_keep_the_contract(augmented):
    batches, made = augmented
    inputs_spec, labels_spec, weights_spec = batches.dataset.element_spec
    assert {name: (tuple(spec.shape[1:]), spec.dtype.name) for name, spec in inputs_spec.items()} == make_spec().inputs()
    assert (labels_spec.shape, labels_spec.dtype, weights_spec.shape) == ((20, 3), tf.float32, (20,))
    for inputs, labels, weights in made:
        np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-5)
        assert ((labels > 0.01).sum(axis=1) == 2).any()
        assert weights.min() >= 1
        assert inputs["image"].min() >= 0
        assert inputs["image"].max() <= 255


@pytest.mark.parametrize("start", [pytest.param(0, marks=pytest.mark.slow), 7])  # 5 steps an epoch
def test_augmented_batches_depend_on_the_seed_alone_and_are_resumed_as_those_of_an_unbroken_training(folder, augmented, start):
    rest = list(_make_augmented(folder, start=start).dataset.as_numpy_iterator())
    assert len(rest) == 10 - start
    for one, other in zip(augmented[1][start:], rest, strict=True):
        for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            np.testing.assert_array_equal(a, b)


def test_mixing_is_not_for_models_that_see_no_image(folder):
    plain, mixed = (make_training(folder, augment=augment) for augment in (False, make_augmentation(mixup=1.0, rand_augment=2)))
    assert_equal(plain, mixed)


def test_training_images_without_augmentation_are_those_of_evaluation(folder):
    training = make_training(folder, make_spec(), batch_size=100, augment=False)
    evaluation = make_evaluation_batches(Split.open(folder, "train"), make_spec(), 100)
    images = [
        dict(zip(ids_of(batches)[0], next(batches.dataset.as_numpy_iterator())[0]["image"], strict=True))
        for batches in (training, evaluation)
    ]
    for word, image in images[0].items():
        np.testing.assert_array_equal(image, images[1][word])


@pytest.mark.parametrize("start", [1, 6, 8])  # 6 steps an epoch
def test_resumed_training_goes_on_with_the_batches_that_were_left(folder, start):
    whole = make_training(folder, epochs=3, seed=5)
    rest = make_training(folder, epochs=3, seed=5, start=start)
    assert rest.steps == whole.steps
    assert rest.dataset.cardinality() == 18 - start
    assert_equal(rest, dataclasses.replace(whole, dataset=whole.dataset.skip(start)))


@pytest.mark.parametrize("start", [0, 8])
def test_ids_are_those_of_the_records_in_each_batch(folder, start):
    batches = make_training(folder, epochs=2, seed=1, start=start)
    ids = [[f"t{int(each[1:])}" for each in batch.astype(str)] for batch in batches.ids.as_numpy_iterator()]
    assert ids == ids_of(batches)
