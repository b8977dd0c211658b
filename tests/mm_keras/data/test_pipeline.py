import dataclasses
import itertools
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from mm_keras.data.augment import make_augmentation
from mm_keras.data.pipeline import iter_texts, make_evaluation_batches, make_training_batches
from mm_keras.distribution.workers import Worker
from mm_keras.features import FeatureSpec, ImageSpec, TokenizerSpec, TokenText
from mm_keras.objectives.losses import make_loss
from mm_keras.objectives.metrics import evaluate_logits, make_metrics
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.dataset.schema import encode_example
from tfrecords_tools.dataset.shards import ShardWriter
from tfrecords_tools.sources.example import SourceExample

NUM = 105  # examples, of which five have no label
WORDS = tuple(f"t{index}" for index in range(NUM)) + tuple(f"c{index}{which}" for index in range(NUM) for which in "abc")
LABELS = ("a", "b", "c")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pack_examples, encode_image):
    """Examples that their title tells apart, in three shards; each has three captions, the first has no image."""
    rng = np.random.default_rng(0)
    examples = [
        SourceExample(
            id=f"e{index:03d}",
            where=f"rows:{index}",
            image=encode_image(rng.integers(0, 255, (20, 30, 3), np.uint8), "JPEG") if index else None,
            texts={"title": [f"t{index}"], "caption": [f"c{index}{which}" for which in "abc"], "none": []},
            labels=[LABELS[index % 3]] if index < NUM - 5 else [],
            weight=1 + index % 2,
        )
        for index in range(NUM)
    ]
    return pack_examples(tmp_path_factory.mktemp("pipeline") / "rows", examples, ("title", "caption", "none"))


@pytest.fixture(scope="module")
def tags_folder(tmp_path_factory, pack_examples):
    """A multi-label dataset; the last two of its seven examples have no label."""
    tags = [["a"], ["a", "b"], ["c"], ["a", "b", "c"], ["b"], [], []]
    examples = [
        SourceExample(f"e{index}", f"rows:{index}", texts={"title": [f"t{index}"]}, labels=labels)
        for index, labels in enumerate(tags)
    ]
    return pack_examples(tmp_path_factory.mktemp("pipeline") / "tags", examples, multi_label=True)


def _spec(image=(16, 16), fields=("title", "caption"), multi_label=False, labels=LABELS):
    words = TokenizerSpec("words", ("[PAD]", "[UNK]", *WORDS))
    texts = tuple(TokenText(field, words, 4) for field in fields)
    return FeatureSpec(ImageSpec(image) if image else None, texts, labels, multi_label)


TEXT_ONLY = _spec(image=None)


def _ids(batches, name="title"):
    """The words of a field's first tokens, batch by batch."""
    return [
        [WORDS[index - 2] for index in inputs[f"{name}_token_ids"][:, 0]]
        for inputs, _, _ in batches.dataset.as_numpy_iterator()
    ]


def _training(folder, features=TEXT_ONLY, batch_size=16, epochs=1, **options):
    return make_training_batches(Split.open(folder, "train"), features, batch_size, epochs, **options)


def _assert_equal(first, second):
    batches = zip(first.dataset.as_numpy_iterator(), second.dataset.as_numpy_iterator(), strict=True)
    for one, other in batches:
        for found, expected in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            np.testing.assert_array_equal(found, expected)


def _assert_contract(batches, features, num_labels=None):
    """Names, dtypes and static shapes are those of `features`, in the pipeline's declaration and in its batches."""
    inputs, labels, weights = batches.dataset.element_spec
    declared = {name: (tuple(spec.shape), spec.dtype.name) for name, spec in inputs.items()}
    assert declared == {name: ((batches.batch_size, *shape), dtype) for name, (shape, dtype) in features.inputs().items()}
    label_shape = (batches.batch_size, num_labels) if num_labels else (batches.batch_size,)
    assert (tuple(labels.shape), labels.dtype.name) == (label_shape, "float32" if num_labels else "int32")
    assert (tuple(weights.shape), weights.dtype) == ((batches.batch_size,), tf.float32)
    number = 0
    for batch in batches.dataset:
        for tensor, spec in zip(tf.nest.flatten(batch), tf.nest.flatten(batches.dataset.element_spec), strict=True):
            assert (tensor.shape, tensor.dtype) == (spec.shape, spec.dtype)
        number += 1
    assert number == batches.dataset.cardinality()


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("make", ["training", "evaluation"])
def test_batches_are_what_the_features_promise(folder, make, augment):
    features = _spec(fields=("title", "caption", "none"))
    if make == "training":
        batches = _training(folder, features, augment=augment)
    else:
        batches = make_evaluation_batches(Split.open(folder, "train"), features, 16)
    _assert_contract(batches, features)


@pytest.mark.parametrize("fields_and_image", [(("title",), None), ((), (16, 24))])
def test_batches_of_one_modality_hold_nothing_else(folder, fields_and_image):
    fields, image = fields_and_image
    features = _spec(image, fields)
    _assert_contract(_training(folder, features), features)
    _assert_contract(make_evaluation_batches(Split.open(folder, "train"), features, 16), features)


@pytest.mark.parametrize("multi_label", [False, True])
def test_model_takes_in_exactly_a_batch(request, build_small_model, multi_label):
    prefix = "multi_label_" if multi_label else ""
    features, dataset = (request.getfixturevalue(prefix + name) for name in ("features", "dataset"))
    model = build_small_model(features)
    expected = {name: ((None, *shape), dtype) for name, (shape, dtype) in features.inputs().items()}
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in model.input.items()} == expected
    batches = make_evaluation_batches(Split.open(dataset, "val"), features, 8)
    _assert_contract(batches, features, num_labels=len(features.labels) if multi_label else None)
    inputs, _, _ = next(iter(batches.dataset))
    assert model(inputs).shape == (8, len(features.labels))


def test_multi_labels_are_multi_hot_for_an_example_without_any_too(tags_folder):
    features = _spec(None, ("title",), multi_label=True)
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
        _training(tags_folder, features, 7),
        make_evaluation_batches(Split.open(tags_folder, "train"), features, 7),
    ):
        _assert_contract(batches, features, num_labels=3)
        (words,) = _ids(batches)
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
    features = _spec(None, ("title",), multi_label=True)
    found, expected = (make_evaluation_batches(Split.open(path, "train"), features, 7) for path in (folder, tags_folder))
    _assert_equal(found, expected)


def test_records_carry_their_label_and_weight(folder):
    batches = _training(folder, batch_size=20)
    for words, (_, labels, weights) in zip(_ids(batches), batches.dataset.as_numpy_iterator(), strict=True):
        indices = [int(word[1:]) for word in words]
        assert labels.tolist() == [index % 3 for index in indices]
        assert weights.tolist() == [1 + index % 2 for index in indices]


def test_same_seed_gives_identical_batches_under_any_global_seed(folder):
    features = _spec()
    keras.utils.set_random_seed(1)
    first = _training(folder, features, epochs=2, seed=5)
    ids = _ids(first)
    assert _ids(first) == ids  # read a second time
    tf.random.set_seed(0)
    second = _training(folder, features, epochs=2, seed=5)
    assert _ids(second) == ids
    keras.utils.set_random_seed(77)
    _assert_equal(first, _training(folder, features, epochs=2, seed=5))


def test_another_seed_gives_another_order(folder):
    orders = {tuple(itertools.chain(*_ids(_training(folder, seed=seed, batch_size=100)))) for seed in range(4)}
    assert len(orders) == 4


def test_every_epoch_has_another_order_and_visits_no_example_twice(folder):
    batches = _training(folder, epochs=4, batch_size=16)
    assert (batches.steps, batches.num_examples) == (6, 96)
    ids = list(itertools.chain(*_ids(batches)))
    epochs = [ids[start : start + 96] for start in range(0, len(ids), 96)]
    labelled = {f"t{index}" for index in range(NUM - 5)}
    for epoch in epochs:
        assert len(set(epoch)) == 96
        assert set(epoch) <= labelled
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert len({frozenset(labelled - set(epoch)) for epoch in epochs}) > 1  # what is left out changes


def test_order_mixes_shards_and_moves_records_far(folder):
    ids = list(itertools.chain(*_ids(_training(folder, batch_size=100))))
    assert ids != sorted(ids)
    stored = [
        record for batch in _ids(make_evaluation_batches(Split.open(folder, "train"), TEXT_ONLY, 100)) for record in batch
    ]
    moved = [abs(ids.index(word) - place) for place, word in enumerate(stored)]
    assert np.mean(moved) > 15  # a third of 100 if it were perfect


@pytest.mark.parametrize(
    "make", [_training, lambda folder: make_evaluation_batches(Split.open(folder, "train"), TEXT_ONLY, 16)]
)
def test_no_pass_waits_for_the_autotuner_at_its_end(folder, make):
    assert make(folder).dataset.options().autotune.enabled is False


def test_batch_as_large_as_the_split_is_its_one_batch(folder):
    assert _training(folder, batch_size=100).steps == 1


def test_batch_larger_than_the_split_is_an_error(folder):
    with pytest.raises(ValueError, match="batch_size 101 is larger than split 'train' with its 100 labelled examples"):
        _training(folder, batch_size=101)


def test_of_several_texts_training_draws_one_anew_and_evaluation_takes_the_first(folder):
    batches = _training(folder, epochs=6, batch_size=50)
    drawn = {}
    for titles, captions in zip(_ids(batches), _ids(batches, "caption"), strict=True):
        for title, caption in zip(titles, captions, strict=True):
            assert caption[1:-1] == title[1:]
            drawn.setdefault(title, []).append(caption[-1])
    assert all(len(letters) == 6 for letters in drawn.values())
    assert sum(len(set(letters)) > 1 for letters in drawn.values()) > 90
    counts = np.array([sum(letters.count(which) for letters in drawn.values()) for which in "abc"])
    assert all(abs(counts - 200) < 45)
    evaluation = make_evaluation_batches(Split.open(folder, "train"), TEXT_ONLY, 50)
    assert {caption[-1] for batch in _ids(evaluation, "caption") for caption in batch} == {"a"}


def test_field_without_any_text_is_missing(folder):
    for batches in (
        _training(folder, _spec(None, ("none",))),
        make_evaluation_batches(Split.open(folder, "train"), _spec(None, ("none",)), 10),
    ):
        for inputs, _, _ in batches.dataset:
            assert not np.any(inputs["none_present"])
            assert not np.any(inputs["none_padding_mask"])


@pytest.mark.parametrize("augment", [True, False])
def test_images_are_augmented_anew_in_each_epoch_if_at_all(folder, augment):
    batches = _training(folder, _spec(), epochs=2, batch_size=100, augment=augment)
    epochs = []
    for words, (inputs, _, _) in zip(_ids(batches), batches.dataset.as_numpy_iterator(), strict=True):
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


def test_batches_with_all_augmentations_keep_the_contract_and_depend_on_the_seed_alone(folder):
    features = _spec(fields=("title", "caption"))
    batches = _training(folder, features, epochs=2, batch_size=20, seed=3, augment=AUGMENTED)
    _assert_equal(batches, _training(folder, features, epochs=2, batch_size=20, seed=3, augment=AUGMENTED))
    inputs_spec, labels_spec, weights_spec = batches.dataset.element_spec
    assert {name: (tuple(spec.shape[1:]), spec.dtype.name) for name, spec in inputs_spec.items()} == features.inputs()
    assert (labels_spec.shape, labels_spec.dtype, weights_spec.shape) == ((20, 3), tf.float32, (20,))
    for inputs, labels, weights in batches.dataset.as_numpy_iterator():
        np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-5)
        assert ((labels > 0.01).sum(axis=1) == 2).any()
        assert weights.min() >= 1
        assert inputs["image"].min() >= 0
        assert inputs["image"].max() <= 255


def test_resumed_training_sees_the_augmented_batches_of_an_unbroken_one(folder):
    whole = _training(folder, _spec(), epochs=2, batch_size=20, augment=AUGMENTED)
    rest = _training(folder, _spec(), epochs=2, batch_size=20, augment=AUGMENTED, start=7)
    for one, other in zip(whole.dataset.skip(7), rest.dataset, strict=True):
        for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            np.testing.assert_array_equal(a, b)


def test_mixing_is_not_for_models_that_see_no_image(folder):
    plain, mixed = (_training(folder, augment=augment) for augment in (False, make_augmentation(mixup=1.0, rand_augment=2)))
    _assert_equal(plain, mixed)


def test_training_images_without_augmentation_are_those_of_evaluation(folder):
    training = _training(folder, _spec(), batch_size=100, augment=False)
    evaluation = make_evaluation_batches(Split.open(folder, "train"), _spec(), 100)
    images = [
        dict(zip(_ids(batches)[0], next(batches.dataset.as_numpy_iterator())[0]["image"], strict=True))
        for batches in (training, evaluation)
    ]
    for word, image in images[0].items():
        np.testing.assert_array_equal(image, images[1][word])


def test_evaluation_visits_every_labelled_example_once_in_the_order_of_the_records(folder, read_split):
    batches = make_evaluation_batches(Split.open(folder, "train"), _spec(), 32)
    assert (batches.steps, batches.num_examples) == (4, 100)
    stored = [record.texts["title"][0] for record in read_split(folder, "train") if record.label_ids]
    assert len(stored) == 100
    padded = []
    for inputs, _, weights in batches.dataset.as_numpy_iterator():
        assert len(weights) == 32
        padded += zip(inputs["title_token_ids"][:, 0], weights, strict=True)
    assert [WORDS[index - 2] for index, _ in padded[:100]] == stored
    assert [weight for _, weight in padded] == [1] * 100 + [0] * 28


def test_filling_is_empty(folder):
    *_, (inputs, labels, weights) = make_evaluation_batches(
        Split.open(folder, "train"), _spec(), 32
    ).dataset.as_numpy_iterator()
    assert weights.tolist() == [1] * 4 + [0] * 28
    assert not labels[4:].any()
    for tensor in inputs.values():
        assert not tensor[4:].any()


@pytest.mark.parametrize("batch_size", [1, 100, 300])
def test_evaluation_fits_any_batch_size(folder, batch_size):
    batches = make_evaluation_batches(Split.open(folder, "train"), TEXT_ONLY, batch_size)
    assert batches.steps == -(-100 // batch_size)
    assert sum(weights.sum() for _, _, weights in batches.dataset.as_numpy_iterator()) == 100


@pytest.mark.parametrize("multi_label", [False, True])
def test_filled_up_evaluation_measures_what_unpadded_arrays_do(request, build_small_model, multi_label):
    prefix = "multi_label_" if multi_label else ""
    features, dataset = (request.getfixturevalue(prefix + name) for name in ("features", "dataset"))
    model = build_small_model(features)
    model.compile(loss=make_loss(multi_label), weighted_metrics=make_metrics(multi_label, len(features.labels)))
    batches = make_evaluation_batches(Split.open(dataset, "test"), features, 16)
    assert batches.num_examples % 16
    measured = model.evaluate(batches.dataset, verbose=0, return_dict=True)
    parts = [
        (model.predict_on_batch(inputs), labels, weights) for inputs, labels, weights in batches.dataset.as_numpy_iterator()
    ]
    logits, labels, weights = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    logits, labels = logits[weights > 0].astype("float64"), labels[weights > 0]
    exact = evaluate_logits(logits, labels, multi_label)
    if multi_label:
        cross_entropy = np.mean(np.logaddexp(0, logits) - labels * logits)
    else:
        true = np.take_along_axis(logits, labels[:, np.newaxis], axis=1)[:, 0]
        cross_entropy = np.mean(np.log(np.exp(logits).sum(axis=1)) - true)
    for name in ("top_1", "top_5", "micro_f1"):
        assert measured.get(name) == (pytest.approx(exact[name], abs=1e-6) if name in exact else None)
    assert measured["cross_entropy"] == pytest.approx(cross_entropy, rel=1e-5)


def test_split_without_a_label_cannot_be_evaluated_or_learned(tmp_path, pack_examples):
    examples = [
        SourceExample(
            f"e{i}",
            f"rows:{i}",
            texts={"title": ["x"]},
            labels=[] if i < 4 else ["ab"[i % 2]],
            split="new" if i < 4 else "train",
        )
        for i in range(8)
    ]
    folder = pack_examples(tmp_path / "unlabelled", examples)
    features = _spec(None, ("title",), labels=("a", "b"))
    with pytest.raises(ValueError, match="split 'new' of dataset 'unlabelled' has no labelled example"):
        make_evaluation_batches(Split.open(folder, "new"), features, 2)
    with pytest.raises(ValueError, match="split 'new' of dataset 'unlabelled' has no labelled example"):
        make_training_batches(Split.open(folder, "new"), features, 2, 1)


def test_split_that_is_not_there_is_an_error(folder):
    for make in (
        lambda: make_evaluation_batches(Split.open(folder, "tset"), TEXT_ONLY, 2),
        lambda: make_training_batches(Split.open(folder, "tset"), TEXT_ONLY, 2, 1),
    ):
        with pytest.raises(ValueError, match=r"no split 'tset'; it has \['train'\]"):
            make()


def test_field_that_is_not_there_is_an_error(folder):
    with pytest.raises(ValueError, match=r"no text field 'titel'; it has \['caption', 'none', 'title'\]"):
        make_evaluation_batches(Split.open(folder, "train"), _spec(None, ("titel",)), 2)


@pytest.mark.parametrize("features", [_spec(labels=("a", "c", "b")), _spec(labels=("a", "b")), _spec(multi_label=True)])
def test_other_labels_than_the_models_are_an_error_that_says_what_to_do(folder, features):
    for make in (
        lambda: make_evaluation_batches(Split.open(folder, "train"), features, 2),
        lambda: _training(folder, features),
    ):
        with pytest.raises(
            ValueError, match=r"has 3 multi-class labels .*'c'.* pack the dataset with the model's labels: .*--labels="
        ):
            make()


def test_folder_that_is_no_dataset_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no dataset folder"):
        make_evaluation_batches(Split.open(tmp_path, "train"), TEXT_ONLY, 2)


def test_texts_of_a_split_are_all_there(folder):
    texts = list(itertools.chain(*iter_texts(Split.open(folder, "train"), ["title", "caption"])))
    assert sorted(texts) == sorted(word.encode() for word in WORDS)


@pytest.mark.parametrize("field", ["label", "weight", "image_present", "product name", "größe"])
def test_any_name_of_a_field_will_do(tmp_path, pack_examples, field):
    examples = [SourceExample(f"e{i}", f"rows:{i}", texts={field: [f"t{i}"]}, labels=["ab"[i % 2]], weight=3) for i in range(4)]
    folder = pack_examples(tmp_path / "named", examples, (field,))
    features = _spec((16, 16), (field,), labels=("a", "b"))
    for batches in (_training(folder, features, 4), make_evaluation_batches(Split.open(folder, "train"), features, 4)):
        _assert_contract(batches, features)
        (words,) = _ids(batches, field)
        ((inputs, labels, _),) = batches.dataset.as_numpy_iterator()
        assert labels.tolist() == [int(word[1:]) % 2 for word in words]
        assert not inputs["image_present"].any()


def test_model_with_further_labels_reads_a_dataset_of_the_first_ones(folder, tags_folder):
    labels = {}
    for names in (LABELS, (*LABELS, "new")):
        (_, labels[names], _), *_ = make_evaluation_batches(
            Split.open(folder, "train"), _spec(labels=names), 8
        ).dataset.as_numpy_iterator()
    np.testing.assert_array_equal(*labels.values())
    spec = _spec(None, ("title",), multi_label=True, labels=(*LABELS, "new"))
    ((_, hot, _),) = make_evaluation_batches(Split.open(tags_folder, "train"), spec, 7).dataset.as_numpy_iterator()
    assert hot.shape == (7, 4)
    assert not hot[:, 3].any()
    for wrong in (("new", *LABELS), (*LABELS[:-1], "new", LABELS[-1]), LABELS[:-1]):
        with pytest.raises(ValueError, match="pack the dataset with the model's labels"):
            make_evaluation_batches(Split.open(folder, "train"), _spec(labels=wrong), 8)


@pytest.mark.parametrize("start", [1, 6, 8])  # 6 steps an epoch
def test_resumed_training_goes_on_with_the_batches_that_were_left(folder, start):
    features = _spec()
    whole = _training(folder, features, epochs=3, augment=True, seed=5)
    rest = _training(folder, features, epochs=3, augment=True, seed=5, start=start)
    assert rest.steps == whole.steps
    assert rest.dataset.cardinality() == 18 - start
    _assert_equal(rest, dataclasses.replace(whole, dataset=whole.dataset.skip(start)))


@pytest.mark.parametrize("start", [0, 8])
def test_ids_are_those_of_the_records_in_each_batch(folder, start):
    batches = _training(folder, epochs=2, seed=1, start=start)
    ids = [[f"t{int(each[1:])}" for each in batch.astype(str)] for batch in batches.ids.as_numpy_iterator()]
    assert ids == _ids(batches)


@pytest.fixture(scope="module")
def even_folder(tmp_path_factory, pack_examples):
    """96 labelled examples in six files of about 16."""
    examples = [
        SourceExample(f"e{index}", f"rows:{index}", texts={"title": [f"t{index}"]}, labels=[LABELS[index % 3]])
        for index in range(96)
    ]
    return pack_examples(tmp_path_factory.mktemp("pipeline") / "even", examples, ("title",), examples_per_shard=16)


TITLES = _spec(image=None, fields=("title",))


def _of_workers(make, folder, count, batch_size, **options):
    """For each worker its batches' ids."""
    made = [make(folder, "train", TITLES, batch_size, worker=Worker(index, count), **options) for index in range(count)]
    assert {(batches.steps, batches.num_examples, batches.batch_size) for batches in made} == {
        (made[0].steps, made[0].num_examples, batch_size)
    }
    return [_ids(batches) for batches in made]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_workers_that_share_files_get_the_parts_of_one_workers_batches(folder, count):
    """Of files with unlabelled records nobody knows how many count, so none can be dealt out."""
    options = {"epochs": 2, "seed": 5}
    parts = _of_workers(make_training_batches, folder, count, 12, **options)
    (whole,) = _of_workers(make_training_batches, folder, 1, 12, **options)
    for step, batch in enumerate(whole):
        assert all(len(part[step]) == 12 // count for part in parts)
        assert sorted(itertools.chain(*(part[step] for part in parts))) == sorted(batch)


@pytest.mark.parametrize(("count", "own_files"), [(2, True), (4, False)])
def test_files_are_dealt_out_where_they_come_to_equal_parts(even_folder, count, own_files):
    parts = _of_workers(make_training_batches, even_folder, count, 12, epochs=2, seed=5)
    epochs = [[set(itertools.chain(*part[:8])) for part in parts], [set(itertools.chain(*part[8:])) for part in parts]]
    for epoch in epochs:
        assert sum(map(len, epoch)) == len(set.union(*epoch)) == 96  # each example once
    assert (epochs[0] == epochs[1]) == own_files
    resumed = _of_workers(make_training_batches, even_folder, count, 12, epochs=2, seed=5, start=11)
    assert resumed == [part[11:] for part in parts]


def test_augmentation_of_a_workers_examples_is_its_own(even_folder):
    """Indices, from which it is drawn, are not those of the other worker's examples."""
    made = [
        make_training_batches(
            Split.open(even_folder, "train"),
            TITLES,
            8,
            1,
            worker=Worker(index, 2),
            augment=make_augmentation(token_dropout=0.5),
        )
        for index in range(2)
    ]
    hidden = [np.concatenate([inputs["title_token_ids"][:, 0] for inputs, _, _ in each.dataset]) for each in made]
    assert not np.array_equal(*hidden)


@pytest.mark.parametrize("batch_size", [12, 36, 84, 120])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("data", ["folder", "even_folder"])
def test_workers_evaluate_each_example_once(request, data, count, batch_size):
    dataset, expected = request.getfixturevalue(data), {"folder": NUM - 5, "even_folder": 96}[data]
    seen, steps = [], set()
    for index in range(count):
        batches = make_evaluation_batches(Split.open(dataset, "train"), TITLES, batch_size, worker=Worker(index, count))
        made = list(batches.dataset.as_numpy_iterator())
        steps.add(len(made))
        for inputs, _, weights in made:
            assert len(weights) == batch_size // count
            seen += [WORDS[token - 2] for token in inputs["title_token_ids"][weights == 1, 0]]
    assert steps == {-(-expected // batch_size)}
    assert len(seen) == len(set(seen)) == expected


def test_ids_of_batches_are_those_of_the_workers_examples(even_folder, folder):
    for dataset in (even_folder, folder):
        batches = make_training_batches(Split.open(dataset, "train"), TITLES, 12, 1, seed=1, worker=Worker(1, 2))
        titles = [[f"t{int(each[1:])}" for each in ids.astype(str)] for ids in batches.ids.as_numpy_iterator()]
        assert titles == _ids(batches)
