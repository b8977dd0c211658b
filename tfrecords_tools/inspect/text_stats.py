"""Statistics of the texts of one field: their lengths and words, and how often they name the label or repeat."""

from __future__ import annotations

import unicodedata
import zlib
from array import array
from collections import Counter
from collections.abc import Sequence

import numpy as np

from tfrecords_tools.dataset.splits import hash_id

_STOP_WORDS = (
    "a about an and are as at be but by can for from has have he her his i if in into is it its my no not of off on or our s "
    "she so t that the their them there these they this to up us was we were what when which while who will with you your"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())  # short on purpose: longer lists drop words with a meaning ("fire", "system")
_MAX_WORDS = 1_000_000


class _Separators(dict):
    """A table for `str.translate` that turns everything except letters, their marks and digits of any alphabet into spaces."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = character if unicodedata.category(character)[0] in "LMN" else " "
        return self[code]


_SEPARATORS = _Separators()


def words_of(text: str) -> str:
    """The words of a text in lower case, separated by spaces: `"Wool-scarf (NEW)"` -> `"wool scarf new"`.

    Words consist of letters and digits of any alphabet.
    """
    return " ".join(unicodedata.normalize("NFKC", text).lower().translate(_SEPARATORS).split())


class TextStats:
    """Counts the texts of one field over the examples that have a text there. Memory holds 12 bytes for each such example.

    Attributes:
        examples: the number of these examples.
        lengths: the number of texts by their length in words, which white space separates.
    """

    SHARES = ("label_in_text", "repeated_texts", "conflicting_texts")

    def __init__(self):
        self.examples = 0
        self.lengths: Counter = Counter()
        self._telling = 0
        self._words: Counter = Counter()
        self._texts, self._labels = array("Q"), array("I")  # a hash of the texts and of the labels of each example

    def add(self, texts: Sequence[str], label_ids: tuple[int, ...], label_words: list[str]) -> None:
        """Counts the texts of an example. `label_words` are the words (`words_of`) of all label names, by label id."""
        self.examples += 1
        self.lengths.update(len(text.split()) for text in texts)
        words = " ".join(map(words_of, texts))
        self._telling += any(label_words[index] and f" {label_words[index]} " in f" {words} " for index in label_ids)
        self._texts.append(hash_id("\n".join(texts), "texts", 0))
        self._labels.append(zlib.crc32(repr(label_ids).encode()))
        self._words.update(words.split())
        if len(self._words) > _MAX_WORDS:  # a word that is frequent all along keeps its exact count
            self._words = Counter(dict(self._words.most_common(_MAX_WORDS // 2)))

    def frequent_words(self, number: int) -> dict[str, int]:
        """The most frequent words with their counts; words of equal count are sorted. English stop words are left out."""
        words = ((word, count) for word, count in self._words.items() if word not in STOP_WORDS)
        return dict(sorted(words, key=lambda pair: (-pair[1], pair[0]))[:number])

    def shares(self) -> dict[str, float]:
        """Fractions of the counted examples, by the names of `SHARES`.

        - `label_in_text`: the texts contain the name of a label of the example. That is a leak if the texts would not contain
          it where the model is used.
        - `repeated_texts`: another example has exactly the same texts in this field.
        - `conflicting_texts`: examples with the same texts have different labels.
        """
        repeated, conflicting = self._shared()
        counts = (self._telling, repeated, conflicting)
        return {name: count / max(self.examples, 1) for name, count in zip(self.SHARES, counts, strict=True)}

    def _shared(self) -> tuple[int, int]:
        """The numbers of examples that share their texts with another example, and with one of other labels."""
        if not self.examples:
            return 0, 0
        texts, labels = np.frombuffer(self._texts, np.uint64), np.frombuffer(self._labels, np.uint32)
        order = np.lexsort((labels, texts))
        texts, labels = texts[order], labels[order]
        starts = np.flatnonzero(np.append(True, texts[1:] != texts[:-1]))
        ends = np.append(starts[1:], len(texts))
        sizes = ends - starts
        return int(sizes[sizes > 1].sum()), int(sizes[labels[starts] != labels[ends - 1]].sum())
