"""THE batch contract as data: what a batch holds, so that data, model and export agree without importing each other.

A batch is `(features, labels, weights)`. `features` is a flat dict, for an image of 224x224 and a field "title":

    image                float32 [B, 224, 224, 3]   RGB within [0, 255]; towers rescale to their own range themselves
    image_present        bool    [B]                False: no image; the pixels are zeros and mean nothing
    title_token_ids      int32   [B, max_tokens]    0 = padding
    title_padding_mask   bool    [B, max_tokens]    True = a token
    title_present        bool    [B]                False: no text; all tokens are padding

A field that a frozen SavedModel embeds has, instead of tokens,

    title_embedding      float32 [B, D]             zeros where there is no text

and one whose SavedModel is trained, and is hence a part of the model, the string itself:

    title_text           string  [B]                empty where there is none; for one replica alone

`labels` is int32 [B] (multi-class) or float32 [B, num_labels] of 0 and 1 (multi-label); `weights` is float32 [B], 0 for
the examples that fill up the last batch of an evaluation.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from mm_keras.caption_words import CaptionVocabulary

FEATURES_FILE = "features.json"
IMAGE = "image"


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """Size of the image that the tower sees.

    Attributes:
        size: (height, width) in pixels.
        fit: how a picture of another aspect gets there. "crop": the central 7/8 of the largest part of the right aspect, as
            ImageNet's towers are evaluated, or more where 7/8 are fewer pixels than the size. "stretch": all of it, distorted
            (nothing is cut off: products, documents).
    """

    size: tuple[int, int]
    fit: str = "crop"

    def __post_init__(self):
        if len(self.size) != 2 or min(self.size) < 8:
            raise ValueError(f"image size is (height, width), at least 8 pixels each. Received: {self.size}")
        if self.fit not in ("crop", "stretch"):
            raise ValueError(f"fit is 'crop' or 'stretch'. Received: {self.fit!r}")


@dataclasses.dataclass(frozen=True)
class TokenizerSpec:
    """How text becomes token ids.

    Attributes:
        kind: "words": lower-cased runs of letters and digits; id 0 is padding, 1 any word out of the vocabulary.
            "captions": stems of words without stop words, see `mm_keras.caption_words`; id 1 is any word that its
            table does not know. "wordpiece", "byte_pair", "sentencepiece": a pretrained encoder's own, see `family`.
        vocabulary: the token of each id.
        lowercase, strip_accents: of pretrained tokenizers; "words" are always lower-cased and keep their accents.
        captions: of "captions": the table, with the same words as `vocabulary`.
        family: of pretrained tokenizers: keras_hub's class, "BertTokenizer", "RobertaTokenizer", …
        start_id, end_id: of pretrained tokenizers: the tokens around every text, such as [CLS] and [SEP]; None: none.
        merges: of "byte_pair", in their order.
        proto: of "sentencepiece": its model, serialised.
    """

    kind: str
    vocabulary: tuple[str, ...]
    lowercase: bool = True
    strip_accents: bool = False
    captions: CaptionVocabulary | None = None
    family: str | None = None
    start_id: int | None = None
    end_id: int | None = None
    merges: tuple[str, ...] = ()
    proto: bytes = b""

    def save(self, path: Path) -> dict:
        """Writes vocabulary and tables as files of the name `path` and returns the rest, as `load` wants it."""
        # As JSON where a token may hold a line's end.
        if self.kind == "sentencepiece":
            path.with_suffix(".json").write_text(json.dumps(self.vocabulary), "utf-8")
            path.with_suffix(".spm").write_bytes(self.proto)
        else:
            _write_lines(path.with_suffix(".txt"), self.vocabulary)
        if self.kind == "byte_pair":
            _write_lines(path.with_suffix(".merges"), self.merges)
        if self.kind == "captions":
            self.captions.save(path.with_suffix(".json"))
        names = ("kind", "lowercase", "strip_accents", "family", "start_id", "end_id")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def load(cls, path: Path, kind: str, **fields) -> TokenizerSpec:
        """What `save` wrote."""
        if kind == "sentencepiece":
            vocabulary = tuple(json.loads(path.with_suffix(".json").read_text("utf-8")))
            return cls(kind, vocabulary, proto=path.with_suffix(".spm").read_bytes(), **fields)
        merges = _read_lines(path.with_suffix(".merges")) if kind == "byte_pair" else ()
        captions = CaptionVocabulary.load(path.with_suffix(".json")) if kind == "captions" else None
        return cls(kind, _read_lines(path.with_suffix(".txt")), captions=captions, merges=merges, **fields)


@dataclasses.dataclass(frozen=True)
class EmbedderSpec:
    """A SavedModel of strings [B] -> vectors [B, width], such as the Universal Sentence Encoder.

    Attributes:
        path: its folder; of a trained one, where it was before: the model keeps it.
        width: D.
        trainable: it is a part of the model. A frozen one makes its vectors before the model sees them.
    """

    path: str
    width: int
    trainable: bool = False


@dataclasses.dataclass(frozen=True)
class TextSpec:
    """One text field.

    Attributes:
        field: its name in the records.
        tokenizer: how it becomes tokens; None: it has an embedder.
        max_tokens: how many tokens are kept.
        embedder: what makes a vector of it before the model sees it; None: it has a tokenizer.
    """

    field: str
    tokenizer: TokenizerSpec | None
    max_tokens: int = 0
    embedder: EmbedderSpec | None = None

    def __post_init__(self):
        if (self.tokenizer is None) == (self.embedder is None):
            raise ValueError(f"field {self.field!r} has either a tokenizer or an embedder")
        if self.tokenizer and self.max_tokens < 3:
            raise ValueError(f"max_tokens of field {self.field!r} must be at least 3. Received: {self.max_tokens}")
        if self.field in (IMAGE, "text", "all"):
            raise ValueError(
                f"a text field cannot be named {self.field!r}: the name has another meaning in batches and reports"
            )

    def inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name -> (shape without the batch axis, dtype) of what an encoder sees; in a batch, "<field>_" stands before it."""
        if self.embedder and self.embedder.trainable:
            return {"text": ((), "string")}
        if self.embedder:
            return {"embedding": ((self.embedder.width,), "float32")}
        return {"token_ids": ((self.max_tokens,), "int32"), "padding_mask": ((self.max_tokens,), "bool")}


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """All that a model takes in and gives out.

    Attributes:
        image: None: the model sees no image.
        texts: the text fields that the model sees.
        labels: label names by id.
        multi_label: several labels an example, or exactly one.
    """

    image: ImageSpec | None
    texts: tuple[TextSpec, ...]
    labels: tuple[str, ...]
    multi_label: bool

    def __post_init__(self):
        if not self.modalities:
            raise ValueError("a model needs an image, a text field, or both")
        if len(self.labels) < 2:
            raise ValueError(f"a classifier needs at least two labels. Received: {self.labels}")

    @property
    def modalities(self) -> tuple[str, ...]:
        """The image, if any, then the text fields."""
        return ((IMAGE,) if self.image else ()) + tuple(text.field for text in self.texts)

    def inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name -> (shape without the batch axis, dtype) of all that `features` holds."""
        inputs: dict[str, tuple[tuple[int, ...], str]] = {}
        if self.image:
            inputs[IMAGE] = ((*self.image.size, 3), "float32")
        for text in self.texts:
            inputs |= {f"{text.field}_{name}": each for name, each in text.inputs().items()}
        inputs.update({present(modality): ((), "bool") for modality in self.modalities})
        return inputs

    def only(self, modalities: Iterable[str]) -> FeatureSpec:
        """The same task, seen through some of the modalities.

        Raises:
            ValueError: for a modality that is not there.
        """
        kept = set(modalities)
        unknown = sorted(kept - set(self.modalities))
        if unknown:
            raise ValueError(f"no modality {unknown[0]!r}; there are {sorted(self.modalities)}")
        texts = tuple(text for text in self.texts if text.field in kept)
        return dataclasses.replace(self, image=self.image if IMAGE in kept else None, texts=texts)

    def save(self, folder: Path, with_models: bool = True) -> None:
        """Writes features.json and what it refers to.

        That is each distinct tokenizer as vocabulary_<n>.*, see `TokenizerSpec.save`, and a copy of each distinct frozen
        embedder's SavedModel as text_model_<n>/.

        Args:
            folder: where to.
            with_models: False leaves the copies out; the features can then be read, but make no batches.
        """
        tokenizers = list(dict.fromkeys(text.tokenizer for text in self.texts if text.tokenizer))
        embedders = list(dict.fromkeys(text.embedder for text in self.texts if text.embedder))
        for index, embedder in enumerate(embedders):
            if with_models and not embedder.trainable:
                shutil.copytree(embedder.path, folder / f"text_model_{index}")
        content = {
            "image": dataclasses.asdict(self.image) if self.image else None,
            "texts": [
                {
                    "field": text.field,
                    "max_tokens": text.max_tokens,
                    "tokenizer": tokenizers.index(text.tokenizer) if text.tokenizer else None,
                    "embedder": embedders.index(text.embedder) if text.embedder else None,
                }
                for text in self.texts
            ],
            "tokenizers": [each.save(folder / f"vocabulary_{index}") for index, each in enumerate(tokenizers)],
            "embedders": [{"width": each.width, "trainable": each.trainable} for each in embedders],
            "multi_label": self.multi_label,
            "labels": self.labels,
        }
        (folder / FEATURES_FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path) -> FeatureSpec:
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: if the folder holds no features.json: it is no run folder.
        """
        path = folder / FEATURES_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist: {str(folder)!r} is no run folder, or nothing was trained in it yet"
            )
        content = json.loads(path.read_text("utf-8"))
        tokenizers = [
            TokenizerSpec.load(folder / f"vocabulary_{index}", **entry) for index, entry in enumerate(content["tokenizers"])
        ]
        embedders = [
            EmbedderSpec(str(folder / f"text_model_{index}"), **entry) for index, entry in enumerate(content["embedders"])
        ]
        image = content["image"]
        return cls(
            image=ImageSpec(tuple(image["size"]), image["fit"]) if image else None,
            texts=tuple(
                TextSpec(
                    entry["field"],
                    None if entry["tokenizer"] is None else tokenizers[entry["tokenizer"]],
                    entry["max_tokens"],
                    None if entry["embedder"] is None else embedders[entry["embedder"]],
                )
                for entry in content["texts"]
            ),
            labels=tuple(content["labels"]),
            multi_label=content["multi_label"],
        )


def present(modality: str) -> str:
    """Name of a modality's presence flag in a batch."""
    return f"{modality}_present"


def _write_lines(path: Path, lines: tuple[str, ...]) -> None:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())  # as bytes: no line's end is translated


def _read_lines(path: Path) -> tuple[str, ...]:
    return tuple(path.read_bytes().decode().removesuffix("\n").split("\n"))
