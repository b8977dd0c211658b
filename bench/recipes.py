"""Is the default right on data that nobody tuned it for? Solved heads against scikit-learn's regressions, on the same features.

    python bench/recipes.py shared/data --image_weights=mobilenet_v2.weights.h5 --text_encoder=all-MiniLM-L6-v2

Each data set of the folder is packed into one split, and what a frozen image tower and a frozen sentence encoder make of its
rows is computed once and kept in --cache. Then, on each fold, the head is solved as `train.solver = "solved"` does, and
asked with all inputs and with some of them hidden. In the same run, on the same features of length 1, scikit-learn's
logistic regression with C by inner folds (`regression`), and a greedy ensemble of such regressions on each block and on all
of them (`ensemble`), see only what the question is about. One line a set and question; the exit status is 1 where, by more
than one standard error of the paired difference, the solved head is below the better reference, all inputs are below the best
single one, or one input with the others hidden is below a head that was solved for it alone (`alone`).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from scipy.special import log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.multiclass import OneVsRestClassifier

from mm_keras.data.feature_cache import FeatureCache
from mm_keras.data.make_features import make_features
from mm_keras.data.text import make_pretrained_tokenizer
from mm_keras.features import FeatureSpec, present
from mm_keras.model.frozen import split_at_frozen
from mm_keras.model.image_tower import build_image_tower
from mm_keras.model.solved_head import build_solved_head
from mm_keras.model.solved_two_tower import embedding_widths
from mm_keras.model.transformer_encoder import build_transformer_encoder
from mm_keras.model.two_tower import build_two_tower
from mm_keras.model.two_tower_parts import TwoTowerParts
from mm_keras.objectives.metrics import evaluate_logits
from mm_keras.solving.ensemble import choose_ensemble
from mm_keras.solving.rows import Rows, make_blocks, make_folds
from mm_keras.solving.solve import score, solve
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.sources import table

_COSTS = (0.1, 1.0, 10.0, 100.0)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A table in the folder, and what is asked of it."""

    file: str
    label: str
    text: tuple[str, ...] = ()
    image: str | None = "image"
    id: str | None = "id"
    separator: str | None = None
    most_rows: int | None = None
    split: str | None = None  # table of "id" and "split" (train, test) that takes the place of the folds, once a seed


SETS = {
    "pokedex, types": DataSet("pokedex/pokedex.csv", "types", ("description",), separator="|"),
    "emoji, category": DataSet("emoji/emoji.csv", "category", ("name",)),
    "emoji, subcategory": DataSet("emoji/emoji.csv", "subcategory", ("name",)),
    "flipkart, category": DataSet("flipkart1050/products.csv", "category", ("title",)),
    "flipkart, subcategory": DataSet("flipkart1050/products.csv", "subcategory", ("title",)),
    "flipkart, category, with descriptions": DataSet("flipkart1050/products.csv", "category", ("title", "description")),
    "flipkart, subcategory, with descriptions": DataSet("flipkart1050/products.csv", "subcategory", ("title", "description")),
    "flipkart, category, one split": DataSet(
        "flipkart1050/products.csv", "category", ("title",), split="flipkart1050/split_category.csv"
    ),
    "flipkart, subcategory, one split": DataSet(
        "flipkart1050/products.csv", "subcategory", ("title",), split="flipkart1050/split_subcategory.csv"
    ),
    "captions": DataSet("comp5329/train.csv", "Labels", ("Caption",), None, "ImageID", " ", most_rows=5000),
    "groceries": DataSet("grocerystore/images.csv", "label", id=None),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with the data sets that SETS of this file names; others are skipped")
    parser.add_argument("--image_weights", required=True, metavar="FILE", help="of MobileNetV2, see docs/models.md")
    parser.add_argument("--text_encoder", required=True, metavar="FOLDER", help="Hugging Face folder or keras_hub preset")
    parser.add_argument("--cache", type=Path, default=Path("data/recipes"), metavar="FOLDER", help="packed sets are kept here")
    parser.add_argument("--set", action="append", choices=list(SETS), metavar="NAME", help="may be repeated (default: all)")
    parser.add_argument("--folds", type=int, default=3, help="how many of the 5 folds are measured (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the folds")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    print("set | question | measure | solved | regression | ensemble | solved - better one | alone | ECE | seconds")
    passed = True
    for name in options.set or SETS:
        if not (options.folder / SETS[name].file).is_file():
            print(f"{name}: skipped, {options.folder / SETS[name].file} is not there", file=sys.stderr)
            continue
        passed &= _measure(name, SETS[name], options)
    return 0 if passed else 1


def _measure(name: str, data: DataSet, options: argparse.Namespace) -> bool:
    """Prints a line a question. Returns whether nothing was lost."""
    features, inputs, labels, widths, ids = _encode(name, data, options)
    questions = {modality: (modality,) for modality in features.modalities}
    fields = tuple(text.field for text in features.texts)
    if len(fields) > 1:
        questions["all texts"] = fields
    if len(features.modalities) > 1:
        questions["all inputs"] = features.modalities
    results: dict[str, dict[str, list[float]]] = {q: {} for q in questions}
    lone = {modality: features.only((modality,)) for modality in features.modalities if len(features.modalities) > 1}
    for seed, train, test in _folds(data, options, ids):
        began = time.monotonic()
        answer, learned, asked = _solve(features, inputs, labels, widths, train, test, seed)
        seconds = time.monotonic() - began
        targets = _targets(features, labels)
        for question, shown in questions.items():
            logits = answer(shown)
            measured = {
                "solved": score(logits, targets[test], np.ones(len(test)), features.multi_label),
                "logits": logits,
                "labels": labels[test],
                "seconds": seconds,
            }
            measured |= _references(features, learned, asked, targets, train, test, shown)
            if question in lone:
                logits = _solve(lone[question], inputs, labels, widths, train, test, seed)[0](shown)
                measured["alone"] = score(logits, targets[test], np.ones(len(test)), features.multi_label)
            for key, value in measured.items():
                results[question].setdefault(key, []).append(value)
    return _report(name, features.multi_label, results)


def _folds(data: DataSet, options: argparse.Namespace, ids: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """(seed of the solver, training rows, test rows) of each measurement."""
    if not data.split:
        folds = KFold(5, shuffle=True, random_state=options.seed).split(ids)
        return [(0, *fold) for fold in folds][: options.folds]
    split_of = pd.read_csv(options.folder / data.split, dtype=str).set_index("id")["split"].reindex(ids)
    train, test = (np.flatnonzero(split_of == name) for name in ("train", "test"))
    return [(seed, train, test) for seed in range(options.seed, options.seed + options.folds)]


def _encode(name: str, data: DataSet, options: argparse.Namespace) -> tuple[FeatureSpec, dict, np.ndarray, dict, np.ndarray]:
    """(the features; what the encoders give of all rows, by name; labels; the widths of each encoder's blocks; ids)."""
    folder = options.cache / name.replace(", ", "_").replace(" ", "_")
    if not (folder / "dataset.json").is_file():
        columns = table.Columns(image=data.image, text=data.text, label=data.label, id=data.id)
        source = table.make_source([options.folder / data.file], columns, label_separator=data.separator)
        pack(source, folder, PackOptions(fractions={"all": 1.0}))
    features = make_features(
        str(folder),
        train_split="all",
        text_fields=data.text,
        max_tokens={field: 128 if field == "description" else 32 for field in data.text},
        image_size=(224, 224) if data.image else None,
        image_fit="stretch",
        make_tokenizer=functools.partial(make_pretrained_tokenizer, source=options.text_encoder),
    )
    model = build_two_tower(
        features,
        functools.partial(
            build_image_tower,
            architecture="mobilenet_v2",
            weights=options.image_weights,
            freeze_fraction=1.0,
            pooling="avg_max",
        ),
        functools.partial(build_transformer_encoder, source=options.text_encoder),
    )
    encoders, trained = split_at_frozen(model, features, features.modalities)
    cache = FeatureCache(Split.open(folder, "all"), features, encoders, list(trained.input))
    rows = np.arange(len(cache.labels))[: data.most_rows]
    parts = TwoTowerParts(model.layers)
    widths = {modality: embedding_widths(parts.encoder(modality)) for modality in features.modalities}
    return features, cache.inputs(rows), cache.labels[rows], widths, cache.ids[rows]


def _targets(features: FeatureSpec, labels: np.ndarray) -> np.ndarray:
    return labels if features.multi_label else np.eye(len(features.labels), dtype="float32")[labels]


def _solve(features, inputs, labels, widths, train, test, seed) -> tuple[Callable, Sequence, Sequence]:
    """(`(modalities that are shown) -> logits` of the test rows; the blocks of the training rows; those of the test rows)."""
    learned, words = make_blocks(features, {name: values[train] for name, values in inputs.items()}, widths)
    asked, _ = make_blocks(features, {name: values[test] for name, values in inputs.items()}, widths, words)
    there = np.stack([inputs[present(modality)] for modality in features.modalities], axis=1)
    folds = make_folds(features, {name: values[train] for name, values in inputs.items()}, labels[train], seed)
    weights = np.ones(len(train), np.float32)
    rows = Rows(learned, there[train], _targets(features, labels)[train], weights, features.multi_label, folds)
    solution = solve(rows, seed)
    sizes = [block.values.shape[1] for block in learned]
    head = build_solved_head(
        sizes, len(features.modalities), solution.kernels, solution.answers, solution.pattern_of, features.multi_label
    )
    dense = np.concatenate([b.values if not b.is_words else b.values.toarray() for b in asked], axis=1)

    def answer(shown: Sequence[str]) -> np.ndarray:
        flags = there[test] & np.isin(features.modalities, shown)
        return keras.ops.convert_to_numpy(head(np.concatenate([dense, flags], axis=1).astype("float32")))

    return answer, learned, asked


def _references(features, learned, asked, targets, train, test, shown) -> Mapping[str, float]:
    """The scores of both references, which see the blocks of some modalities."""
    numbers = [n for n, block in enumerate(learned) if features.modalities[block.modality] in shown]
    embeddings = [n for n in numbers if not learned[n].is_words]
    views = [embeddings]
    views += [[n] for n in numbers if [n] not in views] + ([numbers] if numbers != embeddings else [])
    candidates = []
    for view in views:
        candidates += _regressions(_joined(learned, view), _joined(asked, view), targets[train], features.multi_label)
        if len(candidates) == len(_COSTS):
            best = min(candidates, key=lambda candidate: candidate.loss)
    shares = choose_ensemble(
        [candidate.held_out for candidate in candidates], targets[train], np.ones(len(train)), features.multi_label
    )
    mixed = sum(share * candidates[number].answers for number, share in shares.items())
    ones = np.ones(len(test))
    return {
        "regression": score(best.answers, targets[test], ones, features.multi_label),
        "ensemble": score(mixed, targets[test], ones, features.multi_label),
    }


@dataclasses.dataclass(frozen=True)
class _Regression:
    held_out: np.ndarray
    answers: np.ndarray
    loss: float


def _joined(blocks, numbers: Sequence[int]) -> np.ndarray:
    return np.concatenate([b.values if not b.is_words else b.values.toarray() for b in (blocks[n] for n in numbers)], axis=1)


def _regressions(learned, asked, targets, multi_label: bool) -> list[_Regression]:
    """A logistic regression for each C, with its answers on inner folds and on the test rows."""
    results = []
    for cost in _COSTS:
        held_out = np.zeros_like(targets)
        for fit, inner in KFold(3, shuffle=True, random_state=1).split(targets):
            held_out[inner] = _logits(learned[fit], targets[fit], learned[inner], cost, multi_label)
        if multi_label:
            loss = float(np.mean(np.logaddexp(0, held_out) - targets * held_out))
        else:
            loss = float(-np.mean((log_softmax(held_out, axis=1) * targets).sum(axis=1)))
        results.append(_Regression(held_out, _logits(learned, targets, asked, cost, multi_label), loss))
    return results


def _logits(learned, targets, asked, cost: float, multi_label: bool) -> np.ndarray:
    model = LogisticRegression(C=cost, max_iter=300)
    logits = np.full((len(asked), targets.shape[1]), -12.0, np.float32)  # of labels that were not there to be learned
    if multi_label:
        known = np.flatnonzero(targets.any(axis=0) & ~targets.all(axis=0))
        logits[:, known] = OneVsRestClassifier(model).fit(learned, targets[:, known].astype(int)).decision_function(asked)
        return logits
    model.fit(learned, targets.argmax(axis=1))
    probabilities = softmax(model.decision_function(asked), axis=1) if len(model.classes_) > 2 else model.predict_proba(asked)
    logits[:, model.classes_] = np.log(np.maximum(probabilities, 1e-6))
    return logits


def _report(name: str, multi_label: bool, results: Mapping[str, Mapping[str, Sequence[float]]]) -> bool:
    passed = True
    for question, values in results.items():
        reference = max(("regression", "ensemble"), key=lambda key: np.mean(values[key]))
        mean, error = _paired(values["solved"], values[reference])
        lost = mean < -error
        cells = [f"{np.mean(values[key]):.3f} ± {_error(values[key]):.3f}" for key in ("solved", "regression", "ensemble")]
        # Of all folds together: within bins of few rows, a share is far from its probability by chance alone.
        ece = evaluate_logits(np.concatenate(values["logits"]), np.concatenate(values["labels"]), multi_label)["ece"]
        seconds = np.mean(values["seconds"])
        line = [name, question, "mAP" if multi_label else "accuracy", *cells, f"{mean:+.3f} ± {error:.3f}"]
        line.append(f"{np.mean(values['alone']):.3f}" if "alone" in values else "")
        print(" | ".join([*line, f"{ece:.3f}", f"{seconds:.0f}"]) + (" | LOST" if lost else ""), flush=True)
        passed &= not lost
        mean, error = _paired(values["solved"], values.get("alone", values["solved"]))
        if mean < -error:
            print(f"{name}: {question} with the others hidden is below a head for it alone by {-mean:.3f} ± {error:.3f}")
            passed = False
    if "all inputs" in results:
        single = max((q for q in results if q != "all inputs"), key=lambda q: np.mean(results[q]["solved"]))
        mean, error = _paired(results["all inputs"]["solved"], results[single]["solved"])
        if mean < -error:
            print(f"{name}: all inputs are below {single} by {-mean:.3f} ± {error:.3f}", flush=True)
            passed = False
    return passed


def _paired(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    differences = np.subtract(one, other)
    return float(differences.mean()), _error(differences)


def _error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


if __name__ == "__main__":
    sys.exit(main())
