"""The section "Data": leaks, labels that are probably wrong, missing inputs by source, and drift since the training."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mm_keras.distribution.preemption import end_if_asked
from mm_keras.features import IMAGE
from mm_keras.report.drift import domain_score, label_drift, number_drift
from mm_keras.report.evidence import Evidence, describe
from mm_keras.report.examples import Examples
from mm_keras.report.label_errors import Suspects, disagreeing_neighbours, find_label_errors, held_out_probabilities
from mm_keras.report.measures import main_measure, make_measures, measure_all, multi_hot, value_of
from mm_keras.report.near_duplicates import copied_pictures, copied_texts, names_its_label
from tfrecords_tools.inspect.leakage import perceptual_hash

_EXAMPLES = 8
_MOST_HASHED = 20_000  # pictures of a split
_MOST_CHECKED = 5_000  # training labels that are checked by held-out folds, and labels that are checked by neighbours
_MOST_SOURCES = 20
_LEAST = 5  # the fewest examples that a measure is computed on


def make_data(evidence: Evidence) -> dict:
    """The section's content, as JSON values; what needs labels or training examples is empty without them."""
    content: dict = {"missing": _missing(evidence), "leaks": None, "drift": None, "label_errors": [], "named_labels": []}
    if evidence.train:
        content["leaks"] = _leaks(evidence)
        content["drift"] = _drift(evidence)
    if evidence.labels is not None:
        content["named_labels"] = [_named_labels(evidence, field) for field in evidence.examples.texts]
        content["label_errors"] = _label_errors(evidence)
    return content


def measured_on(evidence: Evidence, rows: np.ndarray) -> dict:
    """The main measure on some examples: {"count", "value", "low", "high"}, or {"count", "value": None} of fewer than 5."""
    if len(rows) < _LEAST:
        return {"count": len(rows), "value": None}
    name = main_measure(evidence.multi_label)
    results = measure_all(
        evidence.probabilities[rows], evidence.labels[rows], evidence.multi_label, evidence.loaded.thresholds, [name]
    )
    return {"count": len(rows)} | results[name]


def _leaks(evidence: Evidence) -> dict:
    """Test examples whose picture or text stands in the training split, too, and the measure with and without them."""
    train, test = evidence.train.examples, evidence.examples
    copies: dict[int, dict] = {}
    hashed = 0
    if IMAGE in evidence.modalities:
        rows, hashes = _hashes(test)
        known_rows, known = _hashes(train)
        hashed = len(hashes)
        vectors, trained = evidence.embeddings[IMAGE][rows], evidence.train.embeddings[IMAGE][known_rows]
        for place, other in copied_pictures(hashes, known, vectors, trained):
            copies[int(rows[place])] = {"what": [IMAGE], "with": int(known_rows[other])}
    for field, texts in test.texts.items():
        for row, other in copied_texts(texts, train.texts[field]):
            copies.setdefault(row, {"what": [], "with": other})["what"].append(field)
    rows = np.array(sorted(copies), int)
    content = {
        "pictures_compared": hashed,
        "training_examples": len(train),
        "is_sample": evidence.train.is_sample,
        "count": len(rows),
        "by_input": {name: sum(name in entry["what"] for entry in copies.values()) for name in evidence.modalities},
        "pairs": [
            evidence.describe(int(row), what=copies[row]["what"], twin=describe(train, copies[row]["with"], evidence.names))
            for row in rows[:_EXAMPLES]
        ],
        "rows": [
            {"id": str(test.ids[row]), "what": copies[row]["what"], "training_id": str(train.ids[copies[row]["with"]])}
            for row in rows
        ],
    }
    if evidence.labels is not None and len(rows):
        everything = np.arange(len(evidence))
        content |= {
            "all": measured_on(evidence, everything),
            "leaked": measured_on(evidence, rows),
            "clean": measured_on(evidence, np.setdiff1d(everything, rows)),
        }
    return content


def _hashes(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """The rows of examples with a picture, and their perceptual hashes uint64."""
    rows = np.flatnonzero(examples.sizes.all(axis=1))[:_MOST_HASHED]

    def hash_one(row: int) -> int:
        end_if_asked()
        return perceptual_hash(examples.image(int(row)))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return rows, np.fromiter(pool.map(hash_one, rows.tolist()), np.uint64, len(rows))


def _named_labels(evidence: Evidence, field: str) -> dict:
    """How often the texts of a field name their label, and the measure on those and on the others."""
    names = names_its_label(evidence.examples.texts[field], evidence.labels, evidence.names)
    has_text = evidence.present[:, evidence.modalities.index(field)]
    return {
        "field": field,
        "count": int(names.sum()),
        "share": float(names.sum() / max(1, has_text.sum())),
        "naming": measured_on(evidence, np.flatnonzero(names)),
        "others": measured_on(evidence, np.flatnonzero(has_text & ~names)),
        "examples": evidence.describe_all(np.flatnonzero(names)[: _EXAMPLES // 2]),
    }


def _label_errors(evidence: Evidence) -> list[dict]:
    """Suspicious labels of the split, by the model's answers, and of the training split, by held-out folds."""
    several = evidence.multi_label
    suspects = find_label_errors(evidence.probabilities, evidence.labels, several)
    vectors = evidence.embeddings["fused"][:_MOST_CHECKED]
    by_neighbours = disagreeing_neighbours(vectors, evidence.labels[:_MOST_CHECKED]) if not several else None
    described = [_describe_suspects(evidence, evidence.examples, suspects, by_neighbours, len(evidence))]
    if evidence.train and evidence.train.examples.labels is not None:
        train = evidence.train.examples
        count = min(len(train), _MOST_CHECKED)
        vectors, labels = evidence.train.embeddings["fused"][:count], train.labels[:count]
        held_out = held_out_probabilities(vectors, labels, len(evidence.names), evidence.seed)
        suspects = find_label_errors(held_out, labels, several)
        by_neighbours = disagreeing_neighbours(vectors, labels) if not several else None
        described.append(_describe_suspects(evidence, train, suspects, by_neighbours, count))
    return described


def _describe_suspects(
    evidence: Evidence, examples: Examples, suspects: Suspects, neighbour_suspects: Suspects | None, checked: int
) -> dict:
    by_neighbours = set(neighbour_suspects.rows.tolist()) if neighbour_suspects else set()
    rows = []
    for row, label, suggested, score in zip(*suspects, strict=True):
        if evidence.multi_label:
            name = evidence.names[label]
            suggestion = f"add {name}" if suggested else f"remove {name}"
        else:
            suggestion = evidence.names[suggested]
        rows.append(
            describe(examples, int(row), evidence.names)
            | {"suggested": suggestion, "score": float(score), "neighbours_agree": int(row) in by_neighbours}
        )
    rows.sort(key=lambda row: (not row["neighbours_agree"], -row["score"]))
    return {
        "split": examples.name,
        "checked": checked,
        "count": len({row["id"] for row in rows}),
        "by_neighbours": len(by_neighbours),
        "suspects": rows[:200],
        "shown": min(len(rows), _EXAMPLES),
    }


def _missing(evidence: Evidence) -> list[dict]:
    """The share of examples that lack each input, in all and by source: the first folder of ids such as "google/1.jpg"."""
    sources = np.array([str(key).split("/", 1)[0] if "/" in str(key) else "" for key in evidence.examples.ids])
    groups = [("all", np.arange(len(evidence)))]
    names = np.unique(sources)
    if 2 <= len(names) <= _MOST_SOURCES:
        groups += [(name or "(no folder)", np.flatnonzero(sources == name)) for name in names]
    rows = []
    for name, places in groups:
        row = {"source": str(name), "examples": len(places)}
        row["missing"] = {
            modality: float(1 - evidence.present[places, number].mean()) if len(places) else 0.0
            for number, modality in enumerate(evidence.modalities)
        }
        if evidence.labels is not None and len(places):
            answers, labels = evidence.probabilities[places], evidence.labels[places]
            measures = make_measures(answers, labels, evidence.multi_label, evidence.loaded.thresholds)
            row["value"] = value_of(measures[main_measure(evidence.multi_label)], len(places))
        rows.append(row)
    return rows


def _drift(evidence: Evidence) -> dict:
    train, test = evidence.train.examples, evidence.examples
    numbers = []
    for field in test.texts:
        lengths = [np.array([len(text.split()) for text in side.texts[field] if text]) for side in (train, test)]
        numbers.append(("words of " + field, *lengths))
    if IMAGE in evidence.modalities:
        for name, compute in (("short side of pictures", np.min), ("aspect ratio of pictures", _aspect)):
            sizes = [side.sizes[side.sizes.all(axis=1)] for side in (train, test)]
            numbers.append((name, *(compute(side_sizes, axis=1) if len(side_sizes) else np.zeros(0) for side_sizes in sizes)))
    rows = [{"what": name, **drift} for name, *samples in numbers if (drift := number_drift(*samples))]
    content: dict = {
        "numbers": rows,
        "domain_score": domain_score(evidence.train.embeddings["fused"], evidence.embeddings["fused"], evidence.seed),
    }
    if test.labels is not None and train.labels is not None:
        counts = [multi_hot(side.labels, len(evidence.names)).sum(axis=0) for side in (train, test)]
        content["labels"] = label_drift(*counts)
    return content


def _aspect(sizes: np.ndarray, axis: int) -> np.ndarray:
    return sizes[:, 1] / sizes[:, 0]
