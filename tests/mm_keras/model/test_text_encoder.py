import numpy as np
import pytest

from mm_keras.data.text import make_pretrained_tokenizer
from mm_keras.features import TokenizerSpec, TokenText
from mm_keras.model.text_encoder import build_recurrent_encoder, build_small_text_encoder
from mm_keras.model.transformer_encoder import build_transformer_encoder

WORDS = TokenizerSpec("words", tuple(f"w{index}" for index in range(20)))


@pytest.fixture(scope="module")
def bert_spec(tiny_bert):
    return TokenText("title", make_pretrained_tokenizer([], tiny_bert), 10)


@pytest.fixture(scope="module")
def bert(bert_spec, tiny_bert):
    return build_transformer_encoder(bert_spec, tiny_bert)


@pytest.fixture(scope="module")
def small():
    return build_small_text_encoder(TokenText("title", WORDS, 10), width=6)


@pytest.fixture(scope="module")
def lstm():
    """With initial weights so large that every word tells."""
    return _spread(build_recurrent_encoder(TokenText("title", WORDS, 10), "lstm", embedding_width=6, width=5))


@pytest.fixture(scope="module")
def deep_gru():
    encoder = build_recurrent_encoder(
        TokenText("title", WORDS, 10), "gru", embedding_width=6, width=5, num_layers=2, bidirectional=True, dropout=0.5
    )
    return _spread(encoder)


def _spread(encoder):
    rng = np.random.default_rng(0)
    encoder.set_weights([rng.normal(0, 0.5, weight.shape) for weight in encoder.get_weights()])
    return encoder


@pytest.fixture(params=["small", "bert", "lstm", "deep_gru"])
def encoder(request):
    return request.getfixturevalue(request.param)


def _tokens(lengths, max_tokens, seed=0):
    """Random tokens; what stands at the padding depends on `max_tokens`."""
    rng = np.random.default_rng(seed)
    token_ids = rng.integers(2, 20, (len(lengths), max(lengths)), dtype="int32")
    mask = np.arange(max_tokens) < np.array(lengths)[:, np.newaxis]
    padded = np.full((len(lengths), max_tokens), max_tokens % 20, "int32")
    width = min(max_tokens, max(lengths))
    padded[:, :width] = np.where(mask[:, :width], token_ids[:, :width], padded[:, :width])
    return {"token_ids": padded, "padding_mask": mask}


def test_embedding_does_not_depend_on_padding(encoder):
    lengths = [1, 5, 3]
    first = encoder(_tokens(lengths, 5))
    for max_tokens in (6, 10, 17):
        np.testing.assert_allclose(encoder(_tokens(lengths, max_tokens)), first, atol=2e-5)


def test_text_without_tokens_gives_finite_numbers(encoder):
    tokens = _tokens([1, 2], 6)
    tokens["padding_mask"][:] = False
    assert np.isfinite(encoder(tokens)).all()


@pytest.mark.parametrize("kind", ["small", "lstm", "deep_gru"])
def test_text_without_tokens_gives_zeros(kind, request):
    encoder = request.getfixturevalue(kind)
    tokens = _tokens([1, 3, 2], 6)
    whole = np.array(encoder(tokens))
    tokens["padding_mask"][[0, 2]] = False
    np.testing.assert_allclose(encoder(tokens), whole * [[0], [1], [0]], atol=1e-6)


def test_text_is_encoded_the_same_alone(encoder):
    tokens = _tokens([2, 4, 1], 6)
    whole = encoder(tokens)
    for row in range(3):
        alone = encoder({name: array[row : row + 1] for name, array in tokens.items()})
        np.testing.assert_allclose(alone, whole[row : row + 1], atol=2e-5)


def test_order_of_words_matters(encoder):
    tokens = _tokens([5], 6)
    swapped = tokens | {"token_ids": tokens["token_ids"][:, [1, 0, 2, 3, 4, 5]]}
    assert not np.allclose(encoder(tokens), encoder(swapped), atol=1e-3)


def test_names_are_those_asked_for():
    encoder = build_small_text_encoder(TokenText("title", WORDS, 10), width=6, name="title_encoder")
    assert encoder.name == "title_encoder"
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in encoder.input.items()} == {
        "token_ids": ((None, None), "int32"),
        "padding_mask": ((None, None), "bool"),
    }
    assert encoder.output.shape == (None, 12)


def _states(layer, words):
    """[T, D] words -> [T, width] states of a recurrent layer, stepped through by its cell."""
    state = layer.get_initial_state(batch_size=1)
    states = []
    for word in words:
        output, state = layer.cell(word[np.newaxis], state)
        states.append(np.array(output)[0])
    return np.array(states)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_encoder_gives_the_states_after_the_last_and_back_at_the_first_word(cell, num_layers, bidirectional):
    spec = TokenText("title", WORDS, 10)
    encoder = _spread(build_recurrent_encoder(spec, cell, 6, 5, num_layers, bidirectional))
    lengths = [1, 4, 7]
    tokens = _tokens(lengths, 9)
    found = np.array(encoder(tokens))
    assert found.shape == (3, 10 if bidirectional else 5)
    table = encoder.get_layer("word_embedding").get_weights()[0]
    for row, length in enumerate(lengths):
        states = table[tokens["token_ids"][row, :length]]
        for index in range(num_layers):
            if bidirectional:
                layer = encoder.get_layer(f"bidirectional_{index}")
                ahead, back = _states(layer.forward_layer, states), _states(layer.backward_layer, states[::-1])[::-1]
                states, last = np.concatenate([ahead, back], axis=1), np.concatenate([ahead[-1], back[0]])
            else:
                states = _states(encoder.get_layer(f"{cell}_{index}"), states)
                last = states[-1]
        np.testing.assert_allclose(found[row], last, atol=1e-5)


def test_recurrent_encoder_has_the_sizes_asked_for():
    spec = TokenText("title", WORDS, 10)
    plain = build_recurrent_encoder(spec)
    assert plain.count_params() == 20 * 128 + 4 * (128 + 256 + 1) * 256
    deep = build_recurrent_encoder(spec, "gru", num_layers=2, bidirectional=True, name="title_encoder")
    assert deep.count_params() == 20 * 128 + 2 * 3 * (128 + 256 + 2) * 256 + 2 * 3 * (512 + 256 + 2) * 256
    assert (deep.name, deep.output.shape) == ("title_encoder", (None, 512))


def test_dropout_of_recurrent_encoders_works_in_training_alone(lstm, deep_gru):
    tokens = _tokens([3, 5], 7)
    np.testing.assert_array_equal(lstm(tokens, training=True), lstm(tokens, training=False))
    assert not np.allclose(deep_gru(tokens, training=True), deep_gru(tokens, training=False))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "rnn"}, r"recurrent cells are \['gru', 'lstm'\]. Received: 'rnn'"),
        ({"num_layers": 0}, "num_layers must be at least 1. Received: 0"),
    ],
)
def test_recurrent_encoder_that_cannot_be_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        build_recurrent_encoder(TokenText("title", WORDS, 10), **options)
