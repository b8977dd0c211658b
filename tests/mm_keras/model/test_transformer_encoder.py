import functools
import io

import keras
import keras_hub
import numpy as np
import pytest
import sentencepiece
import tensorflow as tf

from mm_keras.data.text import make_pretrained_tokenizer, make_tokenizer
from mm_keras.features import FeatureSpec, TokenizerSpec, TokenText
from mm_keras.model.transformer_encoder import build_transformer_encoder

FAMILIES = ["albert", "clip", "deberta", "distilbert", "roberta", "siglip", "xlm_roberta"]
SIZES = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32, "max_sequence_length": 16}
WORDS = TokenizerSpec("words", tuple(f"w{index}" for index in range(20)))
TEXTS = ["The oak MUG!", "", "a steel mug and a blue oak mug, a very long text", "oak"]
UNKNOWN = "é"  # to the vocabularies of byte pairs
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _sentencepiece_model(**ids) -> bytes:
    file = io.BytesIO()
    texts = ["the oak mug", "a steel mug", "the cafe", "blue oak", LETTERS] * 3
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=file, vocab_size=60, hard_vocab_limit=False, minloglevel=2, **ids
    )
    return file.getvalue()


def _make_roberta():
    tokens = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "<mask>",
        "Ġ",
        "!",
        ",",
        *LETTERS,
        *LETTERS.upper(),
        "ug",
        "Ġm",
        "Ġmug",
        "oa",
        "oak",
    ]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = keras_hub.tokenizers.RobertaTokenizer(vocabulary=vocabulary, merges=["u g", "Ġ m", "Ġm ug", "o a", "oa k"])
    return keras_hub.models.RobertaBackbone(vocabulary_size=len(tokens), **SIZES), tokenizer


def _make_clip():
    tokens = [*LETTERS, *[f"{letter}</w>" for letter in LETTERS], "!</w>", ",</w>", "mu", "mug</w>", "oa", "oak</w>"]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = ["m u", "mu g</w>", "o a", "oa k</w>"]
    vision = {"patch_size": 8, "hidden_dim": 16, "num_layers": 1, "num_heads": 2, "intermediate_dim": 16}
    backbone = keras_hub.models.CLIPBackbone(
        keras_hub.models.CLIPVisionEncoder(image_shape=(16, 16, 3), **vision),
        keras_hub.models.CLIPTextEncoder(vocabulary_size=len(tokens), embedding_dim=16, **SIZES),
        projection_dim=12,
    )
    return backbone, keras_hub.tokenizers.CLIPTokenizer(vocabulary=vocabulary, merges=merges)


def _make_siglip():
    tokenizer = keras_hub.tokenizers.SigLIPTokenizer(_sentencepiece_model(pad_id=0, eos_id=1, unk_id=2, bos_id=-1))
    vision = {"patch_size": 8, "hidden_dim": 16, "num_layers": 1, "num_heads": 2, "intermediate_dim": 16}
    backbone = keras_hub.models.SigLIPBackbone(
        keras_hub.models.SigLIPVisionEncoder(image_shape=(16, 16, 3), **vision),
        keras_hub.models.SigLIPTextEncoder(
            vocabulary_size=tokenizer.vocabulary_size(), embedding_dim=16, projection_dim=12, **SIZES
        ),
    )
    return backbone, tokenizer


def _make_distilbert():
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "oak", "mug", "a", "steel", "!"]
    tokenizer = keras_hub.tokenizers.DistilBertTokenizer(vocabulary=tokens, lowercase=True)
    return keras_hub.models.DistilBertBackbone(vocabulary_size=len(tokens), **SIZES), tokenizer


def _make_of_sentencepiece(backbone, tokenizer, more_rows=0, **ids):
    tokenizer = tokenizer(_sentencepiece_model(**ids))
    return backbone(vocabulary_size=tokenizer.vocabulary_size() + more_rows, **SIZES), tokenizer


_MAKE = {
    "albert": functools.partial(
        _make_of_sentencepiece,
        functools.partial(keras_hub.models.AlbertBackbone, embedding_dim=8),
        keras_hub.tokenizers.AlbertTokenizer,
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        user_defined_symbols="[MASK]",
    ),
    "clip": _make_clip,
    "deberta": functools.partial(
        _make_of_sentencepiece,
        functools.partial(keras_hub.models.DebertaV3Backbone, bucket_size=8),
        keras_hub.tokenizers.DebertaV3Tokenizer,
        more_rows=9,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
    ),
    "distilbert": _make_distilbert,
    "roberta": _make_roberta,
    "siglip": _make_siglip,
    "xlm_roberta": functools.partial(
        _make_of_sentencepiece, keras_hub.models.XLMRobertaBackbone, keras_hub.tokenizers.XLMRobertaTokenizer
    ),
}


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    """A function: family -> (local preset of a random model, its backbone, its tokenizer)."""
    keras.utils.set_random_seed(0)  # once: it drops all SentencePiece tokenizers that are there

    @functools.cache
    def make(family):
        folder = tmp_path_factory.mktemp("presets") / family
        backbone, tokenizer = _MAKE[family]()
        backbone.save_to_preset(str(folder))
        tokenizer.save_to_preset(str(folder))
        return str(folder), backbone, tokenizer

    return make


@pytest.fixture(scope="module", params=FAMILIES)
def preset(request, presets):
    return request.param, *presets(request.param)


_make_tokenizer = functools.cache(make_tokenizer)  # a byte-pair tokenizer's graph takes seconds to make


def _tokenize(spec, texts=TEXTS, with_unknown=False):
    """With UNKNOWN as the last text, if asked; it is tokenized in any case, since new words take byte pairs seconds a call."""
    everything = [*[*texts, "", ""][:4], UNKNOWN]
    token_ids, padding_mask = _make_tokenizer(spec.tokenizer)(tf.constant(everything), spec.max_tokens)
    rows = [*range(len(texts)), *([4] if with_unknown else [])]
    token_ids, padding_mask = tf.gather(token_ids, rows), tf.gather(padding_mask, rows)
    return {"token_ids": token_ids.numpy(), "padding_mask": padding_mask.numpy()}


@functools.cache
def _spec(source):
    return TokenText("title", make_pretrained_tokenizer([], source), 12)


@functools.cache
def _encoder(source, pooling="mean", trainable=False):
    """Tests share the encoders, and do not change them."""
    return build_transformer_encoder(_spec(source), source, pooling, trainable=trainable)


def test_texts_stand_between_the_familys_own_tokens(preset):
    _, source, _, tokenizer = preset
    spec = _spec(source)
    tokens = _tokenize(spec)
    assert tokens["padding_mask"][1].sum() == 0
    assert tokens["padding_mask"].sum(axis=1).max() == 12  # the long one, cut
    start = getattr(tokenizer, "start_token_id", None)
    for row in (0, 2, 3):
        ids = tokens["token_ids"][row][tokens["padding_mask"][row]].tolist()
        assert ids[-1] == tokenizer.end_token_id
        assert start is None or ids[0] == start
        assert min(ids) >= 0
    inner = tokens["token_ids"][3][tokens["padding_mask"][3]].tolist()[start is not None : -1]
    assert inner == np.array(tokenizer(["oak"])[0]).tolist()


@pytest.mark.parametrize(
    ("family", "text", "same"),
    [
        ("albert", "OAK Café", "oak cafe"),
        ("clip", "OAK  Mug", "oak mug"),
        ("siglip", "OAK, mug!", "oak mug"),
        ("distilbert", "OAK", "oak"),
    ],
)
def test_texts_are_normalized_as_the_original_does(presets, family, text, same):
    tokens = _tokenize(_spec(presets(family)[0]), [text, same])["token_ids"]
    np.testing.assert_array_equal(tokens[0], tokens[1])


@pytest.mark.parametrize("family", ["roberta", "clip"])
def test_characters_that_no_vocabulary_knows_become_the_unknown_token(presets, family):
    spec = _spec(presets(family)[0])
    ids = _tokenize(spec, with_unknown=True)["token_ids"][-1]
    assert ids.min() >= 0
    unknown = 3 if family == "roberta" else spec.tokenizer.end_id
    assert ids[1] == unknown


def test_tokenizers_are_saved_with_the_features(preset, tmp_path):
    features = FeatureSpec(None, (_spec(preset[1]),), ("a", "b"), False)
    features.save(tmp_path)
    assert FeatureSpec.load(tmp_path) == features


@pytest.mark.parametrize("family", [pytest.param("clip", marks=pytest.mark.slow), "siglip"])
def test_tokenizers_can_be_exported(family, presets, tmp_path):
    spec = _spec(presets(family)[0])
    module = tf.Module()
    module.tokenizer = make_tokenizer(spec.tokenizer)
    function = tf.function(lambda texts: {"token_ids": module.tokenizer(texts, spec.max_tokens)[0]})
    signature = function.get_concrete_function(tf.TensorSpec([None], tf.string))
    tf.saved_model.save(module, str(tmp_path), signatures=signature)
    found = tf.saved_model.load(str(tmp_path)).signatures["serving_default"](tf.constant(TEXTS))["token_ids"]
    np.testing.assert_array_equal(found, _tokenize(spec)["token_ids"])


def _states(family, backbone, tokens):
    """[B, T, D]: what the family's model of keras_hub gives."""
    inputs = {"token_ids": tokens["token_ids"], "padding_mask": tokens["padding_mask"].astype("int32")}
    if family == "clip":
        return np.array(backbone.text_encoder({"token_ids": tokens["token_ids"]}))
    if family == "siglip":
        text = backbone.text_encoder
        ids = np.where(tokens["padding_mask"], tokens["token_ids"], 1)
        ids = np.pad(ids, [(0, 0), (0, 16 - ids.shape[1])], constant_values=1)
        return np.array(keras.Model(text.input, text.post_layer_norm.output)({"token_ids": ids}))[
            :, : tokens["token_ids"].shape[1]
        ]
    if family == "albert":
        inputs["segment_ids"] = np.zeros_like(tokens["token_ids"])
    states = backbone(inputs)
    return np.array(states["sequence_output"] if isinstance(states, dict) else states)


def _pooled(states, mask, pooling):
    rows = [row[real] if real.any() else np.zeros_like(row[:1]) for row, real in zip(states, mask, strict=True)]
    return np.stack([{"mean": np.mean, "max": np.max, "cls": lambda row, axis: row[0]}[pooling](row, axis=0) for row in rows])


@pytest.mark.parametrize(
    ("family", "pooling"),
    [
        pytest.param(family, pooling, marks=() if pooling == "mean" or family == "roberta" else pytest.mark.slow)
        for family in FAMILIES
        for pooling in ("mean", "max", "cls")
        if (family, pooling) != ("clip", "cls")  # an error, tested below
    ],
)
def test_states_are_pooled_over_the_real_tokens(presets, family, pooling):
    source, backbone, _ = presets(family)
    tokens = _tokenize(_spec(source))
    found = np.array(_encoder(source, pooling)(tokens))
    expected = _pooled(_states(family, backbone, tokens), tokens["padding_mask"], pooling)
    some = tokens["padding_mask"].any(axis=1)
    np.testing.assert_allclose(found[some], expected[some], atol=1e-5)
    assert np.isfinite(found).all()
    if pooling != "cls":
        np.testing.assert_array_equal(found[~some], 0)


def test_encoders_survive_saving_and_padding_changes_nothing(preset, tmp_path):
    _, source, _, _ = preset
    tokens = _tokenize(_spec(source))
    encoder = _encoder(source)
    found = np.array(encoder(tokens))
    encoder.save(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "encoder.keras")(tokens), found)
    np.testing.assert_allclose(encoder({name: array[3:, :7] for name, array in tokens.items()}), found[3:], atol=1e-5)


@pytest.mark.parametrize(
    ("family", "trainable"),
    [
        pytest.param(family, trainable, marks=pytest.mark.slow if trainable and family not in ("clip", "roberta") else ())
        for family in FAMILIES
        for trainable in (False, True)
    ],
)
def test_frozen_encoders_have_nothing_to_train_and_no_dropout(presets, family, trainable):
    source = presets(family)[0]
    tokens = _tokenize(_spec(source))
    encoder = _encoder(source, trainable=trainable)
    assert (encoder.trainable_weights != []) == trainable
    same = np.array_equal(encoder(tokens, training=True), encoder(tokens, training=False))
    assert same == (not trainable or family in ("albert", "clip", "siglip"))  # which have no dropout


def test_native_pooling_is_clips_own_embedding_of_a_text(presets):
    source, backbone, _ = presets("clip")
    spec = _spec(source)
    tokens = _tokenize(spec)
    found = np.array(build_transformer_encoder(spec, source, "native")(tokens))
    expected = np.array(backbone.get_text_embeddings(tokens["token_ids"]))  # at the largest id: the end token
    some = tokens["padding_mask"].any(axis=1)
    assert found.shape == (4, 12)
    np.testing.assert_allclose(found[some], expected[some], atol=1e-5)


def test_native_pooling_is_siglips_own_embedding_of_a_text(presets):
    source, backbone, _ = presets("siglip")
    spec = _spec(source)
    tokens = _tokenize(spec)
    found = np.array(build_transformer_encoder(spec, source, "native")(tokens))
    ids = np.where(tokens["padding_mask"], tokens["token_ids"], 1)
    expected = np.array(backbone.get_text_embeddings(np.pad(ids, [(0, 0), (0, 4)], constant_values=1)))
    assert found.shape == (4, 12)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_poolings_that_mean_nothing_are_errors(presets):
    source = presets("clip")[0]
    with pytest.raises(ValueError, match="reads from left to right: its first state knows no word"):
        build_transformer_encoder(_spec(source), source, "cls")
    source = presets("roberta")[0]
    with pytest.raises(ValueError, match=r"pooling 'native' is of CLIP and SigLIP; .* is a RobertaBackbone"):
        build_transformer_encoder(_spec(source), source, "native")
    with pytest.raises(ValueError, match=r"one of \['cls', 'max', 'mean', 'native', 'none'\]. Received: 'sum'"):
        build_transformer_encoder(_spec(source), source, "sum")


def test_models_of_other_kinds_are_errors(tmp_path):
    folder = str(tmp_path / "resnet")
    keras_hub.models.DeiTBackbone((32, 32, 3), 16, 1, 2, 8, 16).save_to_preset(folder)
    with pytest.raises(ValueError, match=r"is a DeiTBackbone; text encoders are \['AlbertBackbone', 'BertBackbone'"):
        build_transformer_encoder(TokenText("title", WORDS, 10), folder)
