"""The other way to train: the encoders are frozen and cached, and the head is solved from their outputs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping

import keras
import numpy as np
from absl import logging

from mm_keras.data.feature_cache import FeatureCache
from mm_keras.distribution.preemption import end_if_asked
from mm_keras.features import FeatureSpec, TokenText, present
from mm_keras.model.solved_head import build_solved_head
from mm_keras.model.solved_two_tower import build_solved_two_tower, embedding_widths
from mm_keras.model.two_tower_parts import TwoTowerParts, part_name
from mm_keras.objectives.logits_losses import CrossEntropy
from mm_keras.runs.thresholds import best_thresholds
from mm_keras.solving.rows import Rows, make_blocks, make_folds
from mm_keras.solving.solve import Solution, solve
from mm_keras.solving.validation import Validation
from mm_keras.training.build import Built
from mm_keras.training.prepare import Prepared
from mm_keras.training.solver_report import describe_solution, format_solution
from tfrecords_tools.dataset.folder import Split

_MOST_EXAMPLES = 200_000
_MOST_NUMBERS = 800_000_000  # examples x numbers of their embeddings: 200,000 x 4,000
_MOST_ANSWERS = 20_000_000  # examples x labels


def why_not_solved(prepared: Prepared, built: Built) -> str | None:
    """Why a training cannot be solved, as the end of a sentence; None if it can."""
    request, features = prepared.request, prepared.features
    parts = TwoTowerParts(built.model.layers)
    uncached = [modality for modality in features.modalities if modality not in built.cached]
    if uncached:
        return f"the encoder of {uncached[0]!r} is trained, or what it sees changes from epoch to epoch"
    sequences = [modality for modality in features.modalities if len(parts.encoder(modality).output.shape) != 2]
    if sequences:
        return f"the encoder of {sequences[0]!r} gives a sequence and not one vector"
    if any(parts.encoder(modality).trainable_weights for modality in features.modalities):
        return "a tower is trained in part"
    options = {
        "embed_classes": request.embed_classes,
        "sampling": request.sampling,
        "auxiliary_weight": request.auxiliary_weight,
    }
    for name, value in options.items():
        if value:
            return f"train.{name} is for models that are trained by gradient"
    if not isinstance(built.loss, CrossEntropy):
        return f"train.make_loss gives a {type(built.loss).__name__}, and solving minimises the cross-entropy"
    if prepared.strategy.num_replicas_in_sync > 1 or prepared.worker.count > 1:
        return "it would run on one of several replicas"
    examples = prepared.train.num_labelled
    width = sum(parts.encoder(modality).output.shape[-1] for modality in features.modalities)
    if examples > _MOST_EXAMPLES or examples * width > _MOST_NUMBERS or examples * len(features.labels) > _MOST_ANSWERS:
        return (
            f"{examples:,} examples with {width:,} numbers and {len(features.labels):,} labels do not fit: at most "
            f"{_MOST_EXAMPLES:,} examples, {_MOST_NUMBERS:,} numbers and {_MOST_ANSWERS:,} answers"
        )
    return None


@dataclasses.dataclass(frozen=True)
class SolvedHead:
    """The result of solving a head.

    Attributes:
        model: the whole model, with logits.
        report: the description of the solution by `describe_solution`.
        thresholds: the probabilities above which labels are predicted, float [L], from the held-out folds and the validation
            split. Multi-label only.
    """

    model: keras.Model
    report: Mapping[str, object]
    thresholds: np.ndarray | None


def solve_head(prepared: Prepared, built: Built) -> SolvedHead:
    """Solves the head of a model.

    Args:
        prepared, built: a training for which `why_not_solved` knows no reason.

    Raises:
        ValueError: for embeddings that are not finite, or fewer than two different examples.
    """
    began = time.monotonic()
    features, parts = prepared.features, TwoTowerParts(built.model.layers)
    cache, inputs = _read(prepared.train, features, built)
    labels = cache.labels
    widths_of = {modality: embedding_widths(parts.encoder(modality)) for modality in features.modalities}
    blocks, words = make_blocks(features, inputs, widths_of)
    logging.info(
        f"solving the head: {len(labels):,} examples, blocks {', '.join(f'{b.name} ({b.values.shape[1]:,})' for b in blocks)}"
    )
    rows = Rows(
        blocks,
        _present(features, inputs),
        _targets(features, labels),
        _weigh(cache.weights, labels, built),
        features.multi_label,
        make_folds(features, inputs, labels, prepared.request.seed),
    )
    end_if_asked()
    validation = None
    if prepared.val:
        cache, inputs = _read(prepared.val, features, built)
        val_blocks = make_blocks(features, inputs, widths_of, words)[0]
        weights = _weigh(cache.weights, cache.labels, built)
        validation = Validation(val_blocks, _present(features, inputs), _targets(features, cache.labels), weights)
    solution = solve(rows, prepared.request.seed, validation)
    end_if_asked()
    widths = [block.values.shape[1] for block in blocks]
    centers = {number: block.values.mean(axis=0) for number, block in enumerate(blocks) if not block.is_words}
    head = build_solved_head(
        widths,
        len(features.modalities),
        solution.kernels,
        solution.answers,
        solution.pattern_of,
        features.multi_label,
        centers,
    )
    bags = {field: (field_words.column_of, field_words.rarity) for field, field_words in words.items()}
    model = build_solved_two_tower(built.model, features, bags, head)
    report = describe_solution(solution, rows, features.modalities) | {
        "seconds": round(time.monotonic() - began, 1),
        "head_bytes": 4 * head.count_params(),
    }
    logging.info(format_solution(report))
    return SolvedHead(model, report, _thresholds(solution, rows, validation) if features.multi_label else None)


def _thresholds(solution: Solution, rows: Rows, validation: Validation | None) -> np.ndarray:
    logits, targets = [solution.held_out], [rows.targets]
    if validation:
        logits.append(solution.validated)
        targets.append(validation.targets)
    return best_thresholds(np.concatenate(logits), np.concatenate(targets))


def _read(split: Split, features: FeatureSpec, built: Built) -> tuple[FeatureCache, dict[str, np.ndarray]]:
    """(the cached outputs of the encoders for a split; these outputs, the tokens and the presence flags as arrays by name).

    Raises:
        ValueError: if an output is not finite.
    """
    names = [part_name(modality, "encoded") for modality in features.modalities]
    names += [present(modality) for modality in features.modalities]
    names += [name for text in features.texts if isinstance(text, TokenText) for name in text.batch_names().values()]
    cache = FeatureCache(split, features, built.encoders, names)
    inputs = cache.inputs(np.arange(len(cache.labels)))
    _check_finite(features, inputs, cache.ids)
    return cache, inputs


def _present(features: FeatureSpec, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.stack([inputs[present(modality)] for modality in features.modalities], axis=1)


def _targets(features: FeatureSpec, labels: np.ndarray) -> np.ndarray:
    return labels if features.multi_label else np.eye(len(features.labels), dtype="float32")[labels]


def _check_finite(features: FeatureSpec, inputs, ids: np.ndarray) -> None:
    for modality in features.modalities:
        bad = np.flatnonzero(~np.isfinite(inputs[part_name(modality, "encoded")]).all(axis=1))
        if len(bad):
            raise ValueError(
                f"the embeddings of {modality!r} of {len(bad):,} examples are not finite, first that of {ids[bad[0]]!r}: "
                "the encoder's weights are broken, or do not suit train.precision"
            )


def _weigh(weights: np.ndarray, labels: np.ndarray, built: Built) -> np.ndarray:
    """float32 [N], 1 on average: the examples' own weights, times those that the loss gives to classes."""
    of_classes = built.loss.label_weights
    if of_classes is not None and labels.ndim == 1:
        weights = weights * of_classes[labels]
    return (weights / weights.mean()).astype("float32")
