import keras
import numpy as np
import pytest

from mm_keras.model.head import build_head


@pytest.mark.parametrize(("hidden", "num_dense"), [((), 1), ((8,), 2), ((8, 4), 3)])
def test_head_has_its_hidden_layers_and_one_logit_a_label(hidden, num_dense):
    head = build_head(6, 5, hidden)
    assert (head.name, head.input.shape, head.output.shape) == ("head", (None, 6), (None, 5))
    dense = [layer for layer in head.layers if isinstance(layer, keras.layers.Dense)]
    assert [layer.units for layer in dense] == [*hidden, 5]
    assert len(dense) == num_dense


def test_logits_are_not_squashed():
    head = build_head(2, 3)
    head.get_layer("logits").set_weights([np.full((2, 3), 50.0), np.zeros(3)])
    np.testing.assert_array_equal(head(np.ones((1, 2), "float32")), [[100, 100, 100]])
    np.testing.assert_array_equal(head(-np.ones((1, 2), "float32")), [[-100, -100, -100]])


def test_dropout_is_for_training_alone():
    head = build_head(64, 3, dropout=0.5)
    fused = np.ones((2, 64), "float32")
    np.testing.assert_array_equal(head(fused), head(fused))
    assert not np.array_equal(head(fused, training=True), head(fused))
