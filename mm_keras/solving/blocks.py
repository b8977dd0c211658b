"""Blocks: the vectors of the examples that candidates are made of, one or more for each modality."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.sparse import csr_array

MOST_WORDS = 8192


@dataclasses.dataclass(frozen=True)
class Block:
    """The vectors of all examples by one part of an encoder's output, or by the words of a text field.

    Attributes:
        name: the name in reports, such as "image" or "title words".
        modality: the number of the modality.
        values: [N, D], each row of length 1, or zeros where the modality is missing: a float32 array, or a sparse one of words.
    """

    name: str
    modality: int
    values: np.ndarray | csr_array

    @property
    def is_words(self) -> bool:
        return not isinstance(self.values, np.ndarray)


@dataclasses.dataclass(frozen=True)
class Words:
    """Which tokens a bag of words tells apart, and how rare they are; learned from the training texts.

    Attributes:
        column_of: int32 [size of the vocabulary]: the column of each token, counted from 1; 0 leaves it out.
        rarity: float32 [columns]: the inverse document frequency of each column's token.
    """

    column_of: np.ndarray
    rarity: np.ndarray

    @classmethod
    def learn(cls, token_ids: np.ndarray, padding_mask: np.ndarray, vocabulary: int) -> Words:
        """Counts in how many texts each token occurs. The most frequent tokens are kept, but for those that every text has.

        Args:
            token_ids, padding_mask: int [N, T] and bool [N, T]; texts without tokens do not count.
            vocabulary: the size of the tokenizer's vocabulary.
        """
        occurs = _occurrences(token_ids, padding_mask, vocabulary)
        texts = int(padding_mask.any(axis=1).sum())
        frequency = np.asarray(occurs.sum(axis=0)).ravel()
        tokens = np.flatnonzero((frequency > 0) & (frequency < max(texts, 2)))
        tokens = np.sort(tokens[np.argsort(-frequency[tokens], kind="stable")][:MOST_WORDS])
        if not len(tokens):
            tokens = np.array([0])  # a column that no text fills
        column_of = np.zeros(vocabulary, np.int32)
        column_of[tokens] = np.arange(1, len(tokens) + 1)
        return cls(column_of, (np.log((1 + texts) / (1 + frequency[tokens])) + 1).astype("float32"))

    def bags(self, token_ids: np.ndarray, padding_mask: np.ndarray) -> csr_array:
        """The weighted bags of texts, float32 [N, columns]: rows of length 1, or zeros where no known token occurs."""
        columns = np.where(padding_mask, self.column_of[token_ids], 0)
        bags = _occurrences(columns, columns > 0, len(self.rarity) + 1)[:, 1:] * self.rarity[None, :]
        lengths = np.sqrt(np.asarray(bags.multiply(bags).sum(axis=1)).ravel())
        rows = np.repeat(np.arange(len(token_ids)), np.diff(bags.tocsr().indptr))
        bags = bags.tocsr().astype("float32")
        bags.data /= np.maximum(lengths, 1e-12)[rows].astype("float32")
        return bags


def unit_rows(values: np.ndarray) -> np.ndarray:
    """float [N, D] -> float32 [N, D], each row scaled to a length of 1; zeros stay zeros."""
    return (values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)).astype("float32")


def _occurrences(ids: np.ndarray, counted: np.ndarray, width: int) -> csr_array:
    """[N, width]: 1 where a row has an id that is counted, else 0."""
    rows, places = np.nonzero(counted)
    occurs = csr_array((np.ones(len(rows), np.float32), (rows, ids[rows, places])), shape=(len(ids), width))
    occurs.sum_duplicates()
    occurs.data[:] = 1
    return occurs
