"""Tokenizers: strings become token ids in TensorFlow graph functions that training and the exported model share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import get_args

import tensorflow as tf
from absl import logging

from mm_keras.caption_words import CaptionWords, Reduction, StopWords, build_vocabulary
from mm_keras.configurable import PositiveInt, checked_early, configurable
from mm_keras.data.core_wordpiece import CoreWordPiece
from mm_keras.downloads import check_preset, fetching_preset
from mm_keras.features import TokenizerSpec
from mm_keras.scripts import SPACELESS

PRETRAINED_KINDS = ("byte_pair", "sentencepiece", "wordpiece")
_PAD, _UNKNOWN = "[PAD]", "[UNK]"
_LONG, _MOST_UNKNOWN = 256, 0.5  # tokens of a text that are checked; the share of unknown ones above which a warning is given
# All of Unicode's white space, as `str.isspace` has it; RE2's \s matches ASCII's alone.
_WHITE_SPACE = r"[\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
# keras_hub's class -> (kind, whether texts are lower-cased, whether accents are stripped); for WordPiece the preset says both.
_FAMILIES = {
    "AlbertTokenizer": ("sentencepiece", True, True),
    "BertTokenizer": ("wordpiece", False, False),
    "CLIPTokenizer": ("byte_pair", True, False),
    "DebertaV3Tokenizer": ("sentencepiece", False, False),
    "DistilBertTokenizer": ("wordpiece", False, False),
    "RobertaTokenizer": ("byte_pair", False, False),
    "SigLIPTokenizer": ("sentencepiece", True, False),
    "XLMRobertaTokenizer": ("sentencepiece", False, False),
}


def make_tokenizer(spec: TokenizerSpec, core_ops_only: bool = False) -> tf.Module:
    """Makes the tokenizer that a specification describes.

    Args:
        spec: the specification.
        core_ops_only: whether the tokenizer does without the operations of TensorFlow Text. See `CoreWordPiece`.

    Returns a callable `(texts, max_tokens) -> (token_ids, padding_mask)`: `texts` is string [B], `token_ids` int32
    [B, max_tokens] with 0 at the padding, `padding_mask` bool [B, max_tokens]. An empty text has no token.

    Raises:
        ValueError: for an unknown kind, or one that cannot do without TensorFlow Text.
    """
    if spec.kind in PRETRAINED_KINDS:
        return PretrainedTokenizer(spec, core_ops_only)
    kinds = {"captions": CaptionTokenizer, "words": WordTokenizer}
    if spec.kind not in kinds:
        raise ValueError(f"tokenizer kinds are {sorted([*kinds, *PRETRAINED_KINDS])}. Received: {spec.kind!r}")
    return kinds[spec.kind](spec)


class WordTokenizer(tf.Module):
    """Looks words up: "Mug, BLUE!" -> [ids of "mug", "blue"]. Words that are not in the vocabulary get id 1."""

    def __init__(self, spec: TokenizerSpec):
        super().__init__()
        self._by_character = spec.by_character
        ids = tf.range(len(spec.vocabulary), dtype=tf.int64)
        entries = tf.lookup.KeyValueTensorInitializer(tf.constant(spec.vocabulary), ids)
        self._ids = tf.lookup.StaticHashTable(entries, default_value=1)

    def __call__(self, texts: tf.Tensor, max_tokens: int) -> tuple[tf.Tensor, tf.Tensor]:
        words = split_words(texts, self._by_character)
        token_ids = words.with_values(tf.cast(self._ids.lookup(words.values), tf.int32))
        return _pad(token_ids, max_tokens, texts.shape[0])


class CaptionTokenizer(tf.Module):
    """Looks the stems of words up in a table: "Two dogs' bowls!" -> [ids of "dog", "bowl"]. Unknown words get id 1.

    Stop words are dropped and leave no gap. The ids equal those of `CaptionVocabulary.ids`, except that TensorFlow does not
    lower-case capitals that were added in Unicode 14 (2021) or later.
    """

    def __init__(self, spec: TokenizerSpec):
        super().__init__()
        self._steps = spec.captions.steps
        pairs = [("", 1)]  # "" is no token: it is here because a table may not be empty
        pairs += [(token, index) for index, tokens in enumerate(spec.captions.tokens) for token in tokens]
        keys, ids = tf.constant([token for token, _ in pairs], tf.string), tf.constant([index for _, index in pairs], tf.int64)
        self._ids = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, ids), default_value=1)

    def __call__(self, texts: tf.Tensor, max_tokens: int) -> tuple[tf.Tensor, tf.Tensor]:
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")  # bytes that are no UTF-8 become U+FFFD
        texts = tf.strings.regex_replace(texts, "’", "'")
        # Python's findall, as a replacement: a token becomes itself and a space, any other character becomes a space.
        tokens = tf.strings.split(tf.strings.regex_replace(texts, f"({self._steps.token_pattern()})|(?s:.)", r"\1 "))
        # Lower-cased only after the split, since `lower` ends a text at a NUL.
        values = tf.strings.lower(tokens.values, encoding="utf-8") if self._steps.lowercase else tokens.values
        token_ids = tokens.with_values(tf.cast(self._ids.lookup(values), tf.int32))
        return _pad(tf.ragged.boolean_mask(token_ids, token_ids > 0), max_tokens, texts.shape[0])


class PretrainedTokenizer(tf.Module):
    """The tokenizer of a pretrained encoder: "mug, blue" -> ids of "[CLS] mug , blue [SEP]".

    A text that is too long is cut before its end token, which always stays.
    """

    def __init__(self, spec: TokenizerSpec, core_ops_only: bool = False):
        super().__init__()
        self._spec = spec
        self._unknown_id = None
        if core_ops_only:
            if spec.kind != "wordpiece":
                raise ValueError(
                    f"{spec.family} ({spec.kind}) needs operations of TensorFlow Text; of the pretrained tokenizers, only "
                    "those of the kind wordpiece do without. Received: core_ops_only=True"
                )
            self._tokenizer = CoreWordPiece(spec)
            return
        import keras_hub

        family = getattr(keras_hub.tokenizers, spec.family)
        # The tables must be made here: those that a graph makes for itself are not exported.
        if spec.kind == "wordpiece":
            options = {"vocabulary": list(spec.vocabulary), "lowercase": spec.lowercase, "strip_accents": spec.strip_accents}
        elif spec.kind == "byte_pair":
            ids = {token: index for index, token in enumerate(spec.vocabulary)}
            options = {"vocabulary": ids, "merges": list(spec.merges), "_allow_python_workflow": False}
            self._unknown_id = ids.get("<unk>", spec.end_id)
        else:
            options = {"proto": spec.proto, "_allow_python_workflow": False}
        self._tokenizer = family(**options)

    @tf.function  # outside of a graph, keras_hub answers in Python lists
    def __call__(self, texts: tf.Tensor, max_tokens: int) -> tuple[tf.Tensor, tf.Tensor]:
        ends = [self._spec.start_id, self._spec.end_id]
        pieces = self._tokenizer(self._normalized(texts))[:, : max_tokens - sum(token is not None for token in ends)]
        nonempty = tf.cast(pieces.row_lengths() > 0, tf.int64)
        start, end = (
            tf.RaggedTensor.from_row_lengths(tf.fill([tf.reduce_sum(nonempty)], token), nonempty) if token is not None else None
            for token in ends
        )
        pieces = tf.cast(pieces, tf.int32)
        if self._unknown_id is not None:  # keras_hub gives -1 for a byte that is not in the vocabulary
            pieces = pieces.with_flat_values(tf.where(pieces.flat_values < 0, self._unknown_id, pieces.flat_values))
        parts = [part for part in (start, pieces, end) if part is not None]
        return _pad(tf.concat(parts, axis=1), max_tokens, texts.shape[0])

    def _normalized(self, texts: tf.Tensor) -> tf.Tensor:
        """Normalises texts as the original tokenizers do; the WordPiece tokenizer does that itself."""
        if self._spec.kind == "wordpiece":
            return texts
        import tensorflow_text

        if self._spec.strip_accents:
            texts = tf.strings.regex_replace(tensorflow_text.normalize_utf8(texts, "NFKD"), r"\p{Mn}", "")
        if self._spec.lowercase:
            texts = tf.strings.lower(texts, encoding="utf-8")
        if self._spec.family == "SigLIPTokenizer":
            texts = tf.strings.regex_replace(texts, r"[!-/:-@\[-`{-~]", "")
        return tf.strings.strip(tf.strings.regex_replace(texts, r"\s+", " "))


def strip_texts(texts: tf.Tensor) -> tf.Tensor:
    """Removes white space around texts, string of any shape, as `str.strip` does for packing; a blank text becomes empty."""
    return tf.strings.regex_replace(texts, f"^{_WHITE_SPACE}+|{_WHITE_SPACE}+$", "")


def split_words(texts: tf.Tensor, by_character: bool = True) -> tf.RaggedTensor:
    """Splits texts into lower-cased runs of letters and digits of any script: string [B] -> string [B, (words)].

    With `by_character`, scripts that are written without spaces are split by character: "Oak茶杯" -> "oak", "茶", "杯".
    """
    lower = tf.strings.lower(texts, encoding="utf-8")
    words = tf.strings.regex_replace(lower, r"[^\p{L}\p{M}\p{N}]+", " ")
    if by_character:
        words = tf.strings.regex_replace(words, rf"([{SPACELESS}]\p{{M}}*)", r" \1 ")
    return tf.strings.split(words)


def tell_of_unknown(spec: TokenizerSpec, texts: Iterable[list[bytes]]) -> None:
    """Prints a warning if more than half of the tokens of these texts are unknown to the tokenizer.

    Args:
        spec: the tokenizer.
        texts: batches of UTF-8 texts, some of the training split.
    """
    if spec.unknown_id is None:
        return
    tokenize, num_tokens, unknown = make_tokenizer(spec), 0, 0
    for batch in texts:
        token_ids, mask = tokenize(tf.constant(batch, tf.string), _LONG)
        num_tokens += int(tf.math.count_nonzero(mask))
        unknown += int(tf.math.count_nonzero((token_ids == spec.unknown_id) & mask))
    if unknown > _MOST_UNKNOWN * num_tokens:
        logging.info(
            f"warning: {unknown / num_tokens:.0%} of the tokens in the training texts are unknown to the tokenizer "
            f"({spec.kind}, {len(spec.vocabulary):,} entries), so that a model can hardly tell these texts apart. Is the "
            "encoder made for this language? Words that occur once are learned with make_word_tokenizer.min_count = 1"
        )


@configurable
def make_word_tokenizer(
    texts: Iterable[list[bytes]],
    max_words: PositiveInt = 20_000,
    min_count: PositiveInt = 2,
) -> TokenizerSpec:
    """Collects a vocabulary of words, most frequent first.

    Args:
        texts: batches of UTF-8 texts, which come from the training split alone.
        max_words: the largest size of the vocabulary.
        min_count: words that occur less often are left out, since they could not be learned.
    """
    counts: Counter[bytes] = Counter()
    for batch in texts:
        counts.update(split_words(tf.constant(batch, tf.string)).values.numpy().tolist())
    frequent = sorted((word for word, count in counts.items() if count >= min_count), key=lambda word: (-counts[word], word))
    words = [word.decode() for word in frequent[: max_words - 2]]
    return TokenizerSpec("words", (_PAD, _UNKNOWN, *words))


def check_words(stop_words: StopWords, reduction: Reduction) -> None:
    """Raises FileNotFoundError for data of NLTK that are not installed."""
    if reduction in get_args(Reduction) and stop_words in get_args(StopWords):
        CaptionWords(stop_words=stop_words, reduction=reduction).words("two dogs")


@configurable
@checked_early(check_words)
def make_caption_tokenizer(
    texts: Iterable[list[bytes]],
    lowercase: bool = True,
    strip_punctuation: bool = True,
    stop_words: StopWords = "sklearn",
    reduction: Reduction = "stem",
    max_words: PositiveInt = 20_000,
    min_count: PositiveInt = 2,
) -> TokenizerSpec:
    """Collects a vocabulary of stems without stop words, and a table of the words that belong to each stem.

    Args:
        texts: batches of UTF-8 texts, which come from the training split alone.
        lowercase, strip_punctuation, stop_words, reduction: the steps, see `mm_keras.caption_words.CaptionWords`.
        max_words, min_count: see `mm_keras.caption_words.build_vocabulary`.

    Raises:
        ValueError: for an unknown list of stop words or reduction.
        FileNotFoundError: if data of NLTK is asked for and not installed.
    """
    steps = CaptionWords(lowercase, strip_punctuation, stop_words, reduction)
    decoded = (text.decode("utf-8", "replace") for batch in texts for text in batch)
    vocabulary = build_vocabulary(decoded, steps, min_count, max_words)
    return TokenizerSpec("captions", vocabulary.words, captions=vocabulary)


@configurable
@checked_early(check_preset)
def make_pretrained_tokenizer(texts: Iterable[list[bytes]], source: str) -> TokenizerSpec:
    """Loads the tokenizer that belongs to a pretrained encoder.

    Args:
        texts: not read, since the vocabulary comes with the encoder.
        source: a keras_hub preset name, a local preset, or a local Hugging Face folder.

    Raises:
        DownloadError: for a preset that cannot be fetched.
        ValueError: for a tokenizer of a family that `build_transformer_encoder` does not know.
    """
    del texts
    import keras_hub

    with fetching_preset(source):
        tokenizer = keras_hub.tokenizers.Tokenizer.from_preset(source)
    family = type(tokenizer).__name__
    if family not in _FAMILIES:
        raise ValueError(f"{source!r} has a {family}; text encoders are known with {sorted(_FAMILIES)}")
    kind, lowercase, strip_accents = _FAMILIES[family]
    fields = {"family": family, "start_id": getattr(tokenizer, "start_token_id", None), "end_id": tokenizer.end_token_id}
    if kind == "wordpiece":
        # Lower-casing BERTs strip accents too; keras_hub forgets it where it converts a Hugging Face folder, and "café"
        # would become [UNK].
        lowercase, strip_accents = tokenizer.lowercase, tokenizer.strip_accents or tokenizer.lowercase
    elif kind == "byte_pair":
        fields["merges"] = tuple(tokenizer.merges)
    else:
        fields["proto"] = tokenizer.proto
    vocabulary = list(tokenizer.get_vocabulary())
    if kind == "byte_pair":  # its entries come in any order
        vocabulary.sort(key=tokenizer.token_to_id)
    return TokenizerSpec(kind, tuple(vocabulary), lowercase, strip_accents, **fields)


def _pad(token_ids: tf.RaggedTensor, max_tokens: int, batch_size: int | None) -> tuple[tf.Tensor, tf.Tensor]:
    dense = token_ids.to_tensor(default_value=0, shape=[batch_size, max_tokens])
    lengths = tf.ensure_shape(tf.minimum(token_ids.row_lengths(), max_tokens), [batch_size])
    return dense, tf.sequence_mask(lengths, max_tokens)
