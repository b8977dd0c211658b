import keras
import numpy as np
import pytest

from mm_keras.model.head import build_head
from mm_keras.model.image_tower import build_image_tower, build_small_cnn
from mm_keras.model.solved_head import (
    Answer,
    Kernels,
    Neighbours,
    UnitBlocks,
    WeightedBag,
    build_blocks_fusion,
    build_solved_head,
)
from mm_keras.model.solved_two_tower import build_solved_two_tower, embedding_widths
from mm_keras.model.split_at_embeddings import split_at_embeddings
from mm_keras.model.text_encoder import build_small_text_encoder
from mm_keras.model.two_tower import build_two_tower
from mm_keras.solving.blocks import Words

RNG = np.random.default_rng(0)


def _normal(*shape):
    return RNG.normal(size=shape).astype("float32")


def test_each_block_has_a_length_of_one_or_zero():
    rows = np.array([[3, 4, 0, 5], [0, 0, 1, 1]], np.float32)
    blocks = np.asarray(UnitBlocks([2, 2])(rows))
    np.testing.assert_allclose(blocks, [[0.6, 0.8, 0, 1], [0, 0, 0.5**0.5, 0.5**0.5]], atol=1e-6)


def test_bag_of_the_model_is_the_solvers():
    ids = RNG.integers(0, 30, (40, 6))
    mask = np.arange(6) < RNG.integers(0, 7, (40, 1))
    words = Words.learn(ids[:20], mask[:20], vocabulary=30)
    layer = WeightedBag(30, len(words.rarity))
    layer(ids.astype("int32"), mask)
    layer.column_of.assign(words.column_of)
    layer.rarity.assign(words.rarity)
    np.testing.assert_allclose(np.asarray(layer(ids.astype("int32"), mask)), words.bags(ids, mask).toarray(), atol=1e-6)


def _head(centers, multi_label):
    """Blocks of widths 3, 2 and 4, of which the first belongs to modality 0; four answers, of which the last reads nothing."""
    targets = np.eye(2, dtype="float32")[[0, 1, 1, 0, 1]]
    neighbours = [Neighbours(1, np.array([1, 0, 2, 0.5, 1], np.float32), np.array([0.4, 0.6], np.float32), 0.3)]
    kernels = Kernels({0: _normal(5, 3), 2: _normal(5, 4)}, [((0, 2), 0.5), ((2,), 90.0)], targets, neighbours)
    answers = [
        Answer((0,), {0: _normal(3, 2)}, {}, {}, _normal(2)),
        Answer((1,), {1: _normal(2, 2), 2: _normal(4, 2)}, {}, {0: _normal(2)}, _normal(2)),
        Answer((0, 1), {1: _normal(2, 2)}, {0: _normal(5, 2)}, {}, _normal(2)),
        Answer((), {}, {}, {}, _normal(2)),
    ]
    return build_solved_head([3, 2, 4], 2, kernels, answers, [3, 0, 1, 2], multi_label, centers), kernels, answers


def _neighbours_logits(values, kernels, multi_label):
    """In float64, and by its definition."""
    asked = kernels.neighbours[0]
    exponents = -90.0 * np.square(kernels.landmarks[2].astype("float64") - values).sum(axis=1)
    votes = np.exp(exponents - exponents[asked.voters > 0].max()) * asked.voters
    shares = (votes @ kernels.targets + 0.3 * asked.prior) / (votes.sum() + 0.3)
    return np.log(shares) - (np.log(1 - shares) if multi_label else 0)


@pytest.mark.parametrize("multi_label", [False, True], ids=["multi-class", "multi-label"])
@pytest.mark.parametrize("centers", [{}, {0: _normal(3), 2: 5 + _normal(4)}], ids=["as they are", "centred"])
def test_each_example_gets_the_answer_of_what_it_has(tmp_path, centers, multi_label):
    head, kernels, answers = _head(centers, multi_label)
    parts = [_normal(4, width) for width in (3, 2, 4)]
    flags = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32)
    distances = sum(np.square(parts[n][:, None] - kernels.landmarks[n][None]).sum(axis=2) for n in (0, 2))
    expected = [
        answers[3].bias,
        parts[0][1] @ answers[0].linear[0] + answers[0].bias,
        parts[1][2] @ answers[1].linear[1]
        + parts[2][2] @ answers[1].linear[2]
        + _neighbours_logits(parts[2][2], kernels, multi_label) * answers[1].neighbours[0]
        + answers[1].bias,
        parts[1][3] @ answers[2].linear[1] + np.exp(-0.25 * distances[3]) @ answers[2].kernels[0] + answers[2].bias,
    ]
    fused = np.concatenate([*parts, flags], axis=1)
    np.testing.assert_allclose(np.asarray(head(fused)), expected, atol=1e-4)
    head.save(tmp_path / "head.keras")
    reloaded = keras.models.load_model(tmp_path / "head.keras")
    np.testing.assert_array_equal(np.asarray(reloaded(fused)), np.asarray(head(fused)))
    assert not head.trainable_weights


def test_fusion_joins_blocks_and_flags():
    fusion = build_blocks_fusion({"image": (3,), "title": (2,)})
    vectors = {"image": _normal(2, 3), "title": _normal(2, 2)}
    flags = {"image_present": np.array([True, False]), "title_present": np.array([True, True])}
    joined = np.asarray(fusion(vectors | flags))
    np.testing.assert_array_equal(joined, np.concatenate([vectors["image"], vectors["title"], [[1, 1], [0, 1]]], axis=1))


def test_much_alike_blocks_are_told_apart_where_they_are_centred():
    """Their differences are a ten-thousandth of them, and what is learned of these has large weights."""
    rows, weights = (1 + 1e-4 * _normal(6, 50)).astype("float32"), 1e3 * _normal(50, 2)
    exact = (rows.astype("float64") - 1) @ weights
    answer = Answer((0,), {0: weights}, {}, {}, -weights.astype("float64").sum(axis=0))
    heads = [
        build_solved_head([50], 1, Kernels({}, []), [answer], [0, 0], False, {0: center})
        for center in (np.ones(50), np.zeros(50))
    ]
    fused = np.concatenate([rows, np.ones((6, 1), np.float32)], axis=1)
    centred, plain = (np.abs(np.asarray(head(fused)) - exact).max() for head in heads)
    assert centred < 1e-5 < plain


@pytest.mark.parametrize("fields", [("title",), ("title", "text")])
@pytest.mark.parametrize("shared", [False, True])
def test_solved_model_reads_what_the_other_one_reads(make_spec, make_inputs, fields, shared):
    features = make_spec(fields=fields)
    model = build_two_tower(
        features, build_small_cnn, build_small_text_encoder, head=build_head, share_text_encoder=shared, modality_dropout=0
    )
    words = {field: (np.arange(7, dtype="int32"), np.ones(6, np.float32)) for field in fields}
    widths = [96, *[width for _ in fields for width in (model.get_layer(f"{fields[0]}_tuning").input.shape[-1], 6)]]
    count = 1 + len(fields)
    everything = tuple(range(count))
    answer = Answer(everything, {number: _normal(width, 4) for number, width in enumerate(widths)}, {}, {}, _normal(4))
    nothing = Answer((), {}, {}, {}, _normal(4))
    head = build_solved_head(widths, count, Kernels({}, []), [answer, nothing], [1] * (2**count - 1) + [0], False)
    solved = build_solved_two_tower(model, features, words, head)
    assert solved.input.keys() == model.input.keys()
    inputs = make_inputs(features)
    logits = np.asarray(solved(inputs))
    assert logits.shape == (5, 4)
    encoders, rest = split_at_embeddings(solved, features.modalities)  # as late fusion and evaluation do
    flags = {name: keras.ops.convert_to_tensor(inputs[name]) for name in inputs if name.endswith("_present")}
    np.testing.assert_allclose(np.asarray(rest({**encoders(inputs), **flags})), logits, atol=1e-5)
    hidden = np.asarray(solved(inputs | {"image_present": np.zeros(5, bool)}))
    np.testing.assert_allclose(hidden, np.tile(nothing.bias, (5, 1)), rtol=1e-6)
    assert np.ptp(logits, axis=0).min() > 0


def test_encoder_that_ends_in_a_concatenation_has_a_block_a_part(make_spec):
    tower = build_image_tower(make_spec(image=(32, 32)).image, "mobilenet_v2", weights=None, pooling="avg_max")
    assert embedding_widths(tower) == [1280, 1280]
    assert embedding_widths(build_small_cnn(make_spec().image)) == [96]
