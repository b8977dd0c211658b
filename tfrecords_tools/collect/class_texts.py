"""Checks texts that are meant to describe classes: collected ones are often empty, repeated, or of another thing.

A text that never mentions its class is most likely the wrong article. Automatic spelling suggestions of encyclopaedias do
that: "Banana" -> the article on Canada, "Boat" -> Cat.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

_WORD = re.compile(r"[^\W\d_]+")


class TextProblem(NamedTuple):
    """One suspicious class text; `kind` is "empty", "duplicate" or "no_mention"."""

    label: str
    kind: str
    detail: str


def check_class_texts(
    texts: Mapping[str, str], names: Mapping[str, str] | None = None, language: str = "english"
) -> list[TextProblem]:
    """Finds empty texts, texts that several classes share, and texts that never mention their class.

    A text mentions its class where a word of the class's name, reduced to its stem, is one of its words, or where the name
    stands in it when everything but letters is left out ("hot dog" in "hotdog").

    Args:
        texts: the text of each label, by label.
        names: the name of each class by label, where labels are ids (`/m/09qck`, `n01440764`); the default is the labels.
        language: the language of the Snowball stemmer. For a language that NLTK does not have, whole words are compared.

    Returns:
        the problems, by label.
    """
    stem = _make_stemmer(language)
    sharing: dict[str, list[str]] = defaultdict(list)
    for label, text in texts.items():
        sharing[" ".join(text.split())].append(label)
    problems = []
    for label, text in texts.items():
        name = (names or {}).get(label, label)
        others = [other for other in sharing[" ".join(text.split())] if other != label]
        if not text.strip():
            problems.append(TextProblem(label, "empty", f"{name}: no text"))
            continue
        if others:
            shared = ", ".join((names or {}).get(other, other) for other in others[:3])
            problems.append(TextProblem(label, "duplicate", f"{name}: the same text as {shared}"))
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
