import functools
import random
import re
import sys
import unicodedata

import numpy as np
import pytest
import tensorflow as tf

from mm_keras.caption_words import CaptionWords
from mm_keras.data.text import (
    make_caption_tokenizer,
    make_pretrained_tokenizer,
    make_tokenizer,
    make_word_tokenizer,
    split_words,
    strip_texts,
    tell_of_unknown,
)
from mm_keras.features import TokenizerSpec

WORDS = TokenizerSpec("words", ("[PAD]", "[UNK]", "mug", "blue", "größe", "茶"))
CAPTIONS = [["Two dogs and a man’s bowl".encode(), b"the MAN's Dog; a dog"], ["bowls! 'Größe' größe of 茶 – 茶".encode()]]


@pytest.fixture(scope="module")
def pieces(tiny_bert):
    """The tiny BERT's tokenizer, and a function that gives the tokens of a text back."""
    spec = make_pretrained_tokenizer([], tiny_bert)
    tokenizer = make_tokenizer(spec)

    def tokens(text, max_tokens=12):
        token_ids, mask = tokenizer(tf.constant([text]), max_tokens)
        return [spec.vocabulary[index] for index in token_ids[0].numpy()[mask[0].numpy()]]

    return spec, tokenizer, tokens


def test_words_become_their_ids():
    token_ids, mask = make_tokenizer(WORDS)(tf.constant(["Mug, BLUE!"]), 4)
    assert token_ids.dtype == tf.int32
    assert token_ids.numpy().tolist() == [[2, 3, 0, 0]]
    assert mask.numpy().tolist() == [[True, True, False, False]]


@pytest.mark.parametrize(
    ("text", "token_ids"),
    [
        ("GRÖSSE größe GRÖẞE", [1, 4, 4]),
        ("茶 teapot", [5, 1]),
        ("mug茶blue", [2, 5, 3]),
        ("mug-blue_mug\n\tmug", [2, 3, 2, 2]),
        ("mug mug mug mug mug", [2, 2, 2, 2]),
        ("n° 7", [1, 1]),
        ("", []),
        (" !?… ", []),
    ],
)
def test_words_of_any_script_are_lower_cased_and_cut_to_length(text, token_ids):
    found, mask = make_tokenizer(WORDS)(tf.constant([text]), 4)
    assert found.numpy()[mask.numpy()].tolist() == token_ids
    assert not found.numpy()[~mask.numpy()].any()


def test_bytes_that_are_no_utf8_are_no_error():
    token_ids, mask = make_tokenizer(WORDS)(tf.constant([b"mug \xff\xfe blue", b"mug"]), 6)
    assert token_ids.shape == (2, 6)
    assert mask[1].numpy().tolist() == [True, False, False, False, False, False]


def test_accents_are_part_of_a_word():
    assert split_words(tf.constant(["L'été à Sète, नमस्ते"])).to_list() == [
        [b"l", "été".encode(), "à".encode(), "sète".encode(), "नमस्ते".encode()]
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("陶瓷红色Mug马克杯 2个", "陶 瓷 红 色 mug 马 克 杯 2 个"),
        ("コーヒーカップ、青い", "コ ー ヒ ー カ ッ プ 青 い"),
        ("แก้วมัค ๑๒", "แ ก้ ว มั ค ๑๒"),
        ("ຈອກ កែវ ခွက်", "ຈ ອ ກ កែ វ ခွ က်"),
        ("파란 머그컵", "파란 머그컵"),
        ("𠮷野家", "𠮷 野 家"),
        ("Größe नमस्ते чашка", "größe नमस्ते чашка"),
    ],
    ids=["Chinese", "Japanese", "Thai", "Lao, Khmer, Burmese", "Korean", "beyond the first plane", "with spaces"],
)
def test_scripts_without_spaces_are_split_by_character(text, words):
    """In the graph as in Python, whose caption words are of the same tokens."""
    (found,) = split_words(tf.constant([text])).to_list()
    assert b" ".join(found).decode() == words
    assert CaptionWords().tokens(text) == words.split()


def test_tokenizers_of_older_runs_do_not_split_by_character(tmp_path):
    for kind in ("words", "captions"):
        made = (
            make_word_tokenizer([["红色".encode()] * 2]) if kind == "words" else make_caption_tokenizer([["红色".encode()] * 2])
        )
        assert made.vocabulary == ("[PAD]", "[UNK]", "红", "色") or set(made.vocabulary[2:]) == {"红", "色"}
        entry = made.save(tmp_path / kind)
        assert TokenizerSpec.load(tmp_path / kind, **entry) == made
        del entry["by_character"]
        assert not TokenizerSpec.load(tmp_path / kind, **entry).by_character
    path = tmp_path / "captions.json"
    path.write_text(re.sub(r',\s*"by_character": true', "", path.read_text("utf-8")), "utf-8")
    old = TokenizerSpec.load(tmp_path / "captions", **entry)
    assert old.captions.steps.tokens("红色 mug") == ["红色", "mug"]
    assert _ids(old, "红色 mug") == [1, 1]
    assert _ids(made, "红色 mug") == [2, 3, 1]


@pytest.mark.parametrize(
    ("texts", "told"),
    [(["red mug", "red lamp"], False), (["oak mug", "tin lamp"], True), ([], False), (["红色", "红杯"], False)],
)
def test_texts_that_a_tokenizer_hardly_knows_are_told(texts, told, capsys):
    batches = [[text.encode() for text in texts]] if texts else []
    tell_of_unknown(make_word_tokenizer(batches), batches)
    assert ("of the tokens in the training texts are unknown to the tokenizer (words" in capsys.readouterr().out) == told


def test_vocabulary_is_ordered_by_frequency_and_then_by_name():
    batches = [[b"oak oak mug", b"MUG pin"], [b"oak blue", b"blue, tin"]]
    assert make_word_tokenizer(batches).vocabulary == ("[PAD]", "[UNK]", "oak", "blue", "mug")
    assert make_word_tokenizer(batches, min_count=1).vocabulary == ("[PAD]", "[UNK]", "oak", "blue", "mug", "pin", "tin")
    assert make_word_tokenizer(batches, max_words=4).vocabulary == ("[PAD]", "[UNK]", "oak", "blue")


def test_vocabulary_of_no_text_knows_no_word():
    spec = make_word_tokenizer([])
    assert spec.vocabulary == ("[PAD]", "[UNK]")
    assert make_tokenizer(spec)(tf.constant(["mug"]), 3)[0].numpy().tolist() == [[1, 0, 0]]


def test_unknown_kind_is_an_error():
    with pytest.raises(
        ValueError,
        match=r"tokenizer kinds are \['byte_pair', 'captions', 'sentencepiece', 'wordpiece', 'words'\]. Received: 'letters'",
    ):
        make_tokenizer(TokenizerSpec("letters", ("a",)))


def test_pieces_stand_between_start_and_end(pieces):
    _, _, tokens = pieces
    assert tokens("Oak mugs, zoé") == ["[CLS]", "oak", "mug", "##s", ",", "z", "##o", "##e", "[SEP]"]


def test_long_text_loses_its_end_and_keeps_its_separator(pieces):
    _, _, tokens = pieces
    assert tokens("oak mug oak mug oak mug", 5) == ["[CLS]", "oak", "mug", "oak", "[SEP]"]
    assert tokens("oak mug oak", 5) == ["[CLS]", "oak", "mug", "oak", "[SEP]"]


def test_empty_text_has_no_token_at_all(pieces):
    _, tokenizer, tokens = pieces
    assert tokens("") == []
    token_ids, mask = tokenizer(tf.constant(["", "oak", ""]), 4)
    assert token_ids.numpy()[[0, 2]].tolist() == [[0] * 4] * 2
    assert mask.numpy().sum(axis=1).tolist() == [0, 3, 0]


def test_accents_are_stripped_and_letters_lower_cased(pieces):
    spec, _, tokens = pieces
    assert (spec.lowercase, spec.strip_accents) == (True, True)
    assert tokens("Café") == tokens("cafe") == ["[CLS]", "cafe", "[SEP]"]


def test_wordpiece_vocabulary_is_the_encoders(pieces, tiny_bert):
    spec, _, _ = pieces
    with open(f"{tiny_bert}/vocab.txt", encoding="utf-8") as file:
        assert list(spec.vocabulary) == file.read().split()
    assert spec.kind == "wordpiece"


@pytest.fixture(scope="module")
def captions():
    """Ids: 2 dog, 3 bowl, 4 größe, 5 man, 6 茶."""
    return make_caption_tokenizer(CAPTIONS)


def _ids(spec, text, max_tokens=8):
    """The ids of one text without the padding."""
    token_ids, mask = make_tokenizer(spec)(tf.constant([text]), max_tokens)
    assert not token_ids.numpy()[~mask.numpy()].any()
    return token_ids.numpy()[mask.numpy()].tolist()


def test_caption_words_become_the_ids_of_their_stems(captions):
    assert captions.vocabulary == ("[PAD]", "[UNK]", "dog", "bowl", "größe", "man", "茶")
    assert _ids(captions, "DOGS, the man’s two bowls; a “Größe” of zebras") == [2, 5, 3, 4, 1]
    assert _ids(captions, "dog's dogs' men's") == [2, 2, 1]


def test_dropped_words_leave_no_gap_and_take_no_place(captions):
    token_ids, mask = make_tokenizer(captions)(tf.constant(["the dog and the bowl of the man", "and the", ""]), 3)
    assert token_ids.dtype == tf.int32
    assert token_ids.numpy().tolist() == [[2, 3, 5], [0, 0, 0], [0, 0, 0]]
    assert mask.numpy().sum(axis=1).tolist() == [3, 0, 0]


def test_caption_steps_can_be_switched():
    kept = make_caption_tokenizer(CAPTIONS, strip_punctuation=False, stop_words="none", reduction="none")
    assert set(kept.vocabulary[2:]) == {"man's", "a", "dog", "'", "größe", "茶"}
    with pytest.raises(ValueError, match=r"reduction is one of lemma, none, stem\. Received: 'stems'"):
        make_caption_tokenizer(CAPTIONS, reduction="stems")


@pytest.mark.parametrize(
    "steps",
    [
        {},
        {"strip_punctuation": False},
        {"lowercase": False, "reduction": "none"},
        {"lowercase": False, "reduction": "none", "stop_words": "none", "strip_punctuation": False},
    ],
)
def test_graph_makes_the_ids_that_python_makes_of_any_text(steps):
    spec = make_caption_tokenizer(CAPTIONS, min_count=1, **steps)
    words = [token for tokens in spec.captions.tokens for token in tokens]
    # Characters of Unicode 3.2: later capitals may be unknown to one side.
    known = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.ucd_3_2_0.category(chr(code)) not in ("Cn", "Cs")]
    common = "aAsS'’'’ .,-!\n\t\0…\u200b\u0301ΣςİßⅣ²"
    rng = random.Random(0)
    kinds = (
        lambda: rng.choice(known),
        lambda: rng.choice(common),
        lambda: rng.choice(words),
        lambda: rng.choice(words).upper(),
    )
    texts = ["".join(rng.choices(kinds, (3, 4, 2, 1))[0]() for _ in range(rng.randrange(30))) for _ in range(5000)]
    token_ids, mask = make_tokenizer(spec)(tf.constant(texts), 120)
    found = [row[kept].tolist() for row, kept in zip(token_ids.numpy(), mask.numpy(), strict=True)]
    differing = [(text, ids) for text, ids in zip(texts, found, strict=True) if ids != spec.captions.ids(text)]
    assert differing == []
    assert len({index for ids in found for index in ids}) == len(spec.vocabulary) - 1


def test_bytes_that_are_no_utf8_part_captions(captions):
    assert _ids(captions, b"dog\xffbowl \xfe\xff man\xc3") == [2, 3, 5]


def test_captions_without_words_make_an_empty_vocabulary():
    spec = make_caption_tokenizer([], stop_words="none")
    assert spec.vocabulary == ("[PAD]", "[UNK]")
    assert _ids(spec, "the mug") == [1, 1]


@pytest.mark.parametrize("kind", ["words", "wordpiece", "captions"])
def test_pipeline_makes_the_same_ids_as_eager_calls(request, kind):
    spec = {"words": lambda: WORDS, "captions": lambda: make_caption_tokenizer(CAPTIONS)}.get(
        kind, lambda: request.getfixturevalue("pieces")[0]
    )()
    tokenizer = make_tokenizer(spec)
    texts = ["Mug, BLUE!", "", "größe 茶 oak, Café", "mug " * 20]
    dataset = tf.data.Dataset.from_tensor_slices(texts).batch(2, drop_remainder=True)
    dataset = dataset.map(functools.partial(tokenizer, max_tokens=6))
    assert [spec.shape for spec in dataset.element_spec] == [(2, 6), (2, 6)]
    for index, piped in enumerate(dataset):
        for found, expected in zip(piped, tokenizer(tf.constant(texts[2 * index : 2 * index + 2]), 6), strict=True):
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


def test_white_space_is_what_packing_takes_for_it():
    assert not any(chr(code).isspace() for code in range(0x10000, 0x110000))
    characters = [chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000]
    around = tf.constant(["".join((character, "a", character, "b", character)) for character in characters])
    stripped = [text.decode() for text in strip_texts(around).numpy()]
    wrong = [hex(ord(text[1])) for text, found in zip(around.numpy(), stripped, strict=True) if text.decode().strip() != found]
    assert wrong == []


def test_bytes_that_are_no_utf8_are_kept_within_white_space():
    assert strip_texts(tf.constant([b" \xff a \xc2\xa0", b"\xe3\x80\x80", b"\xe3\x80"])).numpy().tolist() == [
        *(b"\xff a", b"", b"\xe3\x80")
    ]
