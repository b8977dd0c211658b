"""Late fusion: makes one run of several trained runs, by combining their answers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
from absl import logging
from scipy.special import logit

from mm_keras.data.damage import naming_damage
from mm_keras.data.pipeline import make_evaluation_batches
from mm_keras.features import FeatureSpec
from mm_keras.model.late_fusion import MajorityVote, Stacking, WeightedSum, build_answers, build_late_fusion, voting_patterns
from mm_keras.objectives.metrics import evaluate_logits
from mm_keras.runs.late_fusion.fit import fit_stacking, fit_weights, fit_weights_per_label
from mm_keras.runs.late_fusion.merge_features import merge_features
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.thresholds import best_thresholds, load_thresholds, save_thresholds
from tfrecords_tools.dataset.atomic_file import atomic_file, write_text
from tfrecords_tools.dataset.checksums import read_json
from tfrecords_tools.dataset.folder import Dataset, Split
from tfrecords_tools.progress import progress_bar

METHODS = ("weights", "weights_per_label", "vote", "stacking")


def late_fusion(
    workdir: str | Path,
    runs: Sequence[str | Path],
    method: str = "weights",
    dataset: str | None = None,
    split: str = "val",
    batch_size: int = 64,
    overwrite: bool = False,
    weights: Sequence[float] | None = None,
) -> Path:
    """Makes a run of several trained runs. It is evaluated, used and exported like any other, and no longer needs them.

    Its inputs are those of all runs together. A model has no say in an example that lacks all of its inputs. The weights of the
    models are written to late_fusion.json in the new folder.

    Args:
        workdir: the run folder to make.
        runs: two or more run folders of one dataset. They have the same labels, and preprocess inputs that they share in the
            same way.
        method: "weights": a weighted sum of probabilities, with one weight for each model. "weights_per_label": with one
            weight for each model and label. "vote": the majority; the mean probability decides ties. "stacking": a logistic
            layer over the answers. All but the vote are fitted by the log loss, see `mm_keras.runs.late_fusion.fit`.
        dataset: the dataset or its folder; default: the one that the runs were trained on.
        split: the split to fit on. No run may have learned from it, and it must not be "test". Thresholds of multi-label runs
            are tuned on it too, except for a vote, whose threshold is 0.5.
        batch_size: examples in a batch; only the memory depends on it. The answers of all models are held in memory.
        overwrite: delete a run that is already in `workdir`.
        weights: of the runs, above 0, for method "weights" instead of those that fit best; they are scaled to a sum of 1.

    Returns:
        `workdir`.

    Raises:
        FileExistsError: if `workdir` holds a run, and `overwrite` is not set.
        FileNotFoundError: if one of the runs is none, or the dataset is not there.
        ValueError: for an unknown method, runs that do not fit each other, or a split that cannot be used.
    """
    if method not in METHODS:
        raise ValueError(f"methods of late fusion are {', '.join(METHODS)}. Received: {method!r}")
    _check_weights(weights, method, runs)
    new, parts = RunFolder(workdir), [RunFolder(run) for run in runs]
    _check_folders(new, parts)
    new.check_free(overwrite)
    models, specs = zip(*(part.load_model() for part in parts), strict=True)
    features = merge_features({str(part.path): spec for part, spec in zip(parts, specs, strict=True)})
    held_out = _common_dataset(parts, dataset)
    learned_from = _check_held_out(parts, held_out, split)

    answers = build_answers(models, specs, features)
    logits, voting, labels = _ask(answers, features, held_out.split(split), batch_size)
    if weights:
        values = np.array(weights, "float64")[:, None] / sum(weights)
        combination = WeightedSum(features.multi_label, values)
    else:
        combination, values = _fit(method, parts, specs, features, (logits, voting, labels))
    model = build_late_fusion(answers, combination)
    fused = _combine(combination, logits, voting)

    content = {
        "method": method,
        "runs": [str(part.path.absolute()) for part in parts],
        "split": split,
        "num_examples": len(labels),
        "learned_from": sorted({*learned_from, split}),
        **_fitted(method, values, features.labels),
    }
    new.start(overwrite)
    _write(new, features, model, held_out, content)
    if features.multi_label and method != "vote":
        save_thresholds(new, features, best_thresholds(fused, labels), split)
    fitted = "weights given, and measured" if weights else "fitted"
    logging.info(
        f"{new.path}: {len(parts)} runs fused by {method}, {fitted} on {len(labels):,} examples of split {split!r}. On these:"
    )
    shares = [""] * len(parts) if method == "vote" else [f", weight {weight:.3f}" for weight in _mean_weights(values)]
    _tell_scores([*(part.path for part in parts), "fused"], [*np.moveaxis(logits, 1, 0), fused], labels, [*shares, ""])
    folders = shlex.join(str(folder.path) for folder in (new, *parts))
    logging.info(f"whether that is more than chance, on the split test: mm-keras report {folders}")
    return new.path


def _write(new: RunFolder, features: FeatureSpec, model: keras.Model, held_out: Dataset, content: Mapping) -> None:
    features.save(new.path)
    with atomic_file(new.best) as temporary:
        model.save(temporary)
    facts = {"dataset": str(held_out.folder.absolute()), "modalities": features.modalities}
    new.save_facts(**facts, images=held_out.info.images)
    write_text(new.late_fusion, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _tell_scores(names: Sequence, logits: Sequence[np.ndarray], labels: np.ndarray, shares: Sequence[str]) -> None:
    """Logs how good each run is, and all of them together, from the logits [N, L] of each."""
    multi_label = labels.ndim == 2
    metric = "micro_f1" if multi_label else "top_1"
    for name, answers, share in zip(names, logits, shares, strict=True):
        logging.info(f"  {name}: {metric} {evaluate_logits(answers, labels, multi_label)[metric]:.3f}{share}")


def _fit(
    method: str,
    parts: Sequence[RunFolder],
    specs: Sequence[FeatureSpec],
    features: FeatureSpec,
    examples: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> tuple[keras.Layer, np.ndarray]:
    """The layer that combines the models' answers, and the thresholds, weights or logistic layers in it."""
    logits, voting, labels = examples
    if method == "vote":
        values = np.stack([_threshold_logits(part, spec) for part, spec in zip(parts, specs, strict=True)])
        return MajorityVote(features.multi_label, values), values
    if method == "stacking":
        patterns = voting_patterns(specs, features)
        values = fit_stacking(logits, voting, labels, features.multi_label, patterns)
        return Stacking(features.multi_label, values, patterns), values
    fit = fit_weights if method == "weights" else fit_weights_per_label
    values = fit(logits, voting, labels, features.multi_label)
    return WeightedSum(features.multi_label, values), values


def _check_weights(weights: Sequence[float] | None, method: str, runs: Sequence[str | Path]) -> None:
    if weights is None:
        return
    if method != "weights":
        raise ValueError(f"given weights are of method 'weights'. Received: {method!r}")
    if len(weights) != len(runs) or not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(f"weights are a number above 0 for each of the {len(runs)} runs. Received: {list(weights)}")


def _check_folders(new: RunFolder, parts: Sequence[RunFolder]) -> None:
    paths = [part.path.resolve() for part in parts]
    if len(set(paths)) < 2 or len(set(paths)) < len(paths):
        raise ValueError(f"late fusion takes two or more different runs. Received: {[str(part.path) for part in parts]}")
    for path in paths:
        if path.is_relative_to(new.path.resolve()):
            raise ValueError(f"{new.path} is to be made of {path}, which lies in it; choose another --workdir")


def _common_dataset(parts: Sequence[RunFolder], dataset: str | None) -> Dataset:
    """Opens `dataset`, or if it is None the one that all runs were trained on."""
    first, *others = parts
    for part in others if not dataset else ():
        if part.facts()["dataset"] != first.facts()["dataset"]:
            raise ValueError(
                f"{first.path} was trained on {first.facts()['dataset']}, {part.path} on {part.facts()['dataset']}; name the "
                "dataset to fit on with --dataset"
            )
    return first.dataset(dataset)


def _check_held_out(parts: Sequence[RunFolder], dataset: Dataset, split: str) -> list[str]:
    """The splits that the runs have learned from; none of them is `split`."""
    splits = sorted(dataset.info.splits)
    if split not in splits:
        raise ValueError(
            f"dataset {dataset.folder} has no split {split!r} to fit on; it has {splits}: name another with --split"
        )
    if split == "test":
        raise ValueError("late fusion is not fitted on split 'test', on which it is to be measured; name another with --split")
    learned_from = set()
    for part in parts:
        used_splits = read_json(part.late_fusion)["learned_from"] if part.late_fusion.is_file() else None
        used_splits = used_splits or [part.facts()["train_split"]]
        if split in used_splits:
            raise ValueError(
                f"{part.path} has learned from split {split!r} and is too sure of it; name another with --split"
                + (", or fuse all single runs at once" if part.late_fusion.is_file() else "")
            )
        learned_from.update(used_splits)
    return sorted(learned_from)


def _ask(
    answers: keras.Model, features: FeatureSpec, split: Split, batch_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The logits [N, M, L] and presence flags [N, M] of all M models for a split, and its labels."""
    batches = make_evaluation_batches(split, features, batch_size)
    parts = []
    with naming_damage(split), progress_bar("asking the models", "examples", batches.num_examples) as bar:
        for inputs, labels, _ in batches.dataset:
            parts.append((*answers.predict_on_batch(inputs), labels.numpy()))
            bar.update(min(batch_size, batches.num_examples - bar.n))
    logits, voting, labels = (np.concatenate(arrays)[: batches.num_examples] for arrays in zip(*parts, strict=True))
    return logits, voting, labels


def _combine(combination: keras.Layer, logits: np.ndarray, voting: np.ndarray, rows: int = 1024) -> np.ndarray:
    starts = range(0, len(logits), rows)
    return np.concatenate(
        [keras.ops.convert_to_numpy(combination(logits[row : row + rows], voting[row : row + rows])) for row in starts]
    )


def _threshold_logits(part: RunFolder, features: FeatureSpec) -> np.ndarray:
    """The logit of each label's threshold; zeros if none was tuned."""
    thresholds = load_thresholds(part, features)
    return logit(np.clip(thresholds.values, 1e-7, 1 - 1e-7)) if thresholds else np.zeros(len(features.labels))


def _mean_weights(values: np.ndarray) -> np.ndarray:
    """The mean weight of each model over the labels, [M]; for stacking, in examples for which all models vote."""
    return (values if values.ndim == 2 else values[0, :-1]).mean(axis=1)


def _fitted(method: str, values: np.ndarray, labels: Sequence[str]) -> dict:
    """The values of the combination in a readable form: for each label one number for each run."""

    def by_label(rows: np.ndarray) -> dict[str, list[float]]:
        return dict(zip(labels, rows.T.tolist(), strict=True))

    if method == "weights":
        return {"weights": values[:, 0].tolist()}
    if method == "stacking":
        return {"weights": by_label(values[0, :-1]), "bias": by_label(values[0, -1])}
    return {"weights" if method == "weights_per_label" else "thresholds_as_logits": by_label(values)}
