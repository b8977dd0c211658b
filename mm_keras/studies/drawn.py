"""The data of the miniatures, drawn in the raw formats of the published data sets, so that the studies' own commands run."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mm_keras.studies.drawn_encoders import write_tiny_bert, write_tiny_sentence_encoder
from tfrecords_tools.sources import sample
from tfrecords_tools.sources.example import SourceExample

_POSITIONS = 128
_CLASSES = tuple(f"{material} {item}" for item in sample.ITEMS for material in sample.MATERIALS)
_SENTENCES = (
    "What is called {name} is made of {phrase}, as its name says.",
    "It is known for {phrase}, which is worked by hand.",
    "In many homes one finds {phrase} of this kind.",
)


def draw_webvision(folder: Path, num_examples: int = 600) -> None:
    """A WebVision folder as version 1.0 is released: 20 classes, each "found by" a query of its own."""
    rows: dict[str, list[SourceExample]] = {name: [] for name in _CLASSES}
    for example in sample.iter_examples(num_examples, seed=1):
        rows[example.labels[0]].append(example)
    lines, metas = [], []
    for label, examples in enumerate(rows.values()):
        (folder / "google" / f"q{label:04d}").mkdir(parents=True)
        entries = []
        for number, example in enumerate(examples, start=1):
            path = f"google/q{label:04d}/{example.id}.jpg"
            (folder / path).write_bytes(example.image)
            entries.append({"id": example.id, **{field: texts[0] for field, texts in example.texts.items()}})
            lines.append(f"{path} {label}\n")
            metas.append(f"google/q{label:04d}.json {number}\n")
        (folder / "google" / f"q{label:04d}.json").write_text(json.dumps(entries), "utf-8")
    (folder / "info").mkdir()
    synsets = "".join(f"n{label:08d} {name}\n" for label, name in enumerate(_CLASSES))
    (folder / "info" / "synsets.txt").write_text(synsets, "utf-8")
    (folder / "info" / "train_filelist_google.txt").write_text("".join(lines), "utf-8")
    (folder / "info" / "train_meta_list_google.txt").write_text("".join(metas), "utf-8")


def draw_text_encoders(folder: Path) -> None:
    """`use/` and `bert/`: stand-ins for the Universal Sentence Encoder and for BERT, with random weights."""
    texts = (text for example in sample.iter_examples(200, seed=1) for texts in example.texts.values() for text in texts)
    words = sorted(
        {word for text in texts for word in text.lower().replace(",", " ").replace(".", " ").split() if word.isalpha()}
    )
    write_tiny_bert(folder / "bert", words, _POSITIONS)
    write_tiny_sentence_encoder(folder / "use")


def draw_captions(folder: Path, num_examples: int = 600) -> None:
    """`train.csv` as the captions of COMP5329 are: ImageID, Labels (several, by spaces), Caption; and `images/`."""
    (folder / "images").mkdir(parents=True)
    with open(folder / "train.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["ImageID", "Labels", "Caption"])
        for example in sample.iter_examples(num_examples, seed=2, multi_label=True):
            (folder / "images" / f"{example.id}.jpg").write_bytes(example.image)
            caption = " ".join(text for texts in example.texts.values() for text in texts if text)
            rows.writerow([f"images/{example.id}.jpg", " ".join(example.labels), caption])


def write_class_texts(path: Path, classes: Mapping[str, Sequence[str]], label: str = "label") -> None:
    """Writes a CSV of classes and texts about them, as an encyclopaedia has them, with the columns `label` and description.

    Args:
        path: the file.
        classes: maps each class to three words or phrases that its text shall hold.
        label: the name of the first column.
    """
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow([label, "description"])
        for name, phrases in classes.items():
            text = (sentence.format(name=name, phrase=phrase) for sentence, phrase in zip(_SENTENCES, phrases, strict=True))
            rows.writerow([name, " ".join(text)])
