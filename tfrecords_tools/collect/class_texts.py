"""Checks texts that describe classes, since collected texts are often empty, repeated, or about something else.

A text that never mentions its class is most likely the wrong article. Spelling suggestions of encyclopaedias lead to such
articles: "Banana" to the article about Canada, "Boat" to that about cats.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

_WORD = re.compile(r"[^\W\d_]+")


class TextProblem(NamedTuple):
    """A suspicious text of a class. `kind` is "empty", "duplicate" or "no_mention", and `detail` a sentence for people."""

    label: str
    kind: str
    detail: str


def check_class_texts(
    texts: Mapping[str, str], names: Mapping[str, str] | None = None, language: str = "english"
) -> list[TextProblem]:
    """Finds empty texts, texts that several classes share, and texts that never mention their class.

    A text mentions its class if the stem of a word of the class's name is the stem of one of its words. It also does if it
    contains the name when everything except letters is left out, as "hotdog" contains "hot dog".

    Args:
        texts: maps labels to texts.
        names: maps labels to the names of the classes, where labels are ids (`/m/09qck`, `n01440764`). By default the labels
            are the names.
        language: the language of the texts. Where NLTK has no Snowball stemmer for it, whole words are compared.

    Returns:
        the problems, sorted by label.

    Example:
        >>> check_class_texts({"Boat": "The cat is a domestic species."})
        [TextProblem(label='Boat', kind='no_mention', detail="Boat: never mentioned in 'The cat is a domestic species.'")]
    """
    stem = _make_stemmer(language)
    labels_by_text: dict[str, list[str]] = defaultdict(list)
    for label, text in texts.items():
        labels_by_text[" ".join(text.split())].append(label)
    problems = []
    for label, text in texts.items():
        name = (names or {}).get(label, label)
        other_labels = [other for other in labels_by_text[" ".join(text.split())] if other != label]
        if not text.strip():
            problems.append(TextProblem(label, "empty", f"{name}: no text"))
            continue
        if other_labels:
            other_names = ", ".join((names or {}).get(other, other) for other in other_labels[:3])
            problems.append(TextProblem(label, "duplicate", f"{name}: the same text as {other_names}"))
        if not _mentions(text, name, stem):
            problems.append(TextProblem(label, "no_mention", f"{name}: never mentioned in {' '.join(text.split())[:60]!r}"))
    return sorted(problems)


def _mentions(text: str, name: str, stem) -> bool:
    words = {stem(word) for word in _WORD.findall(text.lower())}
    if any(stem(word) in words for word in _WORD.findall(name.lower())):
        return True
    letters = "".join(_WORD.findall(name.lower()))
    return len(letters) > 3 and letters in "".join(_WORD.findall(text.lower()))


def _make_stemmer(language: str):
    from nltk.stem import SnowballStemmer

    return SnowballStemmer(language).stem if language in SnowballStemmer.languages else str
