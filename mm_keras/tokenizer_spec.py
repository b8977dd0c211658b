"""How text becomes token ids, as data that is saved with a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from mm_keras.caption_words import CaptionVocabulary
from tfrecords_tools.dataset.atomic_file import write_bytes, write_text


@dataclasses.dataclass(frozen=True)
class TokenizerSpec:
    """How text becomes token ids.

    Attributes:
        kind: which tokenizer it is.
            "words" splits into lower-cased runs of letters and digits, and into the characters of scripts without spaces. Id 0
            is padding, and 1 is any word that the vocabulary lacks.
            "captions" leaves out stop words and takes the stems of the others, see `mm_keras.caption_words`. Id 1 is any word
            that its table lacks.
            "wordpiece", "byte_pair" and "sentencepiece" are tokenizers of pretrained encoders; `family` says of which.
        vocabulary: the token of each id.
        lowercase, strip_accents: what a pretrained tokenizer does to a text first. "words" are always lower-cased and keep
            their accents.
        by_character: whether "words" splits scripts without spaces by character, see `mm_keras.scripts`; in runs of older
            versions it does not.
        captions: the table of "captions"; it has the same words as `vocabulary`.
        family: the class of a pretrained tokenizer in keras_hub: "BertTokenizer", "RobertaTokenizer", …
        start_id, end_id: the ids of the tokens that a pretrained tokenizer puts around every text, such as [CLS] and [SEP];
            None where it puts none.
        merges: the merges of "byte_pair", in their order.
        proto: the serialised model of "sentencepiece".
    """

    kind: str
    vocabulary: tuple[str, ...]
    lowercase: bool = True
    strip_accents: bool = False
    by_character: bool = True
    captions: CaptionVocabulary | None = None
    family: str | None = None
    start_id: int | None = None
    end_id: int | None = None
    merges: tuple[str, ...] = ()
    proto: bytes = b""

    def save(self, path: Path) -> dict:
        """Writes the vocabulary and the tables into files.

        Args:
            path: the files' name without a suffix.

        Returns:
            the other attributes, as JSON values, by the names of `load`'s arguments.
        """
        # JSON, since a token of SentencePiece may contain a line break.
        if self.kind == "sentencepiece":
            write_text(path.with_suffix(".json"), json.dumps(self.vocabulary))
            write_bytes(path.with_suffix(".spm"), self.proto)
        else:
            _write_lines(path.with_suffix(".txt"), self.vocabulary)
        if self.kind == "byte_pair":
            _write_lines(path.with_suffix(".merges"), self.merges)
        if self.kind == "captions":
            self.captions.save(path.with_suffix(".json"))
        names = ("kind", "lowercase", "strip_accents", "by_character", "family", "start_id", "end_id")
        return {name: getattr(self, name) for name in names}

    @property
    def unknown_id(self) -> int | None:
        """The id of any token that the vocabulary lacks; None for a tokenizer that knows every byte."""
        names = [name for name in ("[UNK]", "<unk>") if name in self.vocabulary]
        return self.vocabulary.index(names[0]) if names and self.kind != "byte_pair" else None

    @classmethod
    def load(cls, path: Path, kind: str, **fields) -> TokenizerSpec:
        """Loads a tokenizer from the files and attributes that `save` wrote and returned."""
        fields = {"by_character": False} | fields
        if kind == "sentencepiece":
            vocabulary = tuple(json.loads(path.with_suffix(".json").read_text("utf-8")))
            return cls(kind, vocabulary, proto=path.with_suffix(".spm").read_bytes(), **fields)
        merges = _read_lines(path.with_suffix(".merges")) if kind == "byte_pair" else ()
        captions = CaptionVocabulary.load(path.with_suffix(".json")) if kind == "captions" else None
        return cls(kind, _read_lines(path.with_suffix(".txt")), captions=captions, merges=merges, **fields)


def _write_lines(path: Path, lines: tuple[str, ...]) -> None:
    write_text(path, "".join(f"{line}\n" for line in lines))


def _read_lines(path: Path) -> tuple[str, ...]:
    return tuple(path.read_bytes().decode().removesuffix("\n").split("\n"))
