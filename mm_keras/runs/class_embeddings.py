"""Embeddings of classes, from texts that describe them, by a frozen text encoder that stays with the run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from mm_keras.configurable import PositiveInt, configurable
from mm_keras.data.text import make_tokenizer, make_word_tokenizer
from mm_keras.features import EmbeddedText, EmbedderSpec, FeatureSpec, TokenizerSpec, TokenText
from mm_keras.model.text_encoder import build_small_text_encoder
from mm_keras.runs.load_model import load_model
from mm_keras.tf_text_model.embedder import SavedModelEmbedder
from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.folder import Dataset
from tfrecords_tools.dataset.info import CLASS_DESCRIPTIONS_FILE
from tfrecords_tools.progress import progress_bar
from tfrecords_tools.sources.files import read_class_texts

_ENCODER_FILE = "encoder.keras"
_BATCH_SIZE = 64


class ClassEncoder:
    """A frozen text encoder with its tokenizer. Call it with texts [N]: it gives their embeddings, float32 [N, D].

    Args:
        spec: its tokenizer, and how many tokens of a text are read; or the SavedModel of strings that it is.
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
        """Writes the encoder and its tokenizer into a new folder."""
        folder.mkdir(parents=True)
        if self._encoder:
            self._encoder.save(folder / _ENCODER_FILE)
        # A spec of features knows how to keep a tokenizer or a SavedModel; its labels mean nothing here.
        FeatureSpec(image=None, texts=(self._spec,), labels=("", ""), multi_label=False).save(folder)

    @classmethod
    def load(cls, folder: Path) -> ClassEncoder:
        """What `save` wrote."""
        (spec,) = FeatureSpec.load(folder).texts
        return cls(spec, None if isinstance(spec, EmbeddedText) else load_model(folder / _ENCODER_FILE))


@dataclasses.dataclass(frozen=True)
class ClassEmbeddings:
    """Classes as a head compares with them.

    Attributes:
        texts: label -> its text, in the order of the labels.
        values: float32 [num_labels, D].
        encoder: by which they were embedded.
    """

    texts: dict[str, str]
    values: np.ndarray
    encoder: ClassEncoder

    def save(self, folder: Path) -> None:
        """Writes what it takes to embed further classes alike, and the texts."""
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
        texts: texts of the classes: JSON Lines of label and text, as `tfrecords-tools collect wikipedia` writes them, or a CSV
            with columns label, description; a path, or a file of the dataset folder. None: the labels' names are their texts.
        names_for_missing: let the name stand for the text of a label that has none.
        text_encoder: `(TextSpec, name=) -> model`; it is frozen. A pretrained one knows words that no class has told it.
        make_tokenizer: `(batches of texts) -> tokenizer` of the encoder.
        max_tokens: how many tokens of a text are read.
        make_embedder: `() -> embedder`: a SavedModel of strings, such as the Universal Sentence Encoder, instead of an encoder
            and its tokenizer; see `make_saved_model_embedder`. It is as it was published, also where texts fine-tune it.

    Raises:
        FileNotFoundError: if there is no such file of texts.
        ValueError: for rows that are no texts, or a label without one.
    """
    dataset = Dataset.open(dataset)
    names = dataset.info.labels.names
    of_labels = dict(zip(names, names, strict=True))
    if texts is not None:
        found = read_texts(next((path for path in (Path(texts), dataset.folder / texts) if path.is_file()), Path(texts)))
        missing = [name for name in names if not found.get(name, "").strip()]
        if missing and not names_for_missing:
            raise ValueError(
                f"{texts} has no text for {len(missing):,} of {len(names):,} labels: {missing[:5]}…; add them, or set "
                "embed_classes.names_for_missing = True to embed them by their names"
            )
        of_labels |= {name: found[name] for name in names if name not in set(missing)}
    if make_embedder:
        spec = EmbeddedText("class_text", dataclasses.replace(make_embedder(), trainable=False))
    else:
        spec = TokenText("class_text", make_tokenizer([[text.encode() for text in of_labels.values()]]), max_tokens)
    encoder = ClassEncoder(spec, None if make_embedder else text_encoder(spec, name="class_encoder"))
    values = encoder(list(of_labels.values()))
    report_equal(names, values)
    return ClassEmbeddings(of_labels, values, encoder)


def read_texts(path: Path) -> dict[str, str]:
    """Label -> text of a file of class texts.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: for the first row that is none.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; class texts are JSON Lines of label and text, or a CSV of label and description. "
            "Bind embed_classes.texts to such a file, or to None to embed the labels' names"
        )
    texts, problems = read_class_texts(path, ("label", "description"), {})
    for where, reason in problems:
        raise ValueError(f"{path}: {where}: {reason}")
    return texts


def report_equal(names: Sequence[str], embeddings: np.ndarray) -> None:
    """Prints which classes no head can tell apart, because their texts are the same to the encoder."""
    _, first, group = np.unique(embeddings.round(6), axis=0, return_index=True, return_inverse=True)
    pairs = [
        f"{names[index]!r} and {names[first[which]]!r}" for index, which in enumerate(group.ravel()) if first[which] != index
    ]
    if pairs:
        print(f"{len(pairs):,} classes have the embedding of another and cannot be told from it: {', '.join(pairs[:5])}")


def write_class_texts(folder: Path, texts: dict[str, str]) -> None:
    """Writes class_descriptions.jsonl, a line a class."""
    lines = (json.dumps({"label": label, "text": text}, ensure_ascii=False) + "\n" for label, text in texts.items())
    write_text(folder / CLASS_DESCRIPTIONS_FILE, "".join(lines))
