"""Makes tags of class texts: the words that distinguish a class from the others (the ImageD dataset, section 4).

    {"/m/dog": "The dog is a domesticated wolf.", "/m/cat": "The cat is a small domesticated carnivore."}
    -> {"/m/dog": ["dog", "wolf"], "/m/cat": ["carnivore", "cat", "small"]}      (a word may occur in half of the texts)

A text is lower-cased and split into NLTK's word tokens, of which only those that consist of letters are kept. Tags are the
words that occur in at most a fraction P of the texts. ImageD takes 0.2 %, which means words that occur in one of its 601 texts.
An image has the tags of all its classes.

ImageD reports 10,718 tags. This module makes 10,717 of the published definitions. The missing tag is "nan": the definition of
Ladder is empty, and pandas reads it as the number NaN.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable

MAX_DOCUMENT_FREQUENCY = 0.002
_SENTENCE_END = re.compile(r"(?<=[a-z]{2})\.(?=\s+[A-Z])")  # NLTK's own sentence splitter needs a download


def class_tags(
    texts: dict[str, str], max_document_frequency: float = MAX_DOCUMENT_FREQUENCY, any_alphabet: bool = False
) -> dict[str, list[str]]:
    """The tags of each class, sorted.

    Args:
        texts: maps each class to its text. An empty text counts as a text, too.
        max_document_frequency: the largest fraction of the texts that a tag may occur in, 0–1.
        any_alphabet: whether words may have letters other than a–z, for texts that are not English.

    Raises:
        ValueError: for a fraction outside 0–1, or one so small that no word can be a tag.
        RuntimeError: if NLTK is not installed.
    """
    if not 0 <= max_document_frequency <= 1:
        raise ValueError(f"max_document_frequency must be within 0–1. Received: {max_document_frequency}")
    most = math.floor(max_document_frequency * len(texts) + 1e-9)
    if texts and most < 1:
        raise ValueError(
            f"every word of {len(texts)} texts occurs in more than {max_document_frequency:.2%} of them; "
            f"choose a max_document_frequency of at least {1 / len(texts):.4f}"
        )
    tokenize = word_tokenizer()
    words = {
        name: {token for token in tokenize(text) if token.isalpha() and (any_alphabet or token.isascii())}
        for name, text in texts.items()
    }
    counts = Counter(word for class_words in words.values() for word in class_words)
    return {name: sorted(word for word in class_words if counts[word] <= most) for name, class_words in words.items()}


def word_tokenizer() -> Callable[[str], list[str]]:
    """Returns a function that splits a text into word tokens in lower case; a full stop at the end of a sentence is a token.

    Raises:
        RuntimeError: if NLTK is not installed.
    """
    try:
        from nltk.tokenize import TreebankWordTokenizer
    except ImportError as error:
        raise RuntimeError("tags need NLTK's word tokenizer: pip install nltk") from error
    tokenizer = TreebankWordTokenizer()
    return lambda text: tokenizer.tokenize(_SENTENCE_END.sub(" .", text).lower())
