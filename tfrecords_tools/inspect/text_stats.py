"""What the texts of one field say: how long, which words, and how often they tell the label, repeat, or contradict."""

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
STOP_WORDS = frozenset(_STOP_WORDS.split())  # short on purpose: longer lists drop words that tell much ("fire", "system")
_MAX_WORDS = 1_000_000


class _Separators(dict):
    """For `str.translate`: everything but letters, their marks and digits becomes a space, in any alphabet."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = character if unicodedata.category(character)[0] in "LMN" else " "
        return self[code]


_SEPARATORS = _Separators()


def words_of(text: str) -> str:
    """Lower-case words of letters and digits, a space apart: `"Wool-scarf (NEW)"` -> `"wool scarf new"`."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().translate(_SEPARATORS).split())


class TextStats:
    """Counts of one text field over the examples that have a text there; 12 bytes for each of these stay in memory.

    Attributes:
        examples: how many these are.
        lengths: number of texts, by their words (what white space separates).
    """

    SHARES = ("label_in_text", "repeated_texts", "conflicting_texts")

    def __init__(self):
        self.examples = 0
        self.lengths: Counter = Counter()
        self._telling = 0
        self._words: Counter = Counter()
        self._texts, self._labels = array("Q"), array("I")  # hashes, an example each

    def add(self, texts: Sequence[str], label_ids: tuple[int, ...], label_words: list[str]) -> None:
        """Counts an example's texts; `label_words` are `words_of` all label names."""
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
        """The most frequent words and their counts, equal counts by the alphabet; English stop words are left out."""
        words = ((word, count) for word, count in self._words.items() if word not in STOP_WORDS)
        return dict(sorted(words, key=lambda pair: (-pair[1], pair[0]))[:number])

    def shares(self) -> dict[str, float]:
        """Shares of the examples, by the names of `SHARES`.

        Of those in whose texts the name of one of their labels stands (a leak, where it would not be known when the model is
        used); of those whose texts, all of the field, another example has too; of those that share them with other labels.
        """
        repeated, conflicting = self._shared()
        counts = (self._telling, repeated, conflicting)
        return {name: count / max(self.examples, 1) for name, count in zip(self.SHARES, counts, strict=True)}

    def _shared(self) -> tuple[int, int]:
        if not self.examples:
            return 0, 0
        texts, labels = np.frombuffer(self._texts, np.uint64), np.frombuffer(self._labels, np.uint32)
        order = np.lexsort((labels, texts))
        texts, labels = texts[order], labels[order]
        starts = np.flatnonzero(np.append(True, texts[1:] != texts[:-1]))
        ends = np.append(starts[1:], len(texts))
        sizes = ends - starts
        return int(sizes[sizes > 1].sum()), int(sizes[labels[starts] != labels[ends - 1]].sum())
