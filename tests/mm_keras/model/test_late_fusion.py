import keras
import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax

from mm_keras.features import present
from mm_keras.model.late_fusion import (
    MajorityVote,
    Stacking,
    WeightedSum,
    build_answers,
    build_late_fusion,
    voting_patterns,
)
from mm_keras.model.split_at_embeddings import split_at_embeddings

BOTH = np.ones((1, 2), bool)


def _probabilities(layer, logits, voting=None):
    """Of one example [M, L]."""
    logits = np.asarray([logits], "float32")
    answer = keras.ops.convert_to_numpy(
        layer(logits, np.ones(logits.shape[:2], bool) if voting is None else np.array([voting]))
    )
    return expit(answer[0]) if layer.multi_label else softmax(answer[0])


@pytest.mark.parametrize("shape", [(3, 1), (3, 5)])
@pytest.mark.parametrize("multi_label", [False, True])
def test_weighted_sum_is_that_of_probabilities(multi_label, shape):
    rng = np.random.default_rng(0)
    logits, weights = rng.normal(0, 3, (3, 5)), rng.uniform(0.1, 1, shape)
    probabilities = expit(logits) if multi_label else softmax(logits, axis=1)
    expected = (weights / weights.sum(axis=0) * probabilities).sum(axis=0)
    if not multi_label:
        expected /= expected.sum()
    np.testing.assert_allclose(_probabilities(WeightedSum(multi_label, weights), logits), expected, rtol=1e-5)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("make", [WeightedSum, lambda multi_label, weights: MajorityVote(multi_label, 0 * weights)])
def test_model_without_inputs_does_not_vote(make, multi_label):
    rng = np.random.default_rng(0)
    logits, weights = rng.normal(0, 3, (3, 5)), rng.uniform(0.1, 1, (3, 5))
    layer = make(multi_label, weights)
    other = logits.copy()
    other[1] = 50 * rng.normal(size=5)
    hidden = _probabilities(layer, other, [True, False, True])
    np.testing.assert_array_equal(hidden, _probabilities(layer, logits, [True, False, True]))
    assert np.abs(hidden - _probabilities(layer, logits)).max() > 0.01
    without = make(multi_label, weights[[0, 2]])
    np.testing.assert_allclose(hidden, _probabilities(without, logits[[0, 2]]), rtol=1e-4)
    np.testing.assert_array_equal(_probabilities(layer, logits, [False] * 3), _probabilities(layer, logits))


def test_only_model_that_votes_answers_as_if_it_were_alone():
    logits = np.random.default_rng(0).normal(0, 3, (2, 4))
    weights = np.array([[1 - 1e-6], [1e-6]])
    np.testing.assert_allclose(
        _probabilities(WeightedSum(False, weights), logits, [False, True]), softmax(logits[1]), rtol=1e-5
    )
    np.testing.assert_allclose(_probabilities(WeightedSum(True, weights), logits, [False, True]), expit(logits[1]), rtol=1e-5)


def test_logits_that_are_sure_stay_finite():
    logits = [[200.0, -200.0], [-200.0, 200.0]]
    for layer in (WeightedSum, MajorityVote, Stacking):
        for multi_label in (False, True):
            made = layer(multi_label, np.ones((1, 3, 2)), BOTH) if layer is Stacking else layer(multi_label, np.ones((2, 2)))
            for rows in (logits, [logits[0], logits[0]]):
                answer = made(np.array([rows], "float32"), BOTH)
                assert np.isfinite(keras.ops.convert_to_numpy(answer)).all()


def test_majority_wins_against_any_certainty():
    layer = MajorityVote(False, np.zeros((3, 4)))
    found = _probabilities(layer, [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 40]])
    assert found.argmax() == 0
    means = softmax(np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 40.0]]), axis=1).mean(axis=0)
    np.testing.assert_allclose(found, (np.array([2, 0, 0, 1]) + means / 2) / 3.5, rtol=1e-5)


def test_tie_is_decided_by_the_mean_probability():
    layer = MajorityVote(False, np.zeros((2, 3)))
    assert _probabilities(layer, [[2.0, 0, 0], [0, 2.1, 0]]).argmax() == 1
    assert _probabilities(layer, [[2.0, 0, 0], [0, 1.9, 0]]).argmax() == 0


def test_labels_are_voted_for_above_each_models_own_threshold():
    logits = [[2.0, -2.0, 0.3], [-1.0, -0.5, -0.2], [-1.0, -0.5, -9.0]]
    np.testing.assert_array_equal(_probabilities(MajorityVote(True, np.zeros((3, 3))), logits) > 0.5, [False, False, False])
    thresholds = np.zeros((3, 3))
    thresholds[1:, 1] = -1
    found = _probabilities(MajorityVote(True, thresholds), logits)
    np.testing.assert_array_equal(found > 0.5, [False, True, False])
    mean = expit(np.array(logits) - thresholds).mean(axis=0)
    np.testing.assert_allclose(found, (np.array([1, 2, 1]) + mean / 2) / 3.5, rtol=1e-5)
    two = MajorityVote(True, np.zeros((2, 2)))
    np.testing.assert_array_equal(_probabilities(two, [[2.0, 2.0], [-1.9, -2.1]]) > 0.5, [True, False])


@pytest.mark.parametrize("multi_label", [False, True])
def test_stacking_is_a_logistic_layer_for_each_pattern_of_voters(multi_label):
    rng = np.random.default_rng(0)
    logits, values = rng.normal(0, 2, (2, 4)), rng.uniform(0.1, 1, (3, 3, 4))
    patterns = [[True, True], [False, True], [True, False]]
    layer = Stacking(multi_label, values, patterns)
    x = logits if multi_label else log_softmax(logits, axis=1)
    for voting, weights in [*zip(patterns, values, strict=True), ([False, False], values[0])]:
        z = (weights[:2] * x).sum(axis=0) + weights[2]
        expected = expit(z) if multi_label else softmax(z)
        np.testing.assert_allclose(_probabilities(layer, logits, voting), expected, rtol=1e-5)


@pytest.fixture(scope="module")
def parts(make_spec, build_small_model):
    """(models, their features): an image and a title, a title alone, a description alone."""
    specs = [make_spec(), make_spec(None), make_spec(None, ("description",))]
    rng = np.random.default_rng(0)
    models = []
    for spec in specs:
        models.append(build_small_model(spec))
        for modality in spec.modalities:
            missing = models[-1].get_layer(f"{modality}_missing").missing
            missing.assign(rng.normal(size=missing.shape))
    return models, specs


@pytest.fixture(scope="module")
def fused(parts, make_spec):
    models, specs = parts
    values = np.random.default_rng(0).uniform(0.1, 1, (3, 4))
    return build_late_fusion(
        build_answers(models, specs, make_spec(fields=("title", "description"))), WeightedSum(False, values)
    )


def test_patterns_are_those_that_missing_inputs_leave(parts, make_spec):
    found = voting_patterns(parts[1], make_spec(fields=("title", "description"))).tolist()
    some = [[True, True, False], [False, False, True], [True, False, True], [True, False, False]]
    assert found[0] == [True, True, True]  # image and title | title | description
    assert sorted(found[1:]) == sorted(some)


def _hide(inputs, *modalities):
    return inputs | {present(modality): np.zeros(5, bool) for modality in modalities}


def test_fused_model_asks_each_model_what_it_knows(fused, parts, make_spec, make_inputs):
    inputs = make_inputs(make_spec(fields=("title", "description")))
    for hidden in ((), ("title",), ("description",), ("image", "title")):
        given = _hide(inputs, *hidden)
        logits = [
            model.predict_on_batch({name: given[name] for name in spec.inputs()}) for model, spec in zip(*parts, strict=True)
        ]
        voting = [any(modality not in hidden for modality in spec.modalities) for spec in parts[1]]
        expected = fused.get_layer("combination")(np.stack(logits, axis=1), np.tile(voting, (5, 1)))
        np.testing.assert_allclose(fused.predict_on_batch(given), expected, atol=1e-5)


def test_fused_model_is_saved_with_its_parts(fused, make_spec, make_inputs, tmp_path):
    inputs = make_inputs(make_spec(fields=("title", "description")))
    fused.save(tmp_path / "fused.keras")
    loaded = keras.models.load_model(tmp_path / "fused.keras")
    np.testing.assert_array_equal(loaded.predict_on_batch(inputs), fused.predict_on_batch(inputs))
    assert loaded.get_layer("model_1").get_layer("head")
    assert not loaded.get_layer("combination").trainable_weights
    stack = Stacking(True, np.arange(6.0).reshape(1, 3, 2), BOTH)
    again = Stacking.from_config(stack.get_config())
    assert again.patterns == [[True, True]]
    assert again.values.shape == (1, 3, 2)


def test_fused_model_is_cut_where_presence_is_varied(fused, make_spec, make_inputs):
    features = make_spec(fields=("title", "description"))
    inputs = make_inputs(features)
    again = build_late_fusion(  # a fusion may be a part of another
        build_answers([fused], [features], features),
        Stacking(False, np.random.default_rng(1).uniform(0.5, 1, (1, 2, 4)), [[True]]),
    )
    for model in (fused, again):
        encoders, rest = split_at_embeddings(model, features.modalities)
        embeddings = encoders.predict_on_batch(inputs)
        for hidden in ((), ("image",), ("title", "description")):
            flags = {present(modality): np.full(5, modality not in hidden) for modality in features.modalities}
            found = rest.predict_on_batch(embeddings | flags)
            np.testing.assert_allclose(found, model.predict_on_batch(_hide(inputs, *hidden)), atol=1e-5)
