"""Pretrained word vectors (GloVe, word2vec, fastText), averaged: a strong, cheap baseline. Pure Keras."""

from __future__ import annotations

import zipfile
from pathlib import Path

import keras
import numpy as np
from absl import logging

from mm_keras.configurable import configurable
from mm_keras.features import TextSpec
from mm_keras.model.layers import MaskedMeanPooling
from mm_keras.model.text_encoder import token_inputs
from mm_keras.model.unpacking import check_unpacked
from tfrecords_tools.progress import progress_bar


@configurable
def build_word_vector_encoder(spec: TextSpec, file: str, trainable: bool = False, name: str = "text_encoder") -> keras.Model:
    """The mean of the pretrained vectors of a text's words.

    Words of the vocabulary that the file lacks are left out of the mean while the vectors are frozen. If the vectors are
    trained, those of such words start at zero and are learned. A text without any known word gives zeros.

    Args:
        spec: the text field, with a tokenizer of kind "words".
        file: the vectors, in GloVe's text format or as .npz. In the text format every line is "word v1 … vD"; a first line of
            counts, as word2vec and fastText write it, is skipped. An .npz holds `words` (strings [N]) and `vectors`
            (float [N, D]). Only the rows of the vocabulary's words are kept.
        trainable: whether the vectors are fine-tuned.
        name: the model's name.

    Returns:
        model: {"token_ids" int32 [B, T], "padding_mask" bool [B, T]} -> [B, D].

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for another kind of tokenizer, a file or line of another form, or a file that has none of the words.
    """
    inputs = token_inputs(spec)
    if spec.tokenizer.kind != "words":
        raise ValueError(
            f"word vectors are of whole words: field {spec.field!r} has a tokenizer of kind {spec.tokenizer.kind!r}; bind "
            "make_features.make_tokenizer = @make_word_tokenizer"
        )
    table = read_word_vectors(Path(file), spec.tokenizer.vocabulary)
    known = int(np.any(table, axis=1).sum())
    if not known:
        raise ValueError(f"{file} has a vector for none of the {len(table):,} words of field {spec.field!r}")
    logging.info(f"{file}: vectors of {table.shape[1]} numbers for {known:,} of {len(table):,} words")
    layer = keras.layers.Embedding(*table.shape, trainable=trainable, name="word_vectors")
    vectors, mask = layer(inputs["token_ids"]), inputs["padding_mask"]
    layer.set_weights([table])
    if not trainable:
        mask = keras.ops.logical_and(mask, keras.ops.any(vectors != 0, axis=-1))
    return keras.Model(inputs, MaskedMeanPooling(name="pool")(vectors, mask), name=name)


def read_word_vectors(file: Path, vocabulary: tuple[str, ...]) -> np.ndarray:
    """Reads the vectors of a vocabulary's words: float32 [len(vocabulary), D], with zeros for a word that the file lacks.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file or line of another form, or an .npz that would unpack to many times its size.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; word vectors are GloVe's text format, or .npz of words and vectors")
    rows = {word: index for index, word in enumerate(vocabulary)}
    if file.suffix == ".npz":
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as members:
                check_unpacked(file, sum(member.file_size for member in members.infolist()))
        with np.load(file) as arrays:
            if not {"words", "vectors"} <= set(arrays) or len(arrays["words"]) != len(arrays["vectors"]):
                shapes = {name: arrays[name].shape for name in arrays}
                raise ValueError(f"{file} must hold words [N] and vectors [N, D]. Received: {shapes}")
            words, vectors = arrays["words"], arrays["vectors"]
        table = np.zeros((len(vocabulary), vectors.shape[1]), "float32")
        for word, vector in zip(words, vectors, strict=True):
            if str(word) in rows:
                table[rows[str(word)]] = vector
        return table
    table = None
    with open(file, "rb") as lines, progress_bar("reading word vectors", "B", file.stat().st_size) as bar:
        for number, line in enumerate(lines, start=1):
            bar.update(len(line))
            parts = line.rstrip().split(b" ")
            if number == 1 and len(parts) == 2 and all(part.isdigit() for part in parts):
                continue
            if table is None:
                table = np.zeros((len(vocabulary), len(parts) - 1), "float32")
            # The numbers are counted from the line's end, since some words of GloVe's 840B file contain spaces.
            word = b" ".join(parts[: -table.shape[1] or None]).decode("utf-8", "replace")
            if word not in rows:
                continue
            try:
                table[rows[word]] = np.array(parts[-table.shape[1] :], "float32")
            except ValueError as error:
                raise ValueError(
                    f"{file}, line {number}: not a word and {table.shape[1]} numbers, as in its first line: {line[:60]!r}"
                ) from error
    if table is None or not table.shape[1]:
        raise ValueError(f"{file} holds no word vectors: a line is a word and its numbers, with single spaces between them")
    return table
