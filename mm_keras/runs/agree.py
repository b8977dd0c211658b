"""Verification: does an example agree with the class that it is claimed to be of? A score, a decision, and the reason."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from mm_keras.features import FeatureSpec
from mm_keras.objectives.metrics import probabilities_of
from mm_keras.runs.encode_split import encode_split
from mm_keras.runs.example_rows import InputOptions, Row
from mm_keras.runs.predict import Predictor
from mm_keras.runs.predict_input import open_examples
from mm_keras.runs.run_folder import RunFolder
from tfrecords_tools.dataset.atomic_file import atomic_file, write_text
from tfrecords_tools.dataset.checksums import read_json
from tfrecords_tools.progress import progress_bar

AGREEMENT_FILE = "agreement.json"
_UNTUNED = 0.5
_BATCH_SIZE = 32


def measure_agreement(
    workdir: str | Path, dataset: str | None = None, split: str = "test", tune_on: str = "val", seed: int = 0
) -> dict:
    """Measures how well a run tells true claims from false ones, and finds the score from which on a claim is believed.

    Each example of a split is claimed twice: as what it is, and as another class, drawn in proportion to how often classes
    occur. The score of a claim is the probability of the claimed class. The threshold has the best balanced accuracy on split
    `tune_on`. Both are written to report/agreement.json, where `check_claims` finds the threshold.

    Args:
        workdir: the run folder of a multi-class run.
        dataset: a dataset folder with the same labels; default: the one that the run was trained on.
        split: the split to measure on.
        tune_on: the split to find the threshold on.
        seed: another seed draws other false claims.

    Returns:
        {"split", "tuned_on", "threshold", "num_examples", "auc": the probability that a true claim scores above a false one,
        "true_accepted", "false_rejected": fractions}.

    Raises:
        ValueError: for a multi-label run, or a split that the dataset does not have.
    """
    run = RunFolder(workdir)
    model, features = run.load_model()
    _check_multi_class(run, features)
    data = run.dataset(dataset)
    scores = {}
    for name in dict.fromkeys((tune_on, split)):
        (inputs,), labels, behind = encode_split(run, model, features, data.split(name))
        probabilities = probabilities_of(behind.predict(inputs, batch_size=1024, verbose=0), False)
        rows = np.arange(len(labels))
        scores[name] = (probabilities[rows, labels], probabilities[rows, false_claims(labels, seed)])
    threshold = best_threshold(*scores[tune_on])
    true, false = scores[split]
    report = {
        "split": split,
        "tuned_on": tune_on,
        "threshold": threshold,
        "num_examples": len(true),
        "auc": float((true[:, None] > false).mean() + (true[:, None] == false).mean() / 2),
        "true_accepted": float((true >= threshold).mean()),
        "false_rejected": float((false < threshold).mean()),
    }
    run.report.mkdir(parents=True, exist_ok=True)
    write_text(run.report / AGREEMENT_FILE, json.dumps(report, indent=2) + "\n")
    logging.info(
        f"split {split}: {len(true):,} examples, each claimed as its own class and as another one. A true claim scores above a "
        f"false one with probability {report['auc']:.3f}.\nFrom a score of {threshold:.3g} on (tuned on {tune_on}), "
        f"{report['true_accepted']:.1%} of the true claims are believed, and {report['false_rejected']:.1%} of the false ones "
        "are not."
    )
    return report


def check_claims(
    workdir: str | Path,
    examples: str | Path,
    label: str,
    threshold: float | None = None,
    options: InputOptions = InputOptions(),
    output: str | Path | None = None,
) -> Path:
    """Checks each row of a table: do its picture and its texts agree with the class that it is claimed to be of?

    Args:
        workdir: the run folder of a multi-class run.
        examples: a table as `predict` reads it, with a column of claimed classes.
        label: that column.
        threshold: the score from which on a claim is believed; default: that of report/agreement.json, or else 0.5.
        options: how the table is read.
        output: the file to write; default: <name>.agreement.jsonl beside the table.

    Returns:
        the file: for each row an object {"id", "claimed", "score", "agrees", "reason", "inputs": {input: {"score", "says",
        "probability"}}}, or {"id", "error"} for one that cannot be read.

    Raises:
        ValueError: for a multi-label run, a threshold outside [0, 1], or a table of which no row could be checked.
    """
    checker = ClaimChecker(workdir, threshold)
    source = Path(examples)
    options = dataclasses.replace(options, keep=(*options.keep, label))
    rows = open_examples(source, checker.features.modalities, options)
    for note in rows.notes:
        logging.info(note)
    output = Path(output) if output else source.resolve().with_name(f"{rows.stem}.agreement.jsonl")
    num_agreeing = num_checked = num_bad = 0
    first_error = ""
    with atomic_file(output) as path, open(path, "w", encoding="utf-8") as file, progress_bar("checking", "examples") as bar:
        while batch := list(itertools.islice(rows.rows, _BATCH_SIZE)):
            for row, answer in zip(batch, checker.check_rows(batch, label, rows.image_roots), strict=True):
                num_bad += "error" in answer
                first_error = first_error or answer.get("error", "")
                num_checked += "error" not in answer
                num_agreeing += answer.get("agrees", False)
                file.write(json.dumps({"id": row.id, **answer}, ensure_ascii=False) + "\n")
            bar.update(len(batch))
    num_doubted = num_checked - num_agreeing
    logging.info(f"{output}: {num_checked:,} claims checked, {num_doubted:,} not believed; {num_bad:,} bad {rows.unit}")
    if not num_checked:
        raise ValueError(f"no claim was checked: {first_error or 'the table is empty'}")
    return output


class ClaimChecker:
    """A multi-class run that is asked whether examples agree with their claimed classes.

    Args:
        workdir: the run folder.
        threshold: the score from which on a claim is believed; see `check_claims`.

    Example:
        >>> checker = ClaimChecker("runs/products")
        >>> (answer,) = checker([checker.predictor.read({"image": "mug.jpg", "title": "Oak chair"})], ["mug"])
        >>> answer["agrees"], answer["reason"]
        (False, "title says 'chair' (0.97; 'mug' 0.01), though image agrees (0.88)")
    """

    def __init__(self, workdir: str | Path, threshold: float | None = None):
        run = RunFolder(workdir)
        _check_multi_class(run, FeatureSpec.load(run.path))
        tuned_file = run.report / AGREEMENT_FILE
        if threshold is None:
            threshold = read_json(tuned_file)["threshold"] if tuned_file.is_file() else _UNTUNED
        if not 0 <= threshold <= 1:
            raise ValueError(f"--threshold is a probability, within [0, 1]. Received: {threshold}")
        self.predictor = Predictor(workdir)
        self.features = self.predictor.features
        self.threshold = threshold
        self._ids = {name: index for index, name in enumerate(self.features.labels)}

    def check_rows(self, rows: Sequence[Row], label: str, image_roots: Sequence[Path] = ()) -> list[dict]:
        """An answer, or {"error": …}, for each row of a table whose column `label` holds the claim."""
        answers: list[dict] = [{"error": row.error} for row in rows]
        batch, claims, places = [], [], []
        for place, row in enumerate(rows):
            if row.error:
                continue
            claim = str(row.kept.get(label) or "").strip()
            if claim not in self._ids:
                problem = f"claimed label {claim!r} is none of the run's" if claim else f"no claimed label in column {label!r}"
                answers[place] = {"error": problem}
                continue
            try:
                batch.append(self.predictor.read(row.inputs, image_roots))
            except (ValueError, OSError) as error:
                answers[place] = {"error": str(error)}
                continue
            claims.append(claim)
            places.append(place)
        for place, answer in zip(places, self(batch, claims) if batch else [], strict=True):
            answers[place] = answer
        return answers

    def __call__(self, batch: Sequence[Mapping[str, bytes]], claims: Sequence[str]) -> list[dict]:
        """Checks examples that the predictor has read against their claimed classes, all of which the run knows."""
        ids = [self._ids[claim] for claim in claims]
        whole = self.predictor.probabilities(batch)
        alone = {
            modality: self.predictor.probabilities([_only(raw, modality) for raw in batch])
            for modality in self.features.modalities
        }
        return [
            self._judge(claims[row], ids[row], whole[row], {m: p[row] for m, p in alone.items() if batch[row].get(m)})
            for row in range(len(batch))
        ]

    def _judge(self, claim: str, label: int, whole: np.ndarray, alone: Mapping[str, np.ndarray]) -> dict:
        score = float(whole[label])
        agrees = score >= self.threshold
        inputs = {}
        for modality, probabilities in alone.items():
            best = int(probabilities.argmax())
            inputs[modality] = {
                "score": round(float(probabilities[label]), 6),
                "says": self.features.labels[best],
                "probability": round(float(probabilities[best]), 6),
            }
        reason = find_reason(claim, agrees, inputs, self.features.labels[int(whole.argmax())], float(whole.max()))
        return {"claimed": claim, "score": round(score, 6), "agrees": agrees, "reason": reason, "inputs": inputs}


def find_reason(claim: str, agrees: bool, inputs: Mapping[str, Mapping], best: str, probability: float) -> str:
    """Why a claim is believed or not, as a clause for people."""
    in_favour = [f"{name} ({facts['score']:.2f})" for name, facts in inputs.items() if facts["says"] == claim]
    against = [
        f"{name} says {facts['says']!r} ({facts['probability']:.2f}; {claim!r} {facts['score']:.2f})"
        for name, facts in inputs.items()
        if facts["says"] != claim
    ]
    agreeing = f"{' and '.join(in_favour)} agree{'s' if len(in_favour) == 1 else ''}" if in_favour else ""
    if agrees:
        doubts = f"though {', '.join(against)}" if against else ""
        return ", ".join(filter(None, (agreeing or f"together the inputs say {best!r}", doubts)))
    if not against:  # each input alone agrees, but is not sure enough
        return f"{agreeing}, but none is sure enough" if agreeing else f"the inputs say {best!r} ({probability:.2f})"
    return ", ".join([*against, *([f"though {agreeing}"] if agreeing else [])])


def _only(raw: Mapping[str, bytes], modality: str) -> dict[str, bytes]:
    return {name: value if name == modality else b"" for name, value in raw.items()}


def _check_multi_class(run: RunFolder, features: FeatureSpec) -> None:
    if features.multi_label:
        raise ValueError(f"{run.path} is multi-label: a claim is one class. Ask it with mm-keras predict")


def false_claims(labels: np.ndarray, seed: int) -> np.ndarray:
    """For each example the label of another one, drawn until it is a different class.

    Raises:
        ValueError: if all examples are of one class.
    """
    if len(np.unique(labels)) < 2:
        raise ValueError("false claims need examples of two classes or more")
    rng = np.random.default_rng(seed)
    claims = rng.choice(labels, len(labels))
    while (same := claims == labels).any():
        claims[same] = rng.choice(labels, same.sum())
    return claims


def best_threshold(true: np.ndarray, false: np.ndarray) -> float:
    """The score with the best mean of true claims at or above it and false claims below it."""
    scores = np.sort(np.concatenate([true, false]))
    between = np.concatenate([scores[:1], (scores[1:] + scores[:-1]) / 2])
    accepted = 1 - np.searchsorted(np.sort(true), between) / len(true)
    rejected = np.searchsorted(np.sort(false), between) / len(false)
    return float(between[np.argmax(accepted + rejected)])
