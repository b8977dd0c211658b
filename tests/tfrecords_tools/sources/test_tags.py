import builtins

import pytest

from tfrecords_tools.sources.tags import class_tags, word_tokenizer

HALF = {"max_document_frequency": 0.5}


def test_tags_are_the_words_that_few_texts_have():
    pytest.importorskip("nltk")
    texts = {"/m/dog": "The dog is a domesticated wolf.", "/m/cat": "The cat is a small domesticated carnivore."}
    assert class_tags(texts, **HALF) == {"/m/dog": ["dog", "wolf"], "/m/cat": ["carnivore", "cat", "small"]}


def test_word_counts_once_a_text():
    pytest.importorskip("nltk")
    assert class_tags({"a": "dog dog dog", "b": "cat dog", "c": "x", "d": ""}, **HALF)["a"] == ["dog"]


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("Dogs, CATS; (mice)", ["cats", "dogs", "mice"]),
        ("state-of-the-art mp3 1990s it's", ["it"]),
        ("At the lake. The end.", ["at", "end", "lake", "the"]),
        ("U.S. forces vs. others", ["forces", "others"]),
        ("chamamé cafe Ζεύς", ["cafe"]),
        ("", []),
    ],
)
def test_words_are_lower_case_and_of_letters_alone(text, tags):
    pytest.importorskip("nltk")
    assert class_tags({"a": text, "b": ""}, **HALF)["a"] == tags


def test_other_alphabets_are_words_where_asked():
    pytest.importorskip("nltk")
    assert class_tags({"a": "chamamé Ζεύς", "b": ""}, any_alphabet=True, **HALF)["a"] == ["chamamé", "ζεύς"]


def test_imaged_keeps_what_one_of_601_texts_has():
    pytest.importorskip("nltk")
    texts = {str(i): "" for i in range(599)} | {"a": "dog cat", "b": "cat"}
    assert class_tags(texts)["a"] == ["dog"]
    assert class_tags(texts | {str(i): "" for i in range(599, 999)})["a"] == ["cat", "dog"]  # two of 1,001


@pytest.mark.parametrize("fraction", [-0.1, 1.1])
def test_frequency_outside_its_range_is_an_error(fraction):
    with pytest.raises(ValueError, match=rf"within 0–1\. Received: {fraction}"):
        class_tags({"a": "x"}, fraction)


def test_too_few_texts_for_the_frequency_are_an_error():
    with pytest.raises(ValueError, match=r"every word of 100 texts occurs in more than 0\.20% .* at least 0\.0100"):
        class_tags({str(i): "x" for i in range(100)})


def test_missing_nltk_is_an_error_that_names_the_command(monkeypatch):
    real = builtins.__import__

    def without_nltk(name, *rest):
        if name.startswith("nltk"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_nltk)
    with pytest.raises(RuntimeError, match="pip install nltk"):
        word_tokenizer()
