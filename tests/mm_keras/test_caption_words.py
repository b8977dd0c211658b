import json
import subprocess
import sys

import pytest

from mm_keras.caption_words import CaptionVocabulary, CaptionWords, build_vocabulary, load_stop_words

TEXT = "A man's riding TWO horses, isn't he?"

# Asks in a process where NLTK finds what lies in a folder and nothing else.
ASK = """
import json, sys
import nltk
from mm_keras.caption_words import CaptionWords
nltk.data.path[:] = [sys.argv[1]]
answers = []
for steps in json.loads(sys.argv[2]):
    try:
        answers.append(CaptionWords(**steps).words(sys.argv[3]))
    except FileNotFoundError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


def _ask(folder, text, *steps):
    command = [sys.executable, "-c", ASK, str(folder), json.dumps(steps), text]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.fixture
def write(tmp_path):
    """A function: (path in tmp_path, text) -> the path of the file with that text."""

    def to_file(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    return to_file


def test_steps_lead_from_a_caption_to_stems():
    assert CaptionWords().words(TEXT) == ["man", "ride", "hors", "isnt"]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ({}, ["man", "ride", "hors", "isnt"]),
        ({"reduction": "none"}, ["man", "riding", "horses", "isnt"]),
        ({"stop_words": "none"}, ["a", "man", "ride", "two", "hors", "isnt", "he"]),
        ({"lowercase": False, "reduction": "none"}, ["man", "riding", "horses", "isnt"]),
        (
            {"lowercase": False, "reduction": "none", "stop_words": "none"},
            ["A", "man", "riding", "TWO", "horses", "isnt", "he"],
        ),
        ({"strip_punctuation": False}, ["man", "ride", "hors", ",", "isn't", "?"]),
        ({"strip_punctuation": False, "reduction": "none"}, ["man's", "riding", "horses", ",", "isn't", "?"]),
    ],
)
def test_every_step_can_be_switched(steps, words):
    assert CaptionWords(**steps).words(TEXT) == words


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" …!? ", []),
        ("don't DON’T 'quoted' dogs' o'clock 'tis", ["don't", "don't", "quoted", "dogs", "o'clock", "tis"]),
        ("well-dressed, red/white_blue 3.5m", ["well", "dressed", "red", "white", "blue", "3", "5m"]),
        ("L'ÉTÉ à Sète, नमस्ते 茶", ["l'été", "à", "sète", "नमस्ते", "茶"]),
        ("tab\tline\nnul\0space\u00a0zero\u200bend", ["tab", "line", "nul", "space", "zero", "end"]),
    ],
)
def test_tokens_are_words_with_their_inner_apostrophes(text, tokens):
    assert CaptionWords().tokens(text) == tokens


def test_marks_are_tokens_of_their_own_where_they_are_kept():
    assert CaptionWords(strip_punctuation=False).tokens("Dogs' [tail]^ -- $5!") == [
        *("dogs", "'", "[", "tail", "]", "^", "-", "-", "$", "5", "!"),
    ]


def test_stop_words_are_known_with_and_without_their_apostrophes():
    assert CaptionWords().words("He's there, it’s hers; someone's cat can't") == ["cat"]


def test_stop_lists_do_not_depend_on_what_is_installed():
    assert len(load_stop_words("sklearn")) == 318
    assert load_stop_words("none") == frozenset()


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"stop_words": "english"}, "stop_words is one of nltk, none, sklearn. Received: 'english'"),
        ({"reduction": "porter"}, "reduction is one of lemma, none, stem. Received: 'porter'"),
        ({"lowercase": False}, "lowercase=False needs reduction='lemma' or 'none'"),
    ],
)
def test_steps_that_cannot_be_are_errors(steps, message):
    with pytest.raises(ValueError, match=message):
        CaptionWords(**steps)


def test_missing_nltk_data_is_an_error_that_names_the_download_and_the_alternative(tmp_path):
    no_list, no_wordnet, offline = _ask(tmp_path, "two men", {"stop_words": "nltk"}, {"reduction": "lemma"}, {})
    assert "run `python -m nltk.downloader stopwords`, or use stop_words='sklearn'" in no_list
    assert "run `python -m nltk.downloader wordnet`, or use reduction='stem'" in no_wordnet
    assert offline == ["men"]


def test_installed_nltk_data_is_used(tmp_path, write):
    """On a WordNet and a list of a few words, in NLTK's formats."""
    write("corpora/stopwords/english", "the\nisn't\n")
    write("corpora/wordnet/lexnames", "00\tadj.all\t3\n")
    for part in ("adj", "adv", "noun", "verb"):
        write(f"corpora/wordnet/index.{part}", "  1 licence\n")
        write(f"corpora/wordnet/data.{part}", "  1 This software and database WordNet 3.0\n")
        write(f"corpora/wordnet/{part}.exc", "")
    write("corpora/wordnet/index.noun", "  1 licence\nhorse n 1 1 @ 1 1 02374451  \nman n 1 1 @ 1 1 10287213  \n")
    write("corpora/wordnet/index.sense", "horse%1:05:00:: 02374451 1 10\n")
    write("corpora/wordnet/noun.exc", "men man\n")
    steps = {"stop_words": "nltk", "reduction": "lemma"}
    assert _ask(tmp_path, "The men’s two horses isn't riding", steps) == [["man", "two", "horse", "riding"]]


TEXTS = ["Two dogs.", "A dog runs", "the dog's bowl; bowls!", "running bowls", "one cat"]


def test_vocabulary_is_ordered_by_frequency_and_then_by_name():
    vocabulary = build_vocabulary(TEXTS)
    assert vocabulary.words == ("[PAD]", "[UNK]", "bowl", "dog", "run")
    assert build_vocabulary(TEXTS, min_count=1).words == (*vocabulary.words, "cat")
    assert build_vocabulary(TEXTS, max_words=4).words == ("[PAD]", "[UNK]", "bowl", "dog")


def test_ids_are_those_of_stems_and_dropped_words_leave_no_gap():
    vocabulary = build_vocabulary(TEXTS)
    assert vocabulary.ids("The dogs' bowl, and a CAT; dog’s running.") == [3, 2, 1, 3, 4]
    assert vocabulary.ids("of the") == vocabulary.ids("") == []


def test_unseen_word_is_unknown_unless_it_is_a_regular_form_of_a_known_one():
    vocabulary = build_vocabulary(["he rides", "riding photograph", "a photograph"])
    assert vocabulary.words[2:] == ("photograph", "ride")
    assert vocabulary.ids("photographs photograph's ride ridings") == [2, 2, 3, 3]
    # Its stem is known, but the table does not have it, and a graph has no stemmer.
    assert vocabulary.steps.words("photographic") == ["photograph"]
    assert vocabulary.ids("photographic zebra") == [1, 1]


def test_every_token_of_the_table_is_what_the_steps_make_of_it():
    vocabulary = build_vocabulary(TEXTS)
    for word, tokens in zip(("", None, *vocabulary.words[2:]), vocabulary.tokens, strict=True):
        assert {vocabulary.steps.word_of(token) for token in tokens} <= {word}
    assert load_stop_words("sklearn") <= set(vocabulary.tokens[0])
    assert vocabulary.tokens[1] == ()


def test_texts_without_words_make_an_empty_vocabulary():
    vocabulary = build_vocabulary(["", "the"], CaptionWords(stop_words="none"), min_count=2)
    assert vocabulary.words == ("[PAD]", "[UNK]")
    assert vocabulary.ids("the mug") == [1, 1]


@pytest.mark.parametrize(
    "steps", [{}, {"strip_punctuation": False, "lowercase": False, "reduction": "none", "stop_words": "none"}]
)
def test_saved_vocabulary_loads_as_it_was(tmp_path, steps):
    vocabulary = build_vocabulary([*TEXTS, 'größe "茶"', '"Größe" 茶 größe'], CaptionWords(**steps))
    vocabulary.save(tmp_path / "vocabulary.json")
    loaded = CaptionVocabulary.load(tmp_path / "vocabulary.json")
    assert loaded == vocabulary
    assert hash(loaded) == hash(vocabulary)
    assert loaded.ids(TEXTS[2]) == vocabulary.ids(TEXTS[2])


@pytest.mark.parametrize("content", ["", "[]", '{"words": []}', '{"steps": {"x": 1}, "words": [], "tokens": []}'])
def test_other_file_is_an_error_that_names_it(write, content):
    with pytest.raises(ValueError, match=r"other\.json is no vocabulary of captions"):
        CaptionVocabulary.load(write("other.json", content))
