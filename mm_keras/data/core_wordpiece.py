"""WordPiece with TensorFlow's own operations, for servers that have no TensorFlow Text."""

from __future__ import annotations

import itertools

import tensorflow as tf

from mm_keras.features import TokenizerSpec

_SUFFIX = "##"
_MOST_BYTES = 100  # a longer word is unknown
# As keras_hub has them, which follows the original BERT: ASCII that is neither letter nor digit is punctuation, too.
_SPACE = r"\s|\p{Cc}|\p{Cf}"
_CJK = r"\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FAFF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2CEAF}\x{2F800}-\x{2FA1F}"
_ALONE = rf"[!-/:-@\[-`{{-~\p{{P}}{_CJK}]"
_CODE_POINTS = (range(1, 0xD800), range(0xE000, 0x40000), range(0xE0000, 0xE1000))  # all that Unicode has assigned
_SAME = "\0"  # what a table answers for a character that stays as it is; no text has it here


class CoreWordPiece(tf.Module):
    """Splits texts into WordPiece ids, string [B] -> int32 [B, (pieces)], without operations of TensorFlow Text.

    The ids equal those of `keras_hub.tokenizers.WordPieceTokenizer` for texts whose characters are composed (Unicode's form
    NFC), as keyboards write them. Core TensorFlow cannot compose characters: Korean that is stored letter by letter, as file
    names of some systems are, is read as these letters. Characters of the latest versions of Unicode may differ, too.

    Args:
        spec: a tokenizer of the kind "wordpiece".

    Reference: Song et al., "Fast WordPiece Tokenization" (2021), section 2, for the longest match first, which is found here by
        looking all beginnings of what is left of a word up.
    """

    def __init__(self, spec: TokenizerSpec):
        super().__init__()
        pieces = [*spec.vocabulary]
        self._longest = max(len(piece.removeprefix(_SUFFIX)) for piece in pieces)
        self._pieces = _table(pieces, tf.range(len(pieces)), -1)
        self._unknown = spec.unknown_id
        self._stripped, self._folded = _tables(spec.lowercase, spec.strip_accents)

    def __call__(self, texts: tf.Tensor) -> tf.RaggedTensor:
        if self._stripped:
            texts = _replace_characters(texts, self._stripped)
        texts = tf.strings.regex_replace(texts, _SPACE, " ")
        words = tf.strings.split(tf.strings.regex_replace(texts, _ALONE, r" \0 "), " ")
        words = tf.ragged.boolean_mask(words, words != "")
        values = _replace_characters(words.values, self._folded) if self._folded else words.values
        return words.with_values(self._split(values)).merge_dims(1, 2)

    def _split(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Words, string [W] -> int32 [W, (pieces)]; a word with a part that is in no vocabulary is one unknown piece."""
        lengths = tf.strings.length(words, "UTF8_CHAR")
        known = tf.strings.length(words) <= _MOST_BYTES

        def step(number, starts, known, ids):
            at = tf.where(known & (starts < lengths))
            begin = tf.gather_nd(starts, at)
            piece, length = self._longest_piece(tf.gather_nd(words, at), begin)
            known = tf.tensor_scatter_nd_update(known, at, piece >= 0)
            starts = tf.tensor_scatter_nd_update(starts, at, begin + length)
            column = tf.scatter_nd(at, piece + 1, tf.shape(words, tf.int64)) - 1  # -1: this word has ended
            return number + 1, starts, known, ids.write(number, column)

        steps = tf.TensorArray(tf.int32, 0, dynamic_size=True, element_shape=[None], infer_shape=False)
        _, _, known, steps = tf.while_loop(
            lambda number, starts, known, ids: tf.reduce_any(known & (starts < lengths)) | (number == 0),
            step,
            (0, tf.zeros_like(lengths), known, steps),
        )
        ids = tf.transpose(steps.stack())
        unknown = tf.concat([tf.fill([tf.size(words), 1], self._unknown), tf.fill(tf.shape(ids[:, 1:]), -1)], axis=1)
        ids = tf.where(known[:, tf.newaxis], ids, unknown)
        return tf.ragged.boolean_mask(ids, ids >= 0)

    def _longest_piece(self, words: tf.Tensor, starts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The longest piece that begins at a character of each word, int32 [n] (-1: none), and its number of characters."""
        shape = [tf.size(words), self._longest]
        lengths = tf.broadcast_to(tf.range(self._longest, 0, -1), shape)
        begins = tf.broadcast_to(starts[:, tf.newaxis], shape)
        beginnings = tf.strings.substr(tf.broadcast_to(words[:, tf.newaxis], shape), begins, lengths, "UTF8_CHAR")
        prefix = tf.where(starts > 0, _SUFFIX, "")[:, tf.newaxis]
        ids = self._pieces.lookup(prefix + beginnings)
        first = tf.argmax(ids >= 0, axis=1, output_type=tf.int32)[:, tf.newaxis]
        piece, beginning = (tf.gather(values, first, batch_dims=1)[:, 0] for values in (ids, beginnings))
        return piece, tf.strings.length(beginning, "UTF8_CHAR")


def _table(keys: list[str], values: tf.Tensor, default) -> tf.lookup.StaticHashTable:
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(tf.constant(keys, tf.string), values), default)


def _tables(lowercase: bool, strip_accents: bool) -> tuple[tf.lookup.StaticHashTable | None, tf.lookup.StaticHashTable | None]:
    """What becomes of characters before texts are split (without accents) and after (lower case); None: nothing.

    TensorFlow Text makes them, character by character. A character that folding puts together again, such as a syllable of
    Korean, which comes apart with the accents, stays as it is.
    """
    import tensorflow_text

    characters = tf.constant([chr(point) for point in itertools.chain(*_CODE_POINTS)])
    folded = tensorflow_text.case_fold_utf8(characters) if lowercase else characters
    stripped = characters
    if strip_accents:
        stripped = tf.strings.regex_replace(tensorflow_text.normalize_utf8(characters, "NFD"), r"\p{Mn}", "")
    if strip_accents and lowercase:
        whole = tensorflow_text.case_fold_utf8(stripped) == folded
        stripped = tf.where(whole & ~tf.strings.regex_full_match(stripped, f".*{_ALONE}.*"), characters, stripped)
    return tuple(_changes(characters, changed) for changed in (stripped, folded))


def _changes(characters: tf.Tensor, changed: tf.Tensor) -> tf.lookup.StaticHashTable | None:
    differs = characters != changed
    if not tf.reduce_any(differs):
        return None
    return _table(tf.boolean_mask(characters, differs), tf.boolean_mask(changed, differs), _SAME)


def _replace_characters(texts: tf.Tensor, table: tf.lookup.StaticHashTable) -> tf.Tensor:
    """Each character of texts, string [N], becomes what a table has for it."""
    characters = tf.strings.unicode_split(texts, "UTF-8")
    replaced = table.lookup(characters.values)
    replaced = tf.where(replaced == _SAME, characters.values, replaced)
    return tf.strings.reduce_join(characters.with_values(replaced), axis=-1)
