import numpy as np
import pytest

from mm_keras.model.tuning_dnn import build_tuning_dnn


@pytest.mark.parametrize("units", [(6,), (12, 4), (3, 3, 3)])
def test_embedding_gets_the_width_of_the_last_layer(units):
    dnn = build_tuning_dnn(5, units, name="title_tuning")
    assert (dnn.name, dnn.input.shape, dnn.output.shape) == ("title_tuning", (None, 5), (None, units[-1]))
    assert np.isfinite(dnn(np.ones((1, 5), "float32"))).all()


def test_no_layer_leaves_the_embedding_as_it_is():
    embeddings = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    dnn = build_tuning_dnn(5, ())
    assert dnn.weights == []
    np.testing.assert_array_equal(dnn(embeddings, training=True), embeddings)


def test_dropout_is_for_training_alone():
    dnn = build_tuning_dnn(5, (64,), dropout=0.5)
    embeddings = np.ones((4, 5), "float32")
    np.testing.assert_array_equal(dnn(embeddings), dnn(embeddings))
    assert not np.array_equal(dnn(embeddings, training=True), dnn(embeddings))
