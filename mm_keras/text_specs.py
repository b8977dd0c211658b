"""The kinds of text inputs: tokens, vectors of a frozen SavedModel, strings for one that is trained. A part of `features`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from mm_keras.input_names import input_name, safe_name
from mm_keras.tokenizer_spec import TokenizerSpec


@dataclasses.dataclass(frozen=True)
class EmbedderSpec:
    """A SavedModel of strings [B] -> vectors [B, width], such as the Universal Sentence Encoder.

    Attributes:
        path: the SavedModel's folder. Of a trainable one it is the folder that training started from: the Keras model has its
            own copy.
        width: D, the length of a vector.
        trainable: whether the SavedModel is a part of the model, which fine-tunes it. The input pipeline calls a frozen one.
    """

    path: str
    width: int
    trainable: bool = False


@dataclasses.dataclass(frozen=True)
class TextSpec:
    """One text field of the records, and the form in which the model sees it: one of the three classes below.

    Attributes:
        kind: the form: "tokens", "embedding" or "string". Saved features are loaded by it.
        field: the field's name in the records.
    """

    kind: ClassVar[str]
    field: str

    @property
    def name(self) -> str:
        """The field's name among the model's inputs, for people: "title", and "text/image" of a field named "image"."""
        return input_name(self.field)

    @property
    def key(self) -> str:
        """The field's name inside of models and exports: "review_text_42d93221" of a field named "Review Text"."""
        return safe_name(self.name)

    def inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """The inputs of this field's encoder: name -> (shape without the batch axis, dtype)."""
        raise NotImplementedError

    def batch_names(self) -> dict[str, str]:
        """Name of an encoder's input -> its name in a batch, such as "token_ids" -> "title_token_ids"."""
        return {name: f"{self.key}_{name}" for name in self.inputs()}

    def describe(self) -> str:
        """What the model sees of the field, for messages: "64 tokens of 30,522 (wordpiece)"."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class TokenText(TextSpec):
    """A text field that the model sees as tokens.

    Attributes:
        tokenizer: turns the text into token ids.
        max_tokens: how many tokens are kept, at least 3; start and end tokens count.
    """

    kind = "tokens"
    tokenizer: TokenizerSpec
    max_tokens: int

    def __post_init__(self):
        if self.max_tokens < 3:
            raise ValueError(f"max_tokens of field {self.field!r} must be at least 3. Received: {self.max_tokens}")

    def inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        return {"token_ids": ((self.max_tokens,), "int32"), "padding_mask": ((self.max_tokens,), "bool")}

    def describe(self) -> str:
        return f"{self.max_tokens} tokens of {len(self.tokenizer.vocabulary):,} ({self.tokenizer.kind})"


@dataclasses.dataclass(frozen=True)
class SavedModelText(TextSpec):
    """A text field that a SavedModel embeds: before the model sees it, or within the model.

    Attributes:
        embedder: the SavedModel.
    """

    trainable: ClassVar[bool]
    embedder: EmbedderSpec

    def __post_init__(self):
        if self.embedder.trainable != self.trainable:
            raise ValueError(
                f"field {self.field!r} is a {type(self).__name__}, whose embedder has trainable={self.trainable}. Received: "
                f"{self.embedder}"
            )


@dataclasses.dataclass(frozen=True)
class EmbeddedText(SavedModelText):
    """A text field that the model sees as a vector, which a frozen SavedModel makes in the input pipeline."""

    kind = "embedding"
    trainable = False

    def inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        return {"embedding": ((self.embedder.width,), "float32")}

    def describe(self) -> str:
        return f"{self.embedder.width} numbers of a SavedModel"


@dataclasses.dataclass(frozen=True)
class StringText(SavedModelText):
    """A text field that the model sees as a string, for a SavedModel that is a part of the model and is trained."""

    kind = "string"
    trainable = True

    def inputs(self) -> dict[str, tuple[tuple[int, ...], str]]:
        return {"text": ((), "string")}

    def describe(self) -> str:
        return "a string"


def make_saved_model_text(field: str, embedder: EmbedderSpec) -> SavedModelText:
    """The text field in the form that its embedder asks for."""
    return (StringText if embedder.trainable else EmbeddedText)(field, embedder)


def load_text(kind: str, field: str, made_by: dict[str, list], key: str | None = None, **entry) -> TextSpec:
    """The text field of an entry of features.json, which names tokenizers and embedders by their numbers in `made_by`."""
    classes = {text_class.kind: text_class for text_class in (TokenText, EmbeddedText, StringText)}
    text = classes[kind](field, **{name: made_by[name][value] if name in made_by else value for name, value in entry.items()})
    if text.key != (key or field):
        raise ValueError(
            f"features.json says that text field {field!r} is {key or field!r} inside of the model, where this release looks "
            f"for {text.key!r}: train the run again, or use the release that wrote it"
        )
    return text
