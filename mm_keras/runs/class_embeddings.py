"""Embeds classes by texts that describe them. The frozen text encoder is kept with the run, so that classes can be added."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from mm_keras.configurable import PositiveInt, configurable
from mm_keras.data.text import make_tokenizer, make_word_tokenizer
from mm_keras.features import EmbeddedText, EmbedderSpec, FeatureSpec, TokenizerSpec, TokenText
from mm_keras.model.text_encoder import build_small_text_encoder
from mm_keras.runs.load_model import load_model
from mm_keras.tf_text_model.embedder import SavedModelEmbedder
from tfrecords_tools.dataset.atomic_file import atomic_file, write_text
from tfrecords_tools.dataset.checksums import check
from tfrecords_tools.dataset.folder import Dataset
from tfrecords_tools.dataset.info import CLASS_DESCRIPTIONS_FILE
from tfrecords_tools.progress import progress_bar
from tfrecords_tools.sources.files import read_class_texts

_ENCODER_FILE = "encoder.keras"
_BATCH_SIZE = 64


class ClassEncoder:
    """A frozen text encoder with its tokenizer; it maps N texts to embeddings float32 [N, D].

    Args:
        spec: the tokenizer and the number of tokens that are read, or the SavedModel of strings.
        encoder: {"token_ids" int32 [B, T], "padding_mask" bool [B, T]} -> [B, D]; None for a SavedModel.
    """

    def __init__(self, spec: TokenText | EmbeddedText, encoder: keras.Model | None):
        self._spec = spec
        self._encoder = encoder
        if encoder:
            encoder.trainable = False
            self._tokenize = make_tokenizer(spec.tokenizer)
        else:
            self._embedder = SavedModelEmbedder(spec.embedder.path)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        embeddings = []
        with progress_bar("embedding classes", "classes", len(texts), shown=len(texts) > _BATCH_SIZE) as bar:
            for start in range(0, len(texts), _BATCH_SIZE):
                batch = [text.strip() for text in texts[start : start + _BATCH_SIZE]]
                embeddings.append(self._embed(tf.constant(batch)).numpy().astype("float32"))
                bar.update(len(batch))
        return np.concatenate(embeddings)

    def _embed(self, texts: tf.Tensor) -> tf.Tensor:
        if not self._encoder:
            return self._embedder(texts)
        token_ids, padding_mask = self._tokenize(texts, self._spec.max_tokens)
        return self._encoder({"token_ids": token_ids, "padding_mask": padding_mask}, training=False)

    def save(self, folder: Path) -> None:
        """Writes the encoder and its tokenizer to a new folder."""
        folder.mkdir(parents=True)
        if self._encoder:
            with atomic_file(folder / _ENCODER_FILE) as temporary:
                self._encoder.save(temporary)
        # A FeatureSpec can save a tokenizer or a SavedModel; its labels are placeholders here.
        FeatureSpec(image=None, texts=(self._spec,), labels=("", ""), multi_label=False).save(folder)

    @classmethod
    def load(cls, folder: Path) -> ClassEncoder:
        """Reads what `save` wrote; raises DamagedFileError if it is something else now."""
        check(folder)
        (spec,) = FeatureSpec.load(folder).texts
        return cls(spec, None if isinstance(spec, EmbeddedText) else load_model(folder / _ENCODER_FILE))


@dataclasses.dataclass(frozen=True)
class ClassEmbeddings:
    """The embeddings of classes that a class-embedding head compares examples with.

    Attributes:
        texts: label -> its text, in the order of the labels.
        values: embeddings, float32 [num_labels, D].
        encoder: the encoder that made them.
    """

    texts: dict[str, str]
    values: np.ndarray
    encoder: ClassEncoder

    def save(self, folder: Path) -> None:
        """Writes the encoder, which can embed further classes, and the texts."""
        self.encoder.save(folder)
        write_class_texts(folder, self.texts)


@configurable
def embed_classes(
    dataset: str | Path | Dataset,
    texts: str | None = CLASS_DESCRIPTIONS_FILE,
    names_for_missing: bool = False,
    text_encoder: Callable[..., keras.Model] = build_small_text_encoder,
    make_tokenizer: Callable[..., TokenizerSpec] = make_word_tokenizer,
    max_tokens: PositiveInt = 64,
    make_embedder: Callable[[], EmbedderSpec] | None = None,
) -> ClassEmbeddings:
    """Embeds the labels of a dataset for `build_class_embedding_head`.

    Args:
        dataset: the dataset, or its folder.
        texts: file with the texts of the classes: JSON Lines of label and text, as `tfrecords-tools collect wikipedia` writes
            them, or a CSV with the columns label and description. It is a path, or a file in the dataset folder. None: the
            names of the labels are their texts.
        names_for_missing: use a label's name if it has no text.
        text_encoder: `(TextSpec, name=) -> model`, which is frozen. A pretrained one knows words that no class contains.
        make_tokenizer: `(batches of texts) -> TokenizerSpec` of the encoder.
        max_tokens: number of tokens of a text that are read.
        make_embedder: `() -> EmbedderSpec` of a SavedModel of strings, such as the Universal Sentence Encoder, which replaces
            encoder and tokenizer; see `make_saved_model_embedder`. It stays as it was published, even if the model fine-tunes
            another copy of it.

    Raises:
        FileNotFoundError: if there is no such file of texts.
        ValueError: for rows that are no texts, or a label without one.
    """
    dataset = Dataset.open(dataset)
    names = dataset.info.labels.names
    label_texts = dict(zip(names, names, strict=True))
    if texts is not None:
        descriptions = read_texts(next((path for path in (Path(texts), dataset.folder / texts) if path.is_file()), Path(texts)))
        missing = [name for name in names if not descriptions.get(name, "").strip()]
        if missing and not names_for_missing:
            raise ValueError(
                f"{texts} has no text for {len(missing):,} of {len(names):,} labels: {missing[:5]}…; add them, or set "
                "embed_classes.names_for_missing = True to embed them by their names"
            )
        label_texts |= {name: descriptions[name] for name in names if name not in set(missing)}
    if make_embedder:
        spec = EmbeddedText("class_text", dataclasses.replace(make_embedder(), trainable=False))
    else:
        spec = TokenText("class_text", make_tokenizer([[text.encode() for text in label_texts.values()]]), max_tokens)
    encoder = ClassEncoder(spec, None if make_embedder else text_encoder(spec, name="class_encoder"))
    values = encoder(list(label_texts.values()))
    report_equal(names, values)
    return ClassEmbeddings(label_texts, values, encoder)


def read_texts(path: Path) -> dict[str, str]:
    """Reads a file of class texts: label -> text.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: for the first row that is no label with a text.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; class texts are JSON Lines of label and text, or a CSV of label and description. "
            "Bind embed_classes.texts to such a file, or to None to embed the labels' names"
        )
    check(path)
    texts, problems = read_class_texts(path, ("label", "description"), {})
    for where, reason in problems:
        raise ValueError(f"{path}: {where}: {reason}")
    return texts


def report_equal(names: Sequence[str], embeddings: np.ndarray) -> None:
    """Prints which classes have equal embeddings, so that no head can tell them apart."""
    _, first, group = np.unique(embeddings.round(6), axis=0, return_index=True, return_inverse=True)
    pairs = [
        f"{names[index]!r} and {names[first[number]]!r}" for index, number in enumerate(group.ravel()) if first[number] != index
    ]
    if pairs:
        logging.info(f"{len(pairs):,} classes have the embedding of another and cannot be told from it: {', '.join(pairs[:5])}")


def write_class_texts(folder: Path, texts: dict[str, str]) -> None:
    """Writes class_descriptions.jsonl, with a line for each class."""
    lines = (json.dumps({"label": label, "text": text}, ensure_ascii=False) + "\n" for label, text in texts.items())
    write_text(folder / CLASS_DESCRIPTIONS_FILE, "".join(lines))
