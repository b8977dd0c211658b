"""How text becomes token ids, as data that is saved with a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from mm_keras.caption_words import CaptionVocabulary


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


def _write_lines(path: Path, lines: tuple[str, ...]) -> None:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())  # as bytes: no line's end is translated


def _read_lines(path: Path) -> tuple[str, ...]:
    return tuple(path.read_bytes().decode().removesuffix("\n").split("\n"))
