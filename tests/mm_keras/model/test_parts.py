"""What all parts of models have in common; see `harness.py`, where a new part is an entry."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.mm_keras.model.harness import BATCH, LAYERS, PARTS, as_input, check_saving, outputs_of

ALL = PARTS | LAYERS
QUICK = {"small CNN", "LSTM", "cross-attention of sequences", "class-embedding head"}
every_part = pytest.mark.parametrize("name", ALL)


@functools.cache
def _built(name):
    """The part in float32; tests share it."""
    return ALL[name].build()


@every_part
def test_part_answers_a_single_example_as_it_does_in_a_batch(name):
    whole = outputs_of(_built(name), ALL[name].inputs)
    for row in range(BATCH):
        alone = outputs_of(_built(name), {key: array[row : row + 1] for key, array in ALL[name].inputs.items()})
        for answer, expected in zip(alone, whole, strict=True):
            size = len(expected) // BATCH  # rows an example: more than one where a text is split in windows
            np.testing.assert_allclose(answer, expected[row * size : (row + 1) * size], atol=2e-5)


@every_part
def test_shape_is_what_the_part_says(name):
    described = [tensor.shape for tensor in keras.tree.flatten(_built(name).output)]
    answers = outputs_of(_built(name), ALL[name].inputs)
    assert [shape[1:] for shape in described] == [answer.shape[1:] for answer in answers]
    assert all(np.isfinite(answer).all() for answer in answers)


@pytest.mark.parametrize("name", [name for name, part in ALL.items() if part.has_padding])
def test_what_stands_at_the_padding_does_not_matter(name):
    tokens = dict(ALL[name].inputs)
    other = tokens | {"token_ids": np.where(tokens["padding_mask"], tokens["token_ids"], 7)}
    assert not np.array_equal(other["token_ids"], tokens["token_ids"])
    np.testing.assert_allclose(outputs_of(_built(name), other)[0], outputs_of(_built(name), tokens)[0], atol=2e-5)


@every_part
def test_part_survives_saving(name, tmp_path):
    check_saving(_built(name), ALL[name].inputs, tmp_path)


@functools.cache
def _built_in_half_precision(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return ALL[name].build()
    finally:
        keras.config.set_dtype_policy("float32")


@every_part
def test_part_answers_in_half_precision_what_it_says(name):
    model = _built_in_half_precision(name)
    answers = keras.tree.flatten(model(as_input(model, ALL[name].inputs)))
    assert tuple(keras.backend.standardize_dtype(answer.dtype) for answer in answers) == ALL[name].outputs


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ALL])
def test_part_survives_saving_in_half_precision(name, tmp_path):
    check_saving(_built_in_half_precision(name), ALL[name].inputs, tmp_path)


@every_part
def test_part_is_traced_for_any_batch_size_as_an_export_does(name):
    part, model = ALL[name], _built(name)
    signature = {key: tf.TensorSpec([None, *array.shape[1:]], array.dtype) for key, array in part.inputs.items()}
    traced = tf.function(lambda inputs: model(as_input(model, inputs))).get_concrete_function(signature)
    for size in (1, BATCH):
        given = {key: array[:size] for key, array in part.inputs.items()}
        answers = tf.nest.flatten(traced(tf.nest.map_structure(tf.constant, given)))
        for answer, expected in zip(answers, outputs_of(model, given), strict=True):
            np.testing.assert_allclose(answer, expected, atol=2e-5)
