"""The section "Inputs": what each input adds, what happens where one is missing, and where they contradict each other."""

from __future__ import annotations

import numpy as np

from mm_keras.features import IMAGE
from mm_keras.report.evidence import Evidence
from mm_keras.report.measures import (
    compare_answers,
    is_right,
    main_measure,
    make_measures,
    measure_all,
    predicted_labels,
    value_of,
)
from mm_keras.report.subsets import subset_name, texts_of

_SHARES = np.linspace(0, 1, 11)
_EXAMPLES = 4  # shown of each cell of who is right
_SURE = 0.6  # the least probability that each of two contradicting sides gives its label


def make_inputs(evidence: Evidence) -> dict:
    """The section's content, as JSON values. The split must have labels."""
    sides = two_sides(evidence)
    return {
        "measure": main_measure(evidence.multi_label),
        "num_examples": len(evidence.rows),
        "is_sample": len(evidence.rows) < len(evidence),
        "subsets": [_measured(evidence, subset) for subset in evidence.subsets],
        "baselines": _baselines(evidence),
        "gain": best_single(evidence),
        "without": _without(evidence),
        "missing_curves": _missing_curves(evidence),
        "shuffled": _shuffled(evidence),
        "who_is_right": _who_is_right(evidence, *sides) if sides else None,
        "contradictions": _contradictions(evidence, *sides) if sides else [],
    }


def two_sides(evidence: Evidence) -> tuple[int, int] | None:
    """Two sets of inputs that can agree or not: the image and all texts, or the first text and all others."""
    texts, everything = texts_of(evidence.modalities), (1 << len(evidence.modalities)) - 1
    if len(evidence.modalities) < 2:
        return None
    first = everything & ~texts if texts != everything else 1
    second = everything & ~first
    return (first, second) if {first, second} <= {*evidence.subsets} else None


def best_single(evidence: Evidence) -> dict | None:
    """The best single input, and by how much all inputs together are better; None for a model of one input."""
    if len(evidence.modalities) < 2:
        return None
    labels, name = evidence.labels[evidence.rows], main_measure(evidence.multi_label)
    values = {
        subset: value_of(_measures(evidence, evidence.answers[subset])[name], len(labels))
        for subset in evidence.subsets
        if subset.bit_count() == 1
    }
    best = max(values, key=lambda subset: values[subset])
    compared = _compare(evidence, evidence.answers[(1 << len(evidence.modalities)) - 1], evidence.answers[best])
    return {"best": subset_name(best, evidence.modalities), "value": values[best], "difference": compared}


def _measures(evidence: Evidence, answers: np.ndarray):
    return make_measures(answers, evidence.labels[evidence.rows], evidence.multi_label, evidence.loaded.thresholds)


def _compare(evidence: Evidence, first: np.ndarray, second: np.ndarray) -> dict:
    thresholds = (evidence.loaded.thresholds,) * 2
    return compare_answers(first, second, evidence.labels[evidence.rows], evidence.multi_label, thresholds)


def _measured(evidence: Evidence, subset: int) -> dict:
    labels, thresholds = evidence.labels[evidence.rows], evidence.loaded.thresholds
    shown = [bool(subset >> number & 1) for number in range(len(evidence.modalities))]
    present = evidence.present[evidence.rows][:, shown].any(axis=1).sum() if any(shown) else 0
    return {
        "inputs": subset_name(subset, evidence.modalities),
        "shown": [modality for modality, is_shown in zip(evidence.modalities, shown, strict=True) if is_shown],
        "present": int(present),
        "measures": measure_all(evidence.answers[subset], labels, evidence.multi_label, thresholds),
    }


def _baselines(evidence: Evidence) -> list[dict]:
    return [
        {"inputs": name, "measures": measure_all(answers, evidence.labels, evidence.multi_label, thresholds)}
        for name, (answers, thresholds) in evidence.baselines().items()
    ]


def _without(evidence: Evidence) -> list[dict]:
    """What is lost where one input is hidden from all examples."""
    if len(evidence.modalities) < 2:
        return []
    everything, rows = (1 << len(evidence.modalities)) - 1, []
    for number, modality in enumerate(evidence.modalities):
        lost = _compare(evidence, evidence.answers[everything], evidence.answers[everything & ~(1 << number)])
        missing = 1 - float(evidence.present[:, number].mean())
        rows.append({"input": modality, "missing": missing, "lost": lost})
    return rows


def _missing_curves(evidence: Evidence) -> list[dict]:
    """The measure where an input, or each input independently, is hidden from a share of the examples."""
    labels, number = evidence.labels[evidence.rows], len(evidence.modalities)
    drawn = np.random.default_rng(evidence.seed).random((len(labels), number))
    everything = (1 << number) - 1
    curves = [(modality, [place]) for place, modality in enumerate(evidence.modalities)]
    if number > 1 and len(evidence.answers) >= 1 << number:
        curves.append(("every input", list(range(number))))
    stacked = np.stack([*evidence.answers.values()])
    place_of = {subset: place for place, subset in enumerate(evidence.answers)}
    results = []
    for name, hidden in curves:
        points = []
        for share in _SHARES:
            patterns = np.full(len(labels), everything)
            for place in hidden:
                patterns[drawn[:, place] < share] &= ~(1 << place)
            places = np.array([place_of[pattern] for pattern in patterns.tolist()], int)
            answers = stacked[places, np.arange(len(labels))]
            value = value_of(_measures(evidence, answers)[main_measure(evidence.multi_label)], len(labels))
            points.append({"share": float(share), "value": value})
        results.append({"input": name, "points": points})
    return results


def _shuffled(evidence: Evidence) -> list[dict]:
    """What is lost where one input of each example is that of another example."""
    rng, rows = np.random.default_rng(evidence.seed), []
    inputs = {name: array[evidence.rows] for name, array in evidence.inputs.items()}
    whole = evidence.answers[(1 << len(evidence.modalities)) - 1]
    for modality in evidence.modalities:
        order = rng.permutation(len(evidence.rows))
        shuffled = inputs | {name: inputs[name][order] for name in evidence.loaded.of_modality(modality, inputs)}
        rows.append({"input": modality, "lost": _compare(evidence, whole, evidence.loaded.probabilities(shuffled))})
    return rows


def _who_is_right(evidence: Evidence, first: int, second: int) -> dict:
    """How often each side and all inputs together are right: a cell for each combination, with examples."""
    labels, everything = evidence.labels[evidence.rows], (1 << len(evidence.modalities)) - 1
    right = [
        is_right(evidence.answers[subset], labels, evidence.multi_label, evidence.loaded.thresholds)
        for subset in (first, second, everything)
    ]
    cells = []
    for pattern in ((1, 1, 1), (1, 0, 1), (0, 1, 1), (0, 0, 1), (1, 1, 0), (1, 0, 0), (0, 1, 0), (0, 0, 0)):
        places = np.flatnonzero(np.all([hits == bool(wanted) for hits, wanted in zip(right, pattern, strict=True)], axis=0))
        cells.append(
            {
                **dict(zip(("first", "second", "together"), map(bool, pattern), strict=True)),
                "count": len(places),
                "share": len(places) / max(len(labels), 1),
                "examples": evidence.describe_all(evidence.rows[places[:_EXAMPLES]]),
            }
        )
    return {"first": subset_name(first, evidence.modalities), "second": _called(evidence, second), "cells": cells}


def _contradictions(evidence: Evidence, first: int, second: int) -> list[dict]:
    """Examples on which both sides are sure, each of another label; the surest first."""
    if evidence.multi_label:
        return []
    answers = evidence.answers[first], evidence.answers[second]
    confidences = [probabilities.max(axis=1) for probabilities in answers]
    lower = np.minimum(*confidences)
    has = [evidence.present[evidence.rows][:, _places(evidence, side)].any(axis=1) for side in (first, second)]
    places = np.flatnonzero((answers[0].argmax(axis=1) != answers[1].argmax(axis=1)) & (lower >= _SURE) & has[0] & has[1])
    places = places[np.argsort(-lower[places], kind="stable")][: 2 * _EXAMPLES]
    predicted = [predicted_labels(probabilities, False) for probabilities in answers]
    return [
        evidence.describe(
            int(evidence.rows[row]),
            sides=[
                {"inputs": _called(evidence, side), "predicted": evidence.names_of(labels[row]), "probability": float(top[row])}
                for side, labels, top in zip((first, second), predicted, confidences, strict=True)
            ],
        )
        for row in places
    ]


def _places(evidence: Evidence, subset: int) -> list[int]:
    return [number for number in range(len(evidence.modalities)) if subset >> number & 1]


def _called(evidence: Evidence, subset: int) -> str:
    name = subset_name(subset, evidence.modalities)
    return name if IMAGE in evidence.modalities or subset.bit_count() == 1 else f"the other texts ({name})"
