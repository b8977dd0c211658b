import keras
import numpy as np
import pytest

from mm_keras.data.text import make_pretrained_tokenizer
from mm_keras.features import TokenText
from mm_keras.model.cut_text_encoder import cut_text_encoder
from mm_keras.model.transformer_encoder import build_transformer_encoder

FIRST = "transformer_layer_0"  # of two


@pytest.fixture(scope="module")
def build(tiny_bert):
    """A function: options -> an encoder of titles of 8 tokens."""
    spec = TokenText("title", make_pretrained_tokenizer([], tiny_bert), 8)
    return lambda **options: build_transformer_encoder(spec, tiny_bert, **options)


@pytest.fixture(scope="module")
def tokens():
    mask = np.arange(6) < np.array([[6], [3]])
    ids = np.random.default_rng(0).integers(5, 9, (2, 6)).astype("int32") * mask
    return {"token_ids": keras.ops.convert_to_tensor(ids), "padding_mask": keras.ops.convert_to_tensor(mask)}


@pytest.mark.parametrize("pooling", ["mean", "max", "none"])
def test_both_parts_together_are_the_encoder(build, tokens, pooling):
    encoder = build(freeze_up_to=FIRST, pooling=pooling)
    before, rest = cut_text_encoder(encoder)
    states = before(tokens)
    assert states.shape == (2, 6, 32)
    answers = rest({"hidden_states": states, "padding_mask": tokens["padding_mask"]})
    np.testing.assert_allclose(answers, encoder(tokens), atol=1e-5)
    assert not before.trainable_weights
    assert {id(weight) for weight in rest.trainable_weights} == {id(weight) for weight in encoder.trainable_weights}
    assert rest.trainable_weights
    assert rest.name == encoder.name


def test_training_the_rest_trains_the_encoder_and_draws_nothing(build, tokens):
    encoder = build(freeze_up_to=FIRST)
    before, rest = cut_text_encoder(encoder)
    given = {"hidden_states": before(tokens), "padding_mask": tokens["padding_mask"]}
    was = np.asarray(encoder(tokens))
    np.testing.assert_array_equal(rest(given, training=True), rest(given, training=True))
    rest.compile("sgd", "mse", jit_compile=False)
    rest.train_on_batch(given, was + 1)
    assert np.abs(np.asarray(encoder(tokens)) - was).max() > 1e-4
    np.testing.assert_allclose(rest(given), encoder(tokens), atol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"trainable": True}, {"freeze_up_to": FIRST, "windows": 2}, {"freeze_up_to": FIRST, "pooling": "cls"}]
)
def test_encoder_without_a_beginning_to_cut_off_is_left_whole(build, options):
    assert cut_text_encoder(build(**options)) is None


def test_layer_that_is_not_there_is_an_error_that_lists_them(build):
    with pytest.raises(ValueError, match=r"freeze_up_to is one of \['token_.*'transformer_layer_1'.*Received: 'layer_7'"):
        build(freeze_up_to="layer_7")
