"""English captions become words of a vocabulary, in steps that a TensorFlow graph can repeat. This needs no TensorFlow.

    A man's riding TWO horses, isn't he?
    tokens         A  man's  riding  TWO  horses  isn't  he     letters, marks, digits; an apostrophe inside belongs to the word
    lower case     a  man's  riding  two  horses  isn't  he
    punctuation    a  man    riding  two  horses  isnt   he     without it: also "," and "?", and apostrophes stay
    stop words        man    riding       horses  isnt          by sklearn's list; NLTK's also drops "isn't", and keeps "two"
    stems             man    ride         hors    isnt

The result for a token does not depend on its neighbours, so that a table from tokens to ids, the `CaptionVocabulary`, can stand
for all steps after the first two. No step depends on what is installed, unless an option names it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, get_args

from mm_keras.scripts import is_spaceless
from tfrecords_tools.dataset.atomic_file import write_text

PADDING, UNKNOWN = "[PAD]", "[UNK]"
StopWords = Literal["nltk", "none", "sklearn"]
Reduction = Literal["lemma", "none", "stem"]
_ENDINGS = ("", "d", "e", "ed", "es", "ing", "s", "'s")  # "e", since a stem may have lost it


@dataclasses.dataclass(frozen=True)
class CaptionWords:
    """The steps from a text to its words; each of them can be switched off.

    Attributes:
        lowercase: "Two" -> "two".
        strip_punctuation: leave punctuation and symbols out, and of words the possessive ("man's" -> "man") and other
            apostrophes ("o'clock" -> "oclock"). False: every mark is a token, and words keep their apostrophes.
        stop_words: the list of words that are dropped. "sklearn": scikit-learn's 318, with "two", "front" and "fire".
            "nltk": NLTK's own, which has pronouns, auxiliaries, prepositions and contractions alone, but is a download
            (python -m nltk.downloader stopwords). "none": nothing is dropped.
        reduction: "stem": NLTK's Snowball stemmer. "lemma": the noun in WordNet that the word is a form of ("men" -> "man";
            verbs stay), also a download (python -m nltk.downloader wordnet). "none": words stay.
        by_character: whether texts in scripts without spaces are split by character, see `mm_keras.scripts`. Runs of older
            versions do not.

    Raises:
        ValueError: for an unknown list or reduction, or for stems that are to keep their capitals.
    """

    lowercase: bool = True
    strip_punctuation: bool = True
    stop_words: StopWords = "sklearn"
    reduction: Reduction = "stem"
    by_character: bool = True

    def __post_init__(self):
        if self.stop_words not in get_args(StopWords):
            raise ValueError(f"stop_words is one of {', '.join(get_args(StopWords))}. Received: {self.stop_words!r}")
        if self.reduction not in get_args(Reduction):
            raise ValueError(f"reduction is one of {', '.join(get_args(Reduction))}. Received: {self.reduction!r}")
        if self.reduction == "stem" and not self.lowercase:
            raise ValueError("the Snowball stemmer gives lower case; lowercase=False needs reduction='lemma' or 'none'")

    def words(self, text: str) -> list[str]:
        """The words of a text.

        Raises:
            FileNotFoundError: if NLTK's stop words or WordNet are asked for and not installed.
        """
        return [word for word in map(self.word_of, self.tokens(text)) if word]

    def tokens(self, text: str) -> list[str]:
        """The tokens of a text, in lower case if `lowercase` is set."""
        tokens = _tokenizer(self.token_pattern()).tokenize(text.replace("’", "'"))
        return [token.lower() for token in tokens] if self.lowercase else tokens

    def token_pattern(self) -> str:
        """What a token is, after "’" became "'": a regular expression that means the same to Python and to RE2.

        Both know classes of letters, but of different Unicode versions; so this one spells them out.
        """
        letters = _characters("LMN", self.by_character)
        word = f"[{letters}]+(?:'[{letters}]+)*"
        if self.by_character:
            word += f"|[{_characters('LN', False, True)}][{_characters('M')}]*"
        return word if self.strip_punctuation else f"{word}|[{_characters('PS')}]"

    def word_of(self, token: str) -> str:
        """The word that a token becomes; "" if it is dropped. It raises what `words` raises."""
        word = token
        if self.strip_punctuation:
            word = re.sub("'[sS]$", "", word).replace("'", "")
        stop_words = load_stop_words(self.stop_words)
        if token.lower() in stop_words or word.lower() in stop_words:
            return ""
        return _reduce(self.reduction)(word)


@dataclasses.dataclass(frozen=True)
class CaptionVocabulary:
    """The ids of words, and the tokens that become each word.

    Attributes:
        steps: how tokens became words.
        words: the word of each id: padding, unknown, then the most frequent first.
        tokens: the tokens that become the word of each id; those of id 0 are dropped. A token that is not listed is unknown,
            even if its stem is known, since a graph has no stemmer. Listed are all tokens of the texts, all stop words, and
            what regular endings make of tokens and words ("umbrella" -> "umbrellas", "umbrella's"), each put through the
            same steps.
    """

    steps: CaptionWords
    words: tuple[str, ...]
    tokens: tuple[tuple[str, ...], ...]

    def ids(self, text: str) -> list[int]:
        """The ids of the words of a text, each at least 1; the TensorFlow graph gives the same."""
        ids = (self._id_of.get(token, 1) for token in self.steps.tokens(text))
        return [index for index in ids if index]

    @functools.cached_property
    def _id_of(self) -> dict[str, int]:
        return {token: index for index, tokens in enumerate(self.tokens) for token in tokens}

    def save(self, path: str | Path) -> None:
        """Writes a JSON file."""
        write_text(path, json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> CaptionVocabulary:
        """Reads what `save` wrote.

        Raises:
            ValueError: if the file is something else.
        """
        try:
            content = json.loads(Path(path).read_text("utf-8"))
            steps = CaptionWords(**{"by_character": False} | content["steps"])
            return cls(steps, tuple(content["words"]), tuple(map(tuple, content["tokens"])))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no vocabulary of captions: {type(error).__name__}: {error}") from error


def build_vocabulary(
    texts: Iterable[str], steps: CaptionWords = CaptionWords(), min_count: int = 2, max_words: int = 20_000
) -> CaptionVocabulary:
    """Collects the words of texts, most frequent first.

    Args:
        texts: the texts of the training split, and of no other.
        steps: what to make of them.
        min_count: rarer words are left out; they could not be learned.
        max_words: size of the vocabulary at most, with padding (id 0) and unknown (id 1).

    Raises:
        FileNotFoundError: if NLTK's stop words or WordNet are asked for and not installed.
    """
    token_counts = Counter(token for text in texts for token in steps.tokens(text))
    word_of = {token: steps.word_of(token) for token in token_counts}
    counts: Counter[str] = Counter()
    for token, count in token_counts.items():
        counts[word_of[token]] += count
    frequent = [word for word, count in counts.items() if word and count >= min_count]
    frequent = sorted(frequent, key=lambda word: (-counts[word], word))[: max_words - 2]
    id_of = {"": 0} | {word: index for index, word in enumerate(frequent, start=2)}
    stop_words = load_stop_words(steps.stop_words)
    starts = token_counts.keys() | stop_words | set(frequent)
    unseen = {start + ending for start in starts for ending in _ENDINGS} - token_counts.keys()
    word_of |= {token: steps.word_of(token) for token in unseen}
    tokens: list[list[str]] = [[] for _ in range(2 + len(frequent))]
    for token in sorted(word_of):
        if word_of[token] in id_of:
            tokens[id_of[word_of[token]]].append(token)
    return CaptionVocabulary(steps, (PADDING, UNKNOWN, *frequent), tuple(map(tuple, tokens)))


@functools.cache
def _tokenizer(pattern: str):
    from nltk.tokenize import RegexpTokenizer

    return RegexpTokenizer(pattern)


@functools.cache
def load_stop_words(name: str) -> frozenset[str]:
    """The stop words of a list, see `CaptionWords`; raises what its `words` raises."""
    if name == "sklearn":
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        return ENGLISH_STOP_WORDS
    if name == "nltk":
        from nltk.corpus import stopwords

        alternative = "stop_words='sklearn', whose list comes with scikit-learn, or stop_words='none'"
        return frozenset(_from_nltk("stopwords", lambda: stopwords.words("english"), alternative))
    return frozenset()


@functools.cache
def _reduce(name: str) -> Callable[[str], str]:
    """The function that reduces a word."""
    if name == "stem":
        from nltk.stem.snowball import SnowballStemmer

        return SnowballStemmer("english").stem
    if name == "lemma":
        from nltk.stem.wordnet import WordNetLemmatizer

        lemmatize = WordNetLemmatizer().lemmatize
        _from_nltk("wordnet", lambda: lemmatize("dogs"), "reduction='stem', which needs no data, or reduction='none'")
        return lemmatize
    return lambda word: word


def _from_nltk(package: str, read: Callable, alternative: str):
    try:
        return read()
    except LookupError:
        pass
    # Not chained: NLTK's own message fills a page.
    raise FileNotFoundError(
        f"NLTK's {package!r} data is not installed: run `python -m nltk.downloader {package}`, or use {alternative}"
    )


@functools.cache
def _characters(categories: str, with_spaces: bool = False, spaceless: bool = False) -> str:
    """The inside of a character class with characters of Unicode's general categories (their first letters).

    Args:
        categories: first letters of categories.
        with_spaces: leave out the letters of scripts that are written without spaces.
        spaceless: leave out all other characters.
    """
    codes = [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] in categories]
    if with_spaces or spaceless:
        marks = {code for code in codes if unicodedata.category(chr(code))[0] == "M"}
        codes = [code for code in codes if (is_spaceless(chr(code)) and code not in marks) == spaceless]
    first = [code for code, before in zip(codes, [-1, *codes], strict=False) if code != before + 1]
    last = [code for code, after in zip(codes, [*codes[1:], -1], strict=True) if code != after - 1]
    return "".join(f"{re.escape(chr(a))}-{re.escape(chr(b))}" for a, b in zip(first, last, strict=True))
