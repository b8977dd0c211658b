import numpy as np
import pytest

from mm_keras.features import TokenizerSpec, TokenText
from mm_keras.model.word_vector_encoder import build_word_vector_encoder

WORDS = TokenizerSpec("words", ("[PAD]", "[UNK]", "oak", "mug", "rare", "größe"))
SPEC = TokenText("title", WORDS, 6)
VECTORS = {"the": [9, 9, 9], "oak": [1, 2, 3], "mug": [-1, 0, 1.5], "größe": [4, 4, 4]}


@pytest.fixture
def write(tmp_path):
    """A function: (first line, vectors) -> a file as GloVe's."""

    def make(first="", vectors=VECTORS):
        lines = [f"{word} {' '.join(map(str, vector))}\n" for word, vector in vectors.items()]
        (tmp_path / "vectors.txt").write_text(first + "".join(lines), "utf-8")
        return str(tmp_path / "vectors.txt")

    return make


def _encode(encoder, *rows):
    token_ids = np.zeros((len(rows), 6), "int32")
    mask = np.zeros((len(rows), 6), bool)
    for index, row in enumerate(rows):
        token_ids[index, : len(row)], mask[index, : len(row)] = row, True
    return np.array(encoder({"token_ids": token_ids, "padding_mask": mask}))


@pytest.mark.parametrize("first", ["", "4 3\n", "a word with spaces 7 7 7\n"])
def test_text_is_the_mean_of_the_vectors_of_its_known_words(write, first, capsys):
    first_is_a_word = first.startswith("a word")
    path = write("the 9 9 9\n" + first if first_is_a_word else first)
    encoder = build_word_vector_encoder(SPEC, path, name="title_encoder")
    assert "for 3 of 6 words" in capsys.readouterr().out
    assert encoder.name == "title_encoder"
    found = _encode(encoder, [2, 3], [2, 1, 4, 3], [5], [1, 4], [])
    np.testing.assert_allclose(found, [[0, 1, 2.25], [0, 1, 2.25], [4, 4, 4], [0, 0, 0], [0, 0, 0]])


def test_vectors_come_from_npz_too(tmp_path, write):
    np.savez(tmp_path / "vectors.npz", words=np.array(list(VECTORS)), vectors=np.array(list(VECTORS.values()), "float32"))
    both = [build_word_vector_encoder(SPEC, path) for path in (write(), str(tmp_path / "vectors.npz"))]
    np.testing.assert_array_equal(*(encoder.get_weights()[0] for encoder in both))


def test_frozen_vectors_are_not_trained_and_trainable_ones_learn_the_words_that_the_file_lacks(write):
    assert build_word_vector_encoder(SPEC, write()).trainable_weights == []
    encoder = build_word_vector_encoder(SPEC, write(), trainable=True)
    np.testing.assert_allclose(_encode(encoder, [2, 4]), [[0.5, 1, 1.5]])
    encoder.compile("sgd", "mse", jit_compile=False)
    inputs = {"token_ids": np.array([[4]]), "padding_mask": np.array([[True]])}
    encoder.fit(inputs, np.ones((1, 3)), verbose=0)
    assert np.all(encoder.get_weights()[0][4] > 0)


def test_bad_files_are_errors_that_name_the_place(write, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.txt does not exist; word vectors are GloVe's"):
        build_word_vector_encoder(SPEC, str(tmp_path / "none.txt"))
    with pytest.raises(ValueError, match=r"vectors\.txt, line 3: not a word and 3 numbers, as in its first line: b'mug x"):
        build_word_vector_encoder(SPEC, write(vectors=VECTORS | {"mug": ["x", 1, 2]}))
    with pytest.raises(ValueError, match=r"vector for none of the 6 words of field 'title'"):
        build_word_vector_encoder(SPEC, write(vectors={"other": [1, 2]}))
    with pytest.raises(ValueError, match="holds no word vectors"):
        build_word_vector_encoder(SPEC, write(vectors={}))
    np.savez(tmp_path / "other.npz", words=np.array(["a"]), arrays=np.ones(2))
    with pytest.raises(ValueError, match=r"must hold words \[N\] and vectors \[N, D\]. Received: .*'arrays': \(2,\)"):
        build_word_vector_encoder(SPEC, str(tmp_path / "other.npz"))


def test_other_tokenizers_are_an_error(write):
    pieces = TokenizerSpec("wordpiece", WORDS.vocabulary, family="BertTokenizer")
    with pytest.raises(ValueError, match=r"field 'title' has a tokenizer of kind 'wordpiece'; bind make_features"):
        build_word_vector_encoder(TokenText("title", pieces, 6), write())


def test_npz_that_unpacks_to_many_times_its_size_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", words=np.array(["a"]), vectors=np.zeros((1, 3_000_000), "float32"))
    with pytest.raises(ValueError, match=r"bomb\.npz has .* bytes and would unpack to 12,000,"):
        build_word_vector_encoder(SPEC, str(tmp_path / "bomb.npz"))
