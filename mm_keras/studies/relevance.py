"""Relevance of captions to their classes: scores, a filter, and coefficients that training weighs examples by."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging

from mm_keras.runs.predict import Predictor
from mm_keras.studies.relevance_pairs import Caption, fold_of, read_captions
from mm_keras.studies.relevance_report import write_report
from tfrecords_tools.dataset.atomic_file import atomic_file, write_text
from tfrecords_tools.dataset.folder import Dataset
from tfrecords_tools.progress import progress_bar
from tfrecords_tools.sources.files import iter_lines

CURVES = {"linear": lambda r: r, "square": lambda r: r**2, "root": lambda r: r**0.5, "flat": lambda r: r**0}
"""Name -> a function of a coefficient within [0, 1] that gives another one."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """How scores become coefficients. The defaults are the paper's; it names them as what to tune.

    Attributes:
        least: a caption is dropped if the probability of its own class is smaller.
        above_mean: whether it is also dropped if that probability is below the mean over all classes.
        sure: probabilities above it become 1.
        lift: what is added to the others that are kept; at most 1 comes out.
        curve: what the uniform coefficients go through, one of `CURVES`.

    Raises:
        ValueError: for a number outside [0, 1], or an unknown curve.
    """

    least: float = 0.5
    above_mean: bool = True
    sure: float = 0.9
    lift: float = 0.1
    curve: str = "linear"

    def __post_init__(self):
        for name in ("least", "sure", "lift"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is within [0, 1]. Received: {getattr(self, name)}")
        if self.curve not in CURVES:
            raise ValueError(f"curves are {', '.join(CURVES)}. Received: {self.curve!r}")

    def coefficients(self, own: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Probabilities of the own class [N] and means over all classes [N] -> coefficients [N] in [0, 1], 0 where dropped.

        Kept ones are replaced by their rank among the kept, scaled to (0, 1], so that they are uniform; equal ones share the
        mean of their ranks.
        """
        from scipy.stats import rankdata

        kept = own >= self.least
        if self.above_mean:
            kept &= own >= mean
        lifted = np.where(own > self.sure, 1.0, np.minimum(own + self.lift, 1.0))
        coefficients = np.zeros(len(own))
        if kept.any():
            coefficients[kept] = CURVES[self.curve](rankdata(lifted[kept]) / kept.sum())
        return coefficients


def score_captions(
    runs: Sequence[str | Path],
    dataset: str | Path,
    output: str | Path,
    fields: Sequence[str],
    rule: Rule = Rule(),
    truth: str | Path | None = None,
    texts: str | Path | None = None,
) -> Path:
    """Scores the captions of a training split, each without a sentence about its class, and writes what follows from it.

    Args:
        runs: a relevance model, trained on pairs; or several, of which model k scores the captions of fold k.
        dataset: the packed dataset.
        output: the folder to write: relevance.csv (id, weight, p_correct, p_mean, label), dropped.txt (an id a line),
            report.md, histograms.png, summary.json.
        fields: the text fields that make a caption.
        rule: how scores become coefficients.
        truth: a file with the ids of captions that are known to be of another class; the report then says how many are found.
        texts: texts of the classes, for the baseline of text similarity in the report.

    Returns:
        `output`.

    Raises:
        ValueError: if a model does not know a class, or if no caption is kept.
    """
    captions = read_captions(Dataset.open(dataset), fields)
    own, mean = (np.zeros(len(captions)) for _ in range(2))
    folds = np.array([fold_of(caption.id, len(runs)) for caption in captions])
    for number, run in enumerate(runs):
        places = np.flatnonzero(folds == number)
        own[places], mean[places] = _ask(run, [captions[place] for place in places])
    weights = rule.coefficients(own, mean)
    if not weights.any():
        raise ValueError(
            f"no caption has a probability of at least {rule.least} of its own class, the best has {own.max():.3f}: train "
            "longer, or lower --least"
        )
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    with atomic_file(output / "relevance.csv") as path, open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "weight", "p_correct", "p_mean", "label"])
        for caption, weight, p, m in zip(captions, weights, own, mean, strict=True):
            rows.writerow([caption.id, f"{weight:.6f}", f"{p:.6f}", f"{m:.6f}", caption.label])
    write_text(output / "dropped.txt", "".join(f"{c.id}\n" for c, w in zip(captions, weights, strict=True) if not w))
    corrupted = {line for _, line in iter_lines(truth)} if truth else None
    summary = write_report(output, captions, own, weights, rule.least, corrupted, texts)
    write_text(output / "summary.json", json.dumps({"rule": dataclasses.asdict(rule), **summary}, indent=2) + "\n")
    return output


def _ask(run: str | Path, captions: Sequence[Caption], batch_size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """The probability of each caption's own class and the mean over all classes, float [N] each."""
    predictor = Predictor(run)
    ids = {name: index for index, name in enumerate(predictor.features.labels)}
    unknown = sorted({caption.label for caption in captions} - set(ids))
    if unknown:
        raise ValueError(f"{run} does not know the class {unknown[0]!r}: train it on pairs of all classes")
    (field,) = predictor.features.modalities
    own, mean = [], []
    with progress_bar("scoring", "captions", len(captions)) as bar:
        for start in range(0, len(captions), batch_size):
            batch = captions[start : start + batch_size]
            probabilities = predictor.probabilities([predictor.read({field: caption.text}) for caption in batch])
            own.append(probabilities[np.arange(len(batch)), [ids[caption.label] for caption in batch]])
            mean.append(probabilities.mean(axis=1))
            bar.update(len(batch))
    return np.concatenate(own), np.concatenate(mean)


def corrupt_table(
    table: str | Path, output: str | Path, column: str, label: str, share: float, seed: int = 0, split: str = ""
) -> Path:
    """Swaps a known share of a table's texts between rows of different classes, to try a filter on.

    Args:
        table: a CSV.
        output: the folder to write: a table of the same name, and swapped.txt with the ids of the rows whose text was swapped.
        column: the column of the texts; rows without one are left alone.
        label: the column of classes.
        share: fraction of the rows with a text whose text is another class's afterwards, within (0, 1).
        seed: another seed swaps other texts.
        split: swap only among rows whose column "split" has this value; "": among all rows.

    Raises:
        ValueError: for a column that is missing, a share outside (0, 1), or texts that are all of one class.
    """
    if not 0 < share < 1:
        raise ValueError(f"--share is within 0 and 1. Received: {share}")
    with open(table, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), list(reader.fieldnames or ())
    for name in ("id", column, label, *(["split"] if split else [])):
        if name not in columns:
            raise ValueError(f"{table} has no column {name!r}; its columns are {columns}")
    places = [i for i, row in enumerate(rows) if row[column].strip() and (not split or row["split"] == split)]
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(places)[: round(share * len(places))]
    if len({rows[i][label] for i in chosen}) < 2:
        raise ValueError(
            "texts are swapped between classes, and those drawn are of one class: give more rows or a larger --share"
        )
    order = sorted(chosen, key=lambda i: (rows[i][label], rng.random()))
    # Shifted by the size of the largest class, a row gets the text of another class, unless one class has most of them.
    shift = max(np.unique([rows[i][label] for i in order], return_counts=True)[1])
    texts = [rows[i][column] for i in order]
    swapped = []
    for position, i in enumerate(order):
        donor = order[(position + shift) % len(order)]
        if rows[donor][label] != rows[i][label]:
            swapped.append((i, texts[(position + shift) % len(order)]))
    for i, text in swapped:
        rows[i][column] = text
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    with open(output / Path(table).name, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    write_text(output / "swapped.txt", "".join(f"{rows[i]['id']}\n" for i, _ in sorted(swapped)))
    logging.info(f"{output / Path(table).name}: {len(swapped):,} of {len(places):,} texts are those of another class")
    return output / Path(table).name
