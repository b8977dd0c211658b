"""WordPiece without TensorFlow Text gives the ids that keras_hub's tokenizer gives."""

from __future__ import annotations

import random
import unicodedata

import pytest
import tensorflow as tf

from mm_keras.data.core_wordpiece import CoreWordPiece
from mm_keras.data.text import make_tokenizer
from mm_keras.features import TokenizerSpec

pytest.importorskip("tensorflow_text")

WORDS = (
    "oak",
    "mug",
    "mugs",
    "##s",
    "##n",
    "cafe",
    "café",
    "Oak",
    "s",
    "茶",
    "杯",
    "한국",
    "##어",
    "ᄒ",
    "##ᅡ",
    "##ᆫ",
    ",",
    "-",
    "1",
    "##1",
    "/",
)
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
TEXTS = [
    *(
        "Oak mugs, oaken-mug",
        "  ",
        "",
        "Café CAFE\u0301 cafe",
        "한국어 한",
        "杯oak茶杯",
        "x" * 101 + " mug",
        "mug\u200bmug\x0bmug\x85oak",
    ),
    *("½ \u2260 mug", "ﬁsh ß ſ İstanbul ΣΑΣ", "[SEP] ## ##s", "বাংলা কো", "नमस्ते दुनिया", "👩‍👩‍👧 mug", "mug\tmug\nmug\r", "mugsn"),
]


def _specs():
    for lowercase in (True, False):
        for strip_accents in (True, False):
            options = {"lowercase": lowercase, "strip_accents": strip_accents, "start_id": 2, "end_id": 3}
            yield TokenizerSpec("wordpiece", VOCABULARY, family="BertTokenizer", **options)


def _drawn(count):
    """Texts of letters of many scripts, composed, among words that the vocabulary has."""
    known = [chr(code) for code in range(1, 0x20000) if unicodedata.ucd_3_2_0.category(chr(code)) not in ("Cn", "Cs", "Co")]
    rng = random.Random(0)
    parts = (lambda: rng.choice(known), lambda: rng.choice("aAsS nN ,-/1"), lambda: rng.choice(WORDS).removeprefix("##"))
    return ["".join(rng.choices(parts, (2, 4, 4))[0]() for _ in range(rng.randrange(25))) for _ in range(count)]


@pytest.mark.parametrize("spec", list(_specs()), ids=lambda spec: f"{spec.lowercase}-{spec.strip_accents}")
def test_ids_are_those_of_the_tokenizer_with_tensorflow_text(spec):
    texts = [unicodedata.normalize("NFC", text) for text in [*TEXTS, *_drawn(400)]]
    expected, found = (make_tokenizer(spec, core)(tf.constant(texts), 40)[0].numpy().tolist() for core in (False, True))
    assert [pair for pair in zip(texts, found, expected, strict=True) if pair[1] != pair[2]] == []
    assert len({index for row in found for index in row}) > len(WORDS) / 2


def test_graph_has_operations_of_tensorflow_alone():
    tokenize = make_tokenizer(next(_specs()), core_ops_only=True)
    graph = tf.function(lambda texts: tokenize(texts, 8)).get_concrete_function(tf.TensorSpec([None], tf.string)).graph
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    assert not {node.op for node in nodes if "Wordpiece" in node.op or "RegexSplit" in node.op or "Normalize" in node.op}


def test_a_batch_without_words_has_no_pieces():
    pieces = CoreWordPiece(next(_specs()))
    assert pieces(tf.constant(["", " "])).to_list() == [[], []]
    assert pieces(tf.constant([], tf.string)).to_list() == []


def test_other_pretrained_tokenizers_are_refused():
    spec = TokenizerSpec("byte_pair", ("a",), merges=(), family="RobertaTokenizer")
    with pytest.raises(ValueError, match=r"RobertaTokenizer \(byte_pair\) needs operations of TensorFlow Text"):
        make_tokenizer(spec, core_ops_only=True)


def test_marks_that_follow_their_letter_are_stripped_with_the_accents():
    pieces = CoreWordPiece(next(_specs()))
    assert (
        pieces(tf.constant(["Cafe\u0301"])).to_list()
        == pieces(tf.constant(["caf\u00e9"])).to_list()
        == [[VOCABULARY.index("cafe")]]
    )
