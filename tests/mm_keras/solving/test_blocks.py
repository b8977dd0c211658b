import numpy as np

from mm_keras.solving.blocks import MOST_WORDS, Words, unit_rows

IDS = np.array([[1, 5, 6, 0], [1, 5, 5, 7], [1, 8, 0, 0], [0, 0, 0, 0]])
MASK = IDS > 0


def test_rare_words_weigh_more_and_words_of_all_texts_nothing():
    words = Words.learn(IDS, MASK, vocabulary=20)
    assert np.flatnonzero(words.column_of).tolist() == [5, 6, 7, 8]  # 1 is in every text that there is
    np.testing.assert_allclose(words.rarity, np.log([4 / 3, 4 / 2, 4 / 2, 4 / 2]) + 1, rtol=1e-6)


def test_bags_have_a_length_of_one_however_often_a_word_occurs():
    words = Words.learn(IDS, MASK, vocabulary=20)
    bags = words.bags(IDS, MASK).toarray()
    np.testing.assert_allclose(np.linalg.norm(bags, axis=1), [1, 1, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(bags[1] / bags[1, 2], [words.rarity[0] / words.rarity[2], 0, 1, 0], rtol=1e-6)


def test_unknown_words_are_left_out():
    words = Words.learn(IDS, MASK, vocabulary=20)
    bags = words.bags(np.array([[9, 9], [9, 8]]), np.ones((2, 2), bool)).toarray()
    assert not bags[0].any()
    np.testing.assert_allclose(bags[1], [0, 0, 0, 1])


def test_most_frequent_words_are_kept():
    count = MOST_WORDS + 50
    ids = np.stack([np.arange(1, count + 1), np.roll(np.arange(1, count + 1), 1)], axis=1)
    ids[:100, 1] = count + 5
    words = Words.learn(ids, ids > 0, vocabulary=count + 10)
    assert len(words.rarity) == MOST_WORDS
    assert words.column_of[count + 5] > 0


def test_texts_without_tokens_have_one_empty_column():
    nothing = np.zeros((3, 4), int)
    words = Words.learn(nothing, nothing > 0, vocabulary=20)
    assert words.bags(nothing, nothing > 0).shape == (3, 1)


def test_unit_rows_leave_zeros():
    rows = unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert rows.dtype == np.float32
