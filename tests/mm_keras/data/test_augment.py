import re

import numpy as np
import pytest
import tensorflow as tf

from mm_keras.data.augment import augment_batch, drop_tokens, make_augmentation, mix_examples
from mm_keras.features import EmbeddedText, EmbedderSpec, FeatureSpec, ImageSpec, TokenizerSpec, TokenText

SIZE, LABELS = 64, 5
RNG = np.random.default_rng(0)
TOKENS = TokenizerSpec("words", ("[PAD]", "[UNK]", "a", "b"))
FEATURES = FeatureSpec(
    ImageSpec((8, 12), "stretch"),
    (TokenText("title", TOKENS, 4), EmbeddedText("about", EmbedderSpec("nowhere", 3))),
    tuple("abcde"),
    multi_label=False,
)


def _seed(number=0):
    return tf.constant([1, number], tf.int64)


@pytest.fixture
def batch():
    """Every value tells which example it is from: its number, from 1 on."""
    numbers = np.arange(1, SIZE + 1)
    inputs = {
        "image": np.broadcast_to(numbers[:, None, None, None], (SIZE, 8, 12, 3)).astype("float32"),
        "image_present": np.ones(SIZE, bool),
        "title_token_ids": np.broadcast_to(numbers[:, None], (SIZE, 4)).astype("int32"),
        "title_padding_mask": np.ones((SIZE, 4), bool),
        "title_present": np.ones(SIZE, bool),
        "about_embedding": np.broadcast_to(numbers[:, None], (SIZE, 3)).astype("float32"),
        "about_present": np.ones(SIZE, bool),
    }
    inputs["image_present"][10] = inputs["title_present"][20] = inputs["about_present"][30] = False
    labels = RNG.integers(0, LABELS, SIZE).astype("int32")
    return {name: tf.constant(value) for name, value in inputs.items()}, tf.constant(labels), tf.ones(SIZE)


def _mixed(batch, seed=0, **options):
    inputs, labels, weights = augment_batch(*batch, _seed(seed), FEATURES, make_augmentation(**options))
    return {name: value.numpy() for name, value in inputs.items()}, labels.numpy(), weights.numpy()


def _own_share(inputs, batch):
    """λ of each example, by its picture."""
    own = np.arange(1, SIZE + 1)
    other = np.roll(own, 1)
    return (inputs["image"].mean(axis=(1, 2, 3)) - other) / (own - other)


@pytest.mark.parametrize("options", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}], ids=str)
def test_labels_are_shares_of_the_two_examples_as_the_picture_shows_them(batch, options):
    inputs, labels, weights = _mixed(batch, **options)
    own = _own_share(inputs, batch)
    hot = np.eye(LABELS)[batch[1].numpy()]
    np.testing.assert_allclose(labels, own[:, None] * hot + (1 - own)[:, None] * np.roll(hot, 1, axis=0), atol=1e-4)
    np.testing.assert_allclose(weights, 1, rtol=1e-6)
    assert 0.3 < own.mean() < 0.7
    assert own.std() > 0.2


def test_mixup_blends_all_pixels_and_cutmix_replaces_a_rectangle(batch):
    blended = _mixed(batch, mixup=0.8)[0]["image"]
    assert (np.ptp(blended, axis=(1, 2, 3)) < 1e-3).all()
    cut = _mixed(batch, cutmix=1.0)[0]["image"]
    own, other = np.arange(1, SIZE + 1), np.roll(np.arange(1, SIZE + 1), 1)
    for number in range(SIZE):
        assert set(np.unique(cut[number])) <= {own[number], other[number]}
        inside = cut[number, :, :, 0] == other[number]
        rows, columns = inside.any(axis=1), inside.any(axis=0)
        np.testing.assert_array_equal(inside, rows[:, None] & columns)
        assert all(np.ptp(np.flatnonzero(side)) + 1 == side.sum() for side in (rows, columns) if side.any())


def test_either_of_the_two_is_drawn_for_a_batch(batch):
    kinds = {
        bool((np.ptp(_mixed(batch, seed, mixup=0.8, cutmix=1.0)[0]["image"], axis=(1, 2, 3)) > 0.5).any()) for seed in range(12)
    }
    assert kinds == {True, False}


def test_texts_come_whole_from_one_of_the_two_as_often_as_its_share(batch):
    shares, kept = [], []
    for seed in range(20):
        inputs, _, _ = _mixed(batch, seed, mixup=0.8)
        own, other = np.arange(1, SIZE + 1), np.roll(np.arange(1, SIZE + 1), 1)
        ids = inputs["title_token_ids"]
        keeps = ids[:, 0] == own
        np.testing.assert_array_equal(ids, np.where(keeps, own, other)[:, None] * np.ones((1, 4), int))
        present = batch[0]["title_present"].numpy()
        np.testing.assert_array_equal(inputs["title_present"], np.where(keeps, present, np.roll(present, 1)))
        shares.append(_own_share(inputs, batch))
        kept.append(keeps)
    shares, kept = np.concatenate(shares), np.concatenate(kept)
    for low in (0.0, 0.25, 0.5, 0.75):
        within = (shares >= low) & (shares < low + 0.25)
        assert kept[within].mean() == pytest.approx(shares[within].mean(), abs=0.12)


def test_embeddings_are_mixed_as_pixels_are_where_both_are_there(batch):
    inputs, _, _ = _mixed(batch, mixup=0.8)
    embeddings, own = inputs["about_embedding"][:, 0], _own_share(inputs, batch)
    expected = own * np.arange(1, SIZE + 1) + (1 - own) * np.roll(np.arange(1, SIZE + 1), 1)
    alone = [30, 31]
    both = np.setdiff1d(np.arange(SIZE), alone)
    np.testing.assert_allclose(embeddings[both], expected[both], rtol=1e-5)
    for number in alone:
        from_own = embeddings[number] == number + 1
        assert from_own or embeddings[number] == number
        assert inputs["about_present"][number] == (from_own if number == 31 else not from_own)


def test_example_without_a_picture_is_left_alone_and_is_mixed_into_none(batch):
    for options in ({"mixup": 0.8}, {"cutmix": 1.0}):
        inputs, labels, _ = _mixed(batch, **options)
        for number in (10, 11):
            np.testing.assert_array_equal(inputs["image"][number], np.full((8, 12, 3), number + 1))
            assert inputs["title_token_ids"][number, 0] == number + 1
            assert labels[number, batch[1][number]] == 1
            assert inputs["image_present"][number] == (number == 11)


def test_loss_of_mixed_examples_counts_each_by_its_weight(batch):
    inputs, labels, _ = batch
    weights = tf.constant(RNG.choice([0.0, 1.0, 2.0], SIZE), tf.float32)
    mixed, shares, together = (
        value if isinstance(value, dict) else value.numpy()
        for value in augment_batch(inputs, labels, weights, _seed(), FEATURES, make_augmentation(mixup=0.8))
    )
    own = _own_share({"image": mixed["image"].numpy()}, batch)
    hot = np.eye(LABELS)[labels.numpy()]
    alone = (own * weights)[:, None] * hot
    other = ((1 - own) * np.roll(weights, 1))[:, None] * np.roll(hot, 1, axis=0)
    np.testing.assert_allclose(together[:, None] * shares, alone + other, atol=1e-4)


def test_several_labels_are_mixed_as_they_are(batch):
    inputs, _, weights = batch
    hot = tf.constant(RNG.integers(0, 2, (SIZE, LABELS)), tf.float32)
    mixed, labels, _ = mix_examples(inputs, hot, weights, _seed(), FEATURES, 0.8, 0.0)
    own = _own_share({"image": mixed["image"].numpy()}, batch)[:, None]
    np.testing.assert_allclose(labels, own * hot + (1 - own) * np.roll(hot, 1, axis=0), atol=1e-4)


def test_batch_of_one_stays_as_it_is(batch):
    inputs, labels, weights = tf.nest.map_structure(lambda value: value[:1], batch)
    mixed, shares, _ = augment_batch(inputs, labels, weights, _seed(), FEATURES, make_augmentation(mixup=0.8))
    for name, value in mixed.items():
        np.testing.assert_allclose(value, inputs[name])
    np.testing.assert_allclose(shares, tf.one_hot(labels, LABELS))


def test_tiny_alpha_gives_numbers():
    inputs = {"image": tf.ones([SIZE, 8, 12, 3]), "image_present": tf.ones(SIZE, tf.bool)}
    features = FeatureSpec(FEATURES.image, (), FEATURES.labels, multi_label=False)
    mixed, labels, weights = augment_batch(
        inputs, tf.zeros(SIZE, tf.int32), tf.ones(SIZE), _seed(), features, make_augmentation(mixup=1e-3)
    )
    for value in (*mixed.values(), labels, weights):
        assert np.isfinite(value).all()


def test_same_seed_gives_the_same_batch_eagerly_and_inside_a_pipeline(batch):
    augmentation = make_augmentation(mixup=0.5, cutmix=1.0, token_dropout=0.3)

    def augmented(number):
        return augment_batch(*batch, tf.stack([tf.constant(1, tf.int64), number]), FEATURES, augmentation)

    dataset = tf.data.Dataset.range(4).map(augmented, num_parallel_calls=2)
    assert all(spec.shape.is_fully_defined() for spec in tf.nest.flatten(dataset.element_spec))
    for number, made in enumerate(dataset):
        for one, other in zip(tf.nest.flatten(made), tf.nest.flatten(augmented(tf.constant(number, tf.int64))), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_tokens_that_are_left_move_up_and_fixed_ones_stay():
    ids = np.tile([7, 11, 12, 13, 14, 8, 0, 0], (200, 1)).astype("int32")
    mask = ids > 0
    dropped, kept = (value.numpy() for value in drop_tokens(tf.constant(ids), tf.constant(mask), _seed(), 0.3, [7, 8]))
    counts = kept.sum(axis=1)
    np.testing.assert_array_equal(kept, np.arange(8) < counts[:, None])
    np.testing.assert_array_equal(dropped > 0, kept)
    assert set(counts) == {3, 4, 5, 6}
    for row, count in zip(dropped, counts, strict=True):
        assert row[0] == 7
        assert row[count - 1] == 8
        assert (np.diff(row[1 : count - 1]) > 0).all()
    assert (6 - counts).mean() == pytest.approx(4 * 0.3, abs=0.15)


def test_text_that_would_lose_all_its_tokens_keeps_them_and_an_empty_one_stays_empty():
    ids = tf.constant([[2, 3, 0], [0, 0, 0], [7, 8, 0]], tf.int32)
    for fixed in ([], [7, 8]):
        dropped, kept = drop_tokens(ids, ids > 0, _seed(), 0.999, fixed)
        np.testing.assert_array_equal(dropped, ids)
        np.testing.assert_array_equal(kept, ids > 0)


@pytest.mark.parametrize(
    "wrong",
    [{"min_area": 0.0}, {"color_jitter": 2}, {"rand_augment": 1.5}, {"rand_augment": -1}, {"rand_augment_magnitude": 30},
     {"mixup": -1}, {"cutmix": -0.1}, {"token_dropout": 1.0}],
    ids=str,
)  # fmt: skip
def test_value_out_of_range_is_an_error_that_names_it(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} must be .*Received: {name}={re.escape(repr(value))}"):
        make_augmentation(**wrong)
