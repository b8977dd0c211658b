"""Test examples that the training has seen: near-duplicates of pictures and of texts, and texts that name their label."""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Sequence

import numpy as np

from mm_keras.report.neighbours import nearest
from tfrecords_tools.inspect.leakage import near_pairs
from tfrecords_tools.inspect.text_stats import words_of

SURE_BITS, POSSIBLE_BITS = 4, 12  # by which hashes of copies differ at most: in any case, and if embeddings nearly agree
_NEARLY_EQUAL = 0.08  # cosine distance
_SHARED_WORDS = 0.9  # of the words of both texts together
_LEAST_WORDS = 3  # of a text that is looked at: shorter ones repeat by chance
_NUM_COMPARED = 5  # nearest training pictures of each test picture
_ROWS = 2048  # test texts at once


def copied_pictures(
    hashes: np.ndarray, known_hashes: np.ndarray, vectors: np.ndarray | None = None, known: np.ndarray | None = None
) -> list[tuple[int, int]]:
    """Pairs (test example, training example) whose pictures are copies, also re-encoded, resized or slightly changed.

    Two pictures are copies if their perceptual hashes differ in at most 4 of 64 bits; or in at most 12, where their embeddings
    are nearly equal, too.

    Args:
        hashes: uint64 [N], of the test pictures, by `tfrecords_tools.inspect.leakage.perceptual_hash`.
        known_hashes: uint64 [K], of the training pictures.
        vectors, known: float [N, D] and [K, D], embeddings of these pictures, if there are any.

    Returns:
        a pair for each test example that has a copy, with the nearest one.
    """
    sides = np.repeat([0, 1], [len(hashes), len(known_hashes)])
    pairs = near_pairs(np.concatenate([hashes, known_hashes]).astype(np.uint64), sides, SURE_BITS)
    copies = [(distance, test, other - len(hashes)) for test, other, distance in pairs]
    if vectors is not None and known is not None and len(vectors) and len(known):
        near, distances = nearest(vectors, known, _NUM_COMPARED)
        bits = np.bitwise_count(hashes[:, np.newaxis].astype(np.uint64) ^ known_hashes[near].astype(np.uint64))
        for test, place in zip(*np.nonzero((distances <= _NEARLY_EQUAL) & (bits <= POSSIBLE_BITS)), strict=True):
            copies.append((int(bits[test, place]), int(test), int(near[test, place])))
    return _best(copies)


def copied_texts(texts: Sequence[str], known: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (test example, training example) whose texts share at least 90 % of their words.

    Args:
        texts: the test texts; "" where there is none. Texts of fewer than 3 different words are not looked at.
        known: the training texts.

    Returns:
        a pair for each test example that has a copy, with the most similar one.

    Reference: Chaudhuri, Ganti and Kaushik, "A Primitive Operator for Similarity Joins in Data Cleaning", 2006, on why it is
    enough to look at the rarest words first.
    """
    import scipy.sparse

    word_sets = [
        [{*words} if len(words := words_of(text).split()) >= _LEAST_WORDS else set() for text in side]
        for side in (texts, known)
    ]
    counts = collections.Counter(itertools.chain.from_iterable(itertools.chain(*word_sets)))
    order = sorted(counts, key=lambda word: (counts[word], word))
    columns = {word: column for column, word in enumerate(order)}  # the rarest first

    def rarest(side: list[set[str]]) -> scipy.sparse.csr_matrix:
        """The rarest words of each text: a text that is a copy of it has at least one of them, too."""
        ids = [
            sorted(columns[word] for word in words)[: len(words) - math.ceil(_SHARED_WORDS * len(words)) + 1] for words in side
        ]
        ends, flat = np.cumsum([0, *map(len, ids)]), list(itertools.chain.from_iterable(ids))
        return scipy.sparse.csr_matrix((np.ones(len(flat), np.int32), flat, ends), (len(ids), max(1, len(columns))))

    of_tests, of_known = rarest(word_sets[0]), rarest(word_sets[1]).T
    copies = []
    for start in range(0, len(texts), _ROWS):
        candidates = (of_tests[start : start + _ROWS] @ of_known).tocoo()
        for row, other in zip((candidates.row + start).tolist(), candidates.col.tolist(), strict=True):
            test_words, known_words = word_sets[0][row], word_sets[1][other]
            share = len(test_words & known_words) / len(test_words | known_words)
            if share >= _SHARED_WORDS:
                copies.append((1 - share, row, other))
    return _best(copies)


def names_its_label(texts: Sequence[str], labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Which texts hold the name of a label of their example, as whole words, bool [N].

    Args:
        texts: one an example.
        labels: int [N], or 0/1 [N, L].
        names: the names of the labels.
    """
    words = [f" {words_of(name)} " for name in names]
    ids = [np.flatnonzero(row) for row in labels] if labels.ndim == 2 else [[label] if label >= 0 else [] for label in labels]
    padded = [f" {words_of(text)} " for text in texts]
    return np.array(
        [any(words[label].strip() and words[label] in text for label in row) for text, row in zip(padded, ids, strict=True)]
    )


def _best(copies: list[tuple[float, int, int]]) -> list[tuple[int, int]]:
    """The nearest partner of each test example."""
    best: dict[int, tuple[float, int]] = {}
    for distance, test, other in sorted(copies):
        best.setdefault(test, (distance, other))
    return [(test, other) for test, (_, other) in sorted(best.items())]
