"""Training texts of the relevance study: captions, each joined with each sentence that describes its class."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from mm_keras.data.record_index import read_index
from mm_keras.runs.class_embeddings import read_texts
from tfrecords_tools.dataset.atomic_file import atomic_file
from tfrecords_tools.dataset.folder import Dataset
from tfrecords_tools.dataset.schema import TEXT_PREFIX
from tfrecords_tools.dataset.splits import hash_id

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(]?[A-Z0-9])")
RARE = 100
"""A class with at most as many captions is rare."""


class Caption(NamedTuple):
    """The caption of a record: its id, its text, and the name of its class."""

    id: str
    text: str
    label: str


def read_captions(dataset: Dataset, fields: Sequence[str], split: str = "train") -> list[Caption]:
    """The captions of a split: the texts of the fields, joined. Those of one word or none are left out.

    Raises:
        ValueError: for a field that the dataset lacks, a multi-label dataset, or one without captions.
    """
    unknown = [field for field in fields if field not in dataset.info.text_fields]
    if unknown or not fields:
        raise ValueError(
            f"dataset {dataset.folder} has the text fields {sorted(dataset.info.text_fields)}. Received: {list(fields)}"
        )
    if dataset.info.multi_label:
        raise ValueError(f"dataset {dataset.folder} has several labels an example; a caption is relevant to one class")
    columns = [TEXT_PREFIX + field for field in fields]
    table, _ = read_index(dataset.split(split), ["id", "label/ids", *columns])
    names = dataset.info.labels.names
    rows = zip(
        table["id"].to_pylist(), table["label/ids"].to_pylist(), *(table[name].to_pylist() for name in columns), strict=True
    )
    captions = []
    for record_id, label_ids, *texts in rows:
        text = " ".join(" ".join(part.split()) for field in texts for part in field if part.strip())
        if len(text.split()) > 1:
            captions.append(Caption(record_id, text, names[label_ids[0]]))
    if not captions:
        raise ValueError(f"split {split!r} of dataset {dataset.folder} has no caption of two words or more in {list(fields)}")
    return captions


def longest_sentences(text: str, most: int = 10) -> list[str]:
    """The longest sentences of a class's text, at most `most` of them, in their order; a text of one sentence is itself one.

    Example:
        >>> longest_sentences("A mug. It is a cup with a handle. It holds tea.", most=2)
        ['It is a cup with a handle.', 'It holds tea.']
    """
    sentences = [sentence.strip() for sentence in _SENTENCE_END.split(" ".join(text.split())) if sentence.strip()]
    kept = sorted(range(len(sentences)), key=lambda index: -len(sentences[index]))[:most]
    return [sentences[index] for index in sorted(kept)]


def fold_of(caption_id: str, folds: int) -> int:
    """The fold, 0 … folds - 1, that a caption belongs to; it depends on its id alone."""
    return hash_id(caption_id, "relevance", 0) % folds


def choose_training(labels: Sequence[str], number: int, rare: int = RARE, seed: int = 0) -> np.ndarray:
    """Which captions a model is trained on: bool [N], about `number` of them, drawn class by class.

    All classes give the same fraction, but a rare one at least half of its captions, and every one keeps at least a fifth (of
    one caption none) for testing.
    """
    names = np.asarray(labels)
    chosen = np.zeros(len(names), bool)
    fraction = min(1.0, number / max(len(names), 1))
    for index, name in enumerate(sorted(set(labels))):
        places = np.flatnonzero(names == name)
        most = len(places) - (math.ceil(len(places) / 5) if len(places) > 1 else 0)
        least = math.ceil(len(places) / 2) if len(places) <= rare else 0
        count = min(most, max(least, round(fraction * len(places))))
        chosen[np.random.default_rng((seed, index)).permutation(places)[:count]] = True
    return chosen


def write_pairs(
    dataset: str | Path,
    texts: str | Path,
    output: str | Path,
    fields: Sequence[str],
    number: int = 300_000,
    sentences: int = 10,
    folds: int = 1,
    fold: int = 0,
    seed: int = 0,
) -> Path:
    """Writes pairs.csv, the table that a relevance model is trained on: each caption with each sentence of its class.

    Args:
        dataset: the packed dataset; the captions of its training split are used.
        texts: texts of the classes: JSON Lines of label and text, or a CSV with the columns label and description.
        output: the folder to write into.
        fields: the text fields that make a caption, joined in this order.
        number: how many captions to train on; the others test the model, see `choose_training`.
        sentences: the most sentences of a class, the longest ones; 0 leaves the sentences out.
        folds, fold: with several folds, only captions of other folds than `fold` are used, so that a model scores captions
            that it has not seen.
        seed: another seed draws other captions.

    Returns:
        the table, with the columns id, text, label and split.

    Raises:
        ValueError: for a class that has captions and no text, or what `read_captions` refuses.
    """
    if folds < 1 or not 0 <= fold < folds or sentences < 0 or number < 1:
        raise ValueError(
            f"fold is within 0 … folds - 1, numbers are positive. Received: {fold=}, {folds=}, {sentences=}, {number=}"
        )
    captions = read_captions(Dataset.open(dataset), fields)
    if folds > 1:
        captions = [caption for caption in captions if fold_of(caption.id, folds) != fold]
    by_class = _sentences_of({caption.label for caption in captions}, read_texts(Path(texts)), sentences, texts)
    chosen = choose_training([caption.label for caption in captions], number, seed=seed)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    num_pairs = 0
    with atomic_file(output / "pairs.csv") as path, open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text", "label", "split"])
        for caption, in_training in zip(captions, chosen, strict=True):
            if not in_training:  # a test caption, as it will be scored: without a sentence
                rows.writerow([caption.id, caption.text, caption.label, "val"])
                continue
            for index, sentence in enumerate(by_class[caption.label]):
                num_pairs += 1
                rows.writerow([f"{caption.id}#{index}", f"{caption.text} {sentence}".strip(), caption.label, "train"])
    logging.info(
        f"{output / 'pairs.csv'}: {num_pairs:,} training texts of {int(chosen.sum()):,} captions in {len(by_class):,} classes, "
        f"{int((~chosen).sum()):,} captions to test on"
    )
    return output / "pairs.csv"


def _sentences_of(labels: set[str], texts: Mapping[str, str], most: int, path: str | Path) -> dict[str, list[str]]:
    if not most:
        return {label: [""] for label in labels}
    missing = sorted(label for label in labels if not texts.get(label, "").strip())
    if missing:
        raise ValueError(f"{path} has no text for {len(missing):,} of {len(labels):,} classes with captions: {missing[:5]}")
    return {label: longest_sentences(texts[label], most) for label in labels}
