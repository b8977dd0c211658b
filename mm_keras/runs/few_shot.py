"""Classes that are added to a trained run: how well are they known from their texts, and from a few pictures of each?

Three ways are compared on the same pictures ("shots"):

    text and shots     no training: the class is where its text is, moved towards the mean of its shots
    fine-tuned         the head that compares with class embeddings, trained on a few examples of every class
    linear head        a dense layer with an output a class, as a plain classifier has it; outputs of new classes begin at zero,
                       and it is trained on the same examples
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from absl import logging

from mm_keras.distribution.preemption import end_if_asked
from mm_keras.features import FeatureSpec
from mm_keras.model.head import ClassSimilarity
from mm_keras.runs.class_embeddings import read_texts
from mm_keras.runs.encode_split import encode_split
from mm_keras.runs.evaluate import markdown_table
from mm_keras.runs.run_folder import RunFolder
from tfrecords_tools.dataset.atomic_file import atomic_file, write_text
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.dataset.info import LABELS_FILE
from tfrecords_tools.dataset.labels import LabelVocabulary

METHODS = ("text and shots", "fine-tuned", "linear head")
_EPOCHS, _BATCH_SIZE, _RATE = 30, 32, 1e-3
_NEVER = -1e9
_PRIOR_SHOTS = 1.0  # the text counts as so many shots


class Examples(NamedTuple):
    """The fused embeddings float32 [N, D] of a split, and its labels int [N]."""

    fused: np.ndarray
    labels: np.ndarray


def hold_out_classes(texts: str | Path, output: str | Path, fraction: float = 0.25, seed: int = 0) -> list[str]:
    """Draws classes to hold out of training; writes them with their texts to new_classes.csv, and the others to labels.txt.

    Args:
        texts: texts of all classes: JSON Lines of label and text, or a CSV with the columns label and description.
        output: the folder to write.
        fraction: the fraction of the classes that is held out, within (0, 1).
        seed: another seed draws other classes.

    Returns:
        the classes that are held out, sorted.

    Raises:
        ValueError: if fewer than one class would be held out, or fewer than two be left.
    """
    class_texts = read_texts(Path(texts))
    names = sorted(class_texts)
    number = round(fraction * len(names)) if 0 < fraction < 1 else 0
    if not 1 <= number <= len(names) - 2:
        raise ValueError(f"--fraction {fraction} of {len(names)} classes leaves none held out, or fewer than two to learn")
    new = sorted(np.random.default_rng(seed).permutation(names)[:number].tolist())
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    LabelVocabulary([name for name in names if name not in set(new)]).save(output / LABELS_FILE)
    with atomic_file(output / "new_classes.csv") as path, open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["label", "description"])
        rows.writerows((name, class_texts[name]) for name in new)
    logging.info(f"{output}: {number} of {len(names)} classes are held out: {', '.join(new[:5])}, …")
    return new


def measure_few_shots(
    workdir: str | Path,
    dataset: str | Path,
    shots: Sequence[int] = (0, 1, 5, 10),
    repeats: int = 5,
    train_split: str = "train",
    split: str = "test",
    seed: int = 0,
) -> dict:
    """Measures how well the added classes of a run are told apart, with so many pictures of each.

    Beside the shots of new classes, training sees as many examples of every old class, so that these are not forgotten. All
    answers are among all classes, old and new, except in one column.

    Args:
        workdir: a run that `add_classes` made.
        dataset: a dataset of all its classes, packed with the run's labels.txt.
        shots: numbers of pictures of each new class. A class that has fewer gives all.
        repeats: how often shots are drawn anew.
        train_split: the split that shots are drawn from, and old classes were learned from.
        split: the split to measure on.
        seed: another seed draws other shots.

    Returns:
        {"classes_added", "rows": [{"shots", "method", "new", "new_among_new", "old", "harmonic"}, …]}: lists of top-1
        accuracies, one a repeat: of the new classes' examples, of these among the new classes alone, of the old classes'
        examples, and the harmonic mean of the first and the third. It is printed as a table and written to
        report/few_shot.json and report/few_shot.md.

    Raises:
        ValueError: for a run without added classes, a multi-label one, or shots and repeats that are no numbers of pictures.
    """
    run = RunFolder(workdir)
    added = run.facts().get("classes_added")
    model, features = run.load_model()
    if not added or features.multi_label:
        raise ValueError(f"{run.path} has no added classes of single labels: make it with mm-keras add-classes")
    if min(shots, default=-1) < 0 or repeats < 1:
        raise ValueError(f"shots are 0 and above, and repeats at least 1. Received: {list(shots)}, {repeats}")
    is_new = np.isin(features.labels, added["labels"])
    learned, measured = (_fuse(run, model, features, run.dataset(dataset).split(name)) for name in (train_split, split))
    head = model.get_layer("head")
    linear = _fit_linear(learned, is_new)
    rows = []
    for number in shots:
        method_scores: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
        for repeat in range(repeats if number else 1):
            end_if_asked()
            drawn = draw_shots(learned, is_new, number, np.random.default_rng((seed, repeat)))
            for method, logits in _answers(head, linear, drawn, is_new, measured.fused, number, seed + repeat).items():
                method_scores[method].append(score_logits(logits, measured.labels, is_new))
        for method, scores in method_scores.items():
            rows.append({"shots": number, "method": method, **{key: [score[key] for score in scores] for key in scores[0]}})
    report = {"classes_added": len(added["labels"]), "classes": len(is_new), "split": split, "rows": rows}
    run.report.mkdir(parents=True, exist_ok=True)
    write_text(run.report / "few_shot.json", json.dumps(report, indent=2) + "\n")
    table = format_few_shots(report)
    write_text(run.report / "few_shot.md", table + "\n")
    logging.info(table)
    return report


def format_few_shots(report: dict) -> str:
    """The report as a Markdown table: means and standard deviations over the repeats."""
    columns = {"new": "new", "new_among_new": "new, among new", "old": "old", "harmonic": "harmonic mean"}
    cells = [["shots", "method", *columns.values()]]
    for row in report["rows"]:
        cells.append([str(row["shots"]), row["method"], *(_told(row[key]) for key in columns)])
    old = report["classes"] - report["classes_added"]
    title = f"top-1 on split {report['split']}; {report['classes_added']} classes added to {old}"
    return f"{title}\n\n{markdown_table(cells)}"


def _told(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def _fuse(run: RunFolder, model: keras.Model, features: FeatureSpec, split: Split) -> Examples:
    """What the head sees of a split."""
    (inputs,), labels, behind = encode_split(run, model, features, split)
    fused = keras.Input(model.get_layer("head").input.shape[1:], name="fused")
    identity = keras.Model(fused, keras.layers.Identity(name="identity")(fused), name="head")
    without_head = keras.models.clone_model(behind, clone_function=lambda layer: identity if layer.name == "head" else layer)
    return Examples(without_head.predict(inputs, batch_size=1024, verbose=0), labels)


def draw_shots(learned: Examples, is_new: np.ndarray, number: int, rng: np.random.Generator) -> Examples:
    """`number` examples of each class, new and old; of a class that has fewer, all."""
    places = [rng.permutation(np.flatnonzero(learned.labels == label))[:number] for label in range(len(is_new))]
    chosen = np.concatenate(places)
    return Examples(learned.fused[chosen], learned.labels[chosen])


def _answers(
    head: keras.Model,
    linear: tuple[np.ndarray, np.ndarray],
    drawn: Examples,
    is_new: np.ndarray,
    fused: np.ndarray,
    number: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Method -> logits [N, num_labels] of the examples to measure on."""
    moved = _move_classes(head, drawn, is_new)
    models = {METHODS[0]: moved, METHODS[1]: _copy(head), METHODS[2]: _build_linear(linear)}
    for name in METHODS[1:] if number else ():
        _train(models[name], drawn, seed)
    answers = {name: _ask(model, fused) for name, model in models.items()}
    if not number:
        answers[METHODS[2]][:, is_new] = _NEVER  # without examples the linear head cannot name new classes
    return answers


def _copy(head: keras.Model) -> keras.Model:
    copy = keras.models.clone_model(head)
    copy.set_weights(head.get_weights())
    return copy


def _move_classes(head: keras.Model, drawn: Examples, is_new: np.ndarray) -> keras.Model:
    """The head, with each new class's embedding moved towards the mean of its shots in the space where both are compared."""
    moved = _copy(head)
    similarity = next(layer for layer in moved.layers if isinstance(layer, ClassSimilarity))
    if similarity.width or not len(drawn.labels):  # with a width, classes are projected into another space
        return moved
    project = keras.Model(moved.input, moved.get_layer("projection").output)
    classes = keras.ops.convert_to_numpy(similarity.class_embeddings).copy()
    for label in np.flatnonzero(is_new):
        shots = drawn.fused[drawn.labels == label]
        if len(shots):
            vectors = _ask(project, shots)
            mean = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).mean(axis=0)
            mixed = _PRIOR_SHOTS * classes[label] + len(shots) * mean / np.linalg.norm(mean)
            classes[label] = mixed / np.linalg.norm(mixed)
    similarity.class_embeddings.assign(classes)
    return moved


def _fit_linear(learned: Examples, is_new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights [D, num_labels] and biases of a dense layer that has learned the old classes; those of new ones are zero."""
    old = ~is_new[learned.labels]
    weights = (np.zeros((learned.fused.shape[1], len(is_new)), "float32"), np.zeros(len(is_new), "float32"))
    model = _build_linear(weights)
    _train(model, Examples(learned.fused[old], learned.labels[old]), seed=0)
    kernel, bias = model.get_weights()
    kernel[:, is_new], bias[is_new] = 0, 0
    return kernel, bias


def _build_linear(weights: tuple[np.ndarray, np.ndarray]) -> keras.Model:
    inputs = keras.Input((weights[0].shape[0],))
    model = keras.Model(inputs, keras.layers.Dense(weights[0].shape[1], name="logits")(inputs))
    model.set_weights(weights)
    return model


def _train(model: keras.Model, examples: Examples, seed: int) -> None:
    keras.utils.set_random_seed(seed)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(_RATE), loss)
    model.fit(examples.fused, examples.labels, batch_size=_BATCH_SIZE, epochs=_EPOCHS, verbose=0)


def _ask(model: keras.Model, inputs: np.ndarray, rows: int = 4096) -> np.ndarray:
    """The answers of a small model, which is not worth compiling: [N, D] -> [N, L]."""
    parts = (model(inputs[start : start + rows], training=False) for start in range(0, len(inputs), rows))
    return np.concatenate([keras.ops.convert_to_numpy(part) for part in parts])


def score_logits(logits: np.ndarray, labels: np.ndarray, is_new: np.ndarray) -> dict[str, float]:
    """Accuracies of the examples of new and of old classes; ties go to the first class, so that zeros win nothing."""
    of_new = is_new[labels]
    right = logits.argmax(axis=1) == labels
    right_among_new = np.where(is_new, logits, -np.inf).argmax(axis=1) == labels
    new, old = float(right[of_new].mean()), float(right[~of_new].mean())
    harmonic = 2 * new * old / (new + old) if new + old else 0.0
    return {"new": new, "new_among_new": float(right_among_new[of_new].mean()), "old": old, "harmonic": harmonic}
