"""The section "Why": for some predictions, what each input, part of the picture and word contributed, and what is similar."""

from __future__ import annotations

import itertools
import re

import numpy as np
import tensorflow as tf

from mm_keras.data.preprocess import read_images
from mm_keras.distribution.preemption import end_if_asked
from mm_keras.features import IMAGE, present
from mm_keras.report.evidence import Evidence, describe
from mm_keras.report.loaded_run import Inputs, image_encoder, text_encoder
from mm_keras.report.neighbours import nearest
from mm_keras.report.subsets import shapley_values

_RIGHT, _WRONG, _UNSURE = 6, 8, 6  # examples of each kind
_GRID = 5  # parts of a picture along each side
_MOST_TAKEN_APART = 8  # examples whose pictures and texts are looked at in parts
_MOST_PARTS = 8  # of a text that are left out in turn
_MOST_WORDS = 40  # of a text that are looked at
_TEXTS = 512  # encoded at once
_NEIGHBOURS = 5


def make_why(evidence: Evidence) -> dict:
    """The section's content, as JSON values."""
    chosen = _alternating(_choose(evidence))
    rows = np.array([row for row, _ in chosen], int)
    top = evidence.probabilities[rows].argmax(axis=1)  # the most probable label of each
    examples = [
        evidence.describe(row, kind=kind, label=evidence.names[label]) for (row, kind), label in zip(chosen, top, strict=True)
    ]
    inputs = {name: array[rows] for name, array in evidence.inputs.items()}
    _add_contributions(evidence, examples, inputs, top)
    if evidence.loaded.encoders:  # a late fusion has several models, whose encoders cannot be asked apart
        if IMAGE in evidence.modalities:
            _add_regions(evidence, examples, inputs, top)
        for modality in evidence.modalities:
            if modality != IMAGE and evidence.features.text(modality).kind != "string":
                _add_words(evidence, modality, examples, inputs, top)
    if evidence.train:
        _add_neighbours(evidence, examples)
    return {"examples": examples, "grid": _GRID}


def _choose(evidence: Evidence) -> list[tuple[int, str]]:
    """The rows that are explained, each with the reason: the surest errors, the least sure, and some of the right ones."""
    rng, kinds = np.random.default_rng(evidence.seed), {}
    order = np.argsort(-evidence.confidence, kind="stable")
    if evidence.labels is None:
        picked = [(row, "unsure") for row in order[::-1][:_UNSURE]] + [(row, "sure") for row in order[: _RIGHT + _WRONG]]
    else:
        wrong = order[~evidence.right[order]]
        right = rng.permutation(order[evidence.right[order]])
        picked = [(row, "wrong") for row in wrong[:_WRONG]]
        picked += [(row, "unsure") for row in order[::-1][:_UNSURE]]
        picked += [(row, "right") for row in right[: _RIGHT + _WRONG - min(_WRONG, len(wrong))]]
    for row, kind in picked:
        kinds.setdefault(int(row), kind)
    return list(kinds.items())


def _alternating(chosen: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """The same pairs, each kind in turn, since only the first ones are taken apart."""
    kinds = {kind: [pair for pair in chosen if pair[1] == kind] for _, kind in chosen}
    turns = itertools.zip_longest(*kinds.values())
    return [pair for turn in turns for pair in turn if pair]


def _add_contributions(evidence: Evidence, examples: list[dict], inputs: Inputs, top: np.ndarray) -> None:
    """Adds "contributions": the exact Shapley values of the inputs for the probability of the most probable label."""
    number = len(evidence.modalities)
    if len(evidence.subsets) < 1 << number:  # too many inputs
        return
    answers = [
        evidence.loaded.probabilities(inputs, [bool(subset >> place & 1) for place in range(number)])[np.arange(len(top)), top]
        for subset in range(1 << number)
    ]
    values = shapley_values(np.stack(answers))
    for place, example in enumerate(examples):
        shares = zip(evidence.modalities, values[:, place].tolist(), strict=True)
        example["contributions"] = [{"input": modality, "value": value} for modality, value in shares]
        example["with_nothing"], example["with_all"] = float(answers[0][place]), float(answers[-1][place])


def _add_regions(evidence: Evidence, examples: list[dict], inputs: Inputs, top: np.ndarray) -> None:
    """Adds "regions" [5][5]: how far the probability falls where a part of the picture has the mean colour."""
    shown = [place for place, example in enumerate(examples) if example["has_image"]][:_MOST_TAKEN_APART]
    if not shown:
        return
    spec = evidence.features.image
    encoded = [evidence.examples.image(examples[place]["row"]) for place in shown]
    pixels = read_images(tf.constant(encoded), spec)[0].numpy()
    hidden = np.concatenate([_partly_hidden(picture) for picture in pixels])
    end_if_asked()
    places = np.repeat(shown, len(hidden) // len(shown))
    hidden_inputs = {name: array[places] for name, array in inputs.items()} | image_encoder(evidence.loaded)(hidden)
    answers = evidence.loaded.probabilities(hidden_inputs)[np.arange(len(places)), top[places]].reshape(len(shown), -1)
    for place, (whole, *without) in zip(shown, answers.astype(float).tolist(), strict=True):
        examples[place]["regions"] = (whole - np.array(without)).reshape(_GRID, _GRID).tolist()


def _partly_hidden(pixels: np.ndarray) -> np.ndarray:
    """The picture float32 [H, W, 3], and once for each of its 5 x 5 parts with that part in the mean colour: [26, H, W, 3]."""
    rows, columns = (np.linspace(0, size, _GRID + 1).round().astype(int) for size in pixels.shape[:2])
    hidden = np.repeat(pixels[np.newaxis], _GRID * _GRID + 1, axis=0)
    for number in range(_GRID * _GRID):
        row, column = divmod(number, _GRID)
        hidden[number + 1, rows[row] : rows[row + 1], columns[column] : columns[column + 1]] = pixels.mean(axis=(0, 1))
    return hidden


def _add_words(evidence: Evidence, modality: str, examples: list[dict], inputs: Inputs, top: np.ndarray) -> None:
    """Adds "words" {field: [[text, value], …]}: how far the probability falls where a part of a text is left out."""
    texts, parts_of = [], {}
    for place, example in enumerate(examples[:_MOST_TAKEN_APART]):
        parts = split_text(evidence.examples.texts[modality][example["row"]])
        if parts:
            parts_of[place] = parts
            texts += [(place, "".join(parts)), *((place, "".join(parts[:n] + parts[n + 1 :])) for n in range(len(parts)))]
    if not texts:
        return
    encode, answers = text_encoder(evidence.loaded, modality), []
    for start in range(0, len(texts), _TEXTS):
        end_if_asked()
        batch = texts[start : start + _TEXTS]
        places = np.array([place for place, _ in batch])
        batch_inputs = {name: array[places] for name, array in inputs.items()} | encode([text for _, text in batch])
        batch_inputs[present(modality)] = np.array([bool(text.strip()) for _, text in batch])
        answers.append(evidence.loaded.probabilities(batch_inputs)[np.arange(len(batch)), top[places]])
    values, start = np.concatenate(answers), 0
    for place, parts in parts_of.items():
        whole, *without = values[start : start + len(parts) + 1].tolist()
        start += len(parts) + 1
        words = [[part, whole - value] for part, value in zip(parts, without, strict=True)]
        examples[place].setdefault("words", {})[modality] = words


def split_text(text: str, most: int = _MOST_PARTS) -> list[str]:
    """Cuts a text into at most so many parts of whole words, which together are its first 40 words.

    Example:
        >>> split_text("Solid oak, classic")
        ['Solid ', 'oak, ', 'classic']
    """
    words = re.findall(r"\S+\s*", text.strip())[:_MOST_WORDS]
    step = -(-len(words) // most) or 1
    return ["".join(words[start : start + step]) for start in range(0, len(words), step)]


def _add_neighbours(evidence: Evidence, examples: list[dict]) -> None:
    rows = [example["row"] for example in examples]
    indices, distances = nearest(evidence.embeddings["fused"][rows], evidence.train.embeddings["fused"], _NEIGHBOURS)
    for example, *rows_and_distances in zip(examples, indices.tolist(), distances.tolist(), strict=True):
        near = zip(*rows_and_distances, strict=True)
        example["neighbours"] = [
            describe(evidence.train.examples, row, evidence.names) | {"distance": distance} for row, distance in near
        ]
