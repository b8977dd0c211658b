"""Exports a run for runtimes without TensorFlow: ONNX and LiteRT, with all that a client needs to prepare inputs."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np
from absl import logging
from scipy.special import logit

from mm_keras.configurable import NonNegativeFloat, PositiveInt, configurable
from mm_keras.data.pipeline import make_evaluation_batches
from mm_keras.data.text import PRETRAINED_KINDS
from mm_keras.distribution.preemption import end_if_asked
from mm_keras.features import IMAGE, FeatureSpec, TokenizerSpec, TokenText, present
from mm_keras.objectives.metrics import evaluate_logits, probabilities_of
from mm_keras.runs import portable_client
from mm_keras.runs.export import publish_version, staging_folder
from mm_keras.runs.parity import ParityError
from mm_keras.runs.portable_formats import FILES, Format, NotConvertibleError, Precision, check_packages, convert
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.thresholds import load_thresholds
from mm_keras.scripts import RANGES
from tfrecords_tools.dataset.folder import Split

_TIMED = 20  # the last so many examples give the median time


@configurable
def export_portable(
    workdir: str | Path,
    form: Format,
    precision: Precision = "float32",
    dataset: str | None = None,
    split: str = "test",
    num_checked: PositiveInt = 256,
    tolerance: NonNegativeFloat = 1e-4,
    most_lost: NonNegativeFloat = 0.01,
) -> Path:
    """Exports a run as export_<format>/<version>/: the model, preprocess.json, and client.py, which needs no TensorFlow.

    The file is then run on the first records of a split. In float32 its probabilities must equal the trained model's; with
    smaller weights, what it loses of top-1 accuracy (micro F1 for several labels) is measured, and must be little.

    Args:
        workdir: the run folder.
        form: "onnx" or "litert".
        precision: of the weights: "float32"; "float16", half as large; "int8", a quarter for dense layers and transformers.
        dataset: dataset folder with the records to compare on; default: the one that the run was trained on.
        split: the split with these records.
        num_checked: number of records to compare on.
        tolerance: the largest difference of a probability that is accepted in float32.
        most_lost: how much of the accuracy may be lost otherwise.

    Returns:
        the folder.

    Raises:
        NotConvertibleError: if the model takes strings, or has operations that the format does not have.
        ParityError: if the probabilities or the accuracy differ by more than that; the export is then not kept.
        ImportError: if a package is missing; the message names it.

    Example:
        >>> export_portable("runs/products", "onnx", "int8")
        PosixPath('runs/products/export_onnx/1')
    """
    check_packages(form)
    run = RunFolder(workdir)
    model, features = run.load_model()
    _check_inputs(features)
    check_split = run.dataset(dataset).split(split)
    with staging_folder(run.path / f"export_{form}") as staging:
        content = convert(model, features, form, precision)
        end_if_asked()
        (staging / FILES[form]).write_bytes(content)
        measured = _compare(portable_client.open_model(staging / FILES[form]), model, features, check_split, num_checked)
        _check_measured(measured, precision, tolerance, most_lost)
        thresholds = load_thresholds(run, features)
        facts = _describe(features, thresholds and thresholds.values) | {"model": FILES[form], "precision": precision}
        text = json.dumps(facts | {"measured": measured}, ensure_ascii=False, indent=1) + "\n"
        (staging / "preprocess.json").write_text(text, "utf-8")
        shutil.copy(portable_client.__file__, staging / "client.py")
        exported = publish_version(staging)
    logging.info(
        f"exported {exported}: {len(content) / 1e6:,.1f} MB in {precision}, {measured['milliseconds']:.1f} ms an example; on "
        f"{measured['records']} records {measured['metric']} {measured['exported']:.4f} (the trained model: "
        f"{measured['trained']:.4f}), largest difference of a probability {measured['largest_difference']:.1e}"
    )
    logging.info(f"try it: python {exported / 'client.py'} --help")
    return exported


def _check_inputs(features: FeatureSpec) -> None:
    strings = [text.field for text in features.texts if not isinstance(text, TokenText)]
    if strings:
        raise NotConvertibleError(
            f"the text fields {strings} go through a SavedModel of strings, whose operations (lookups, hashes, regular "
            "expressions) neither ONNX nor LiteRT has: export a SavedModel, or train with an encoder that takes tokens"
        )


def _compare(
    ask: Callable, model: keras.Model, features: FeatureSpec, check_split: Split, num_checked: int
) -> dict[str, float | int | str]:
    """How the file's answers differ from the model's; one example is asked at a time, as clients do."""
    batches = make_evaluation_batches(check_split, features, 32)
    exported, trained, labels, seconds = [], [], [], []
    for inputs, targets, weights in batches.dataset:
        end_if_asked()
        logits = keras.ops.convert_to_numpy(model(inputs, training=False))
        rows = np.flatnonzero(keras.ops.convert_to_numpy(weights) > 0)[: num_checked - len(labels)]
        arrays = {name: value.numpy() for name, value in inputs.items()}
        for row in rows:
            start = time.perf_counter()
            exported.append(ask({name: value[row : row + 1] for name, value in arrays.items()})[0])
            seconds.append(time.perf_counter() - start)
        trained.extend(probabilities_of(logits[rows], features.multi_label))
        labels.extend(targets.numpy()[rows])
        if len(labels) >= num_checked:
            break
    metric = "micro_f1" if features.multi_label else "top_1"

    def measure(scores) -> float:
        clipped = np.clip(np.array(scores, "float64"), 1e-12, 1 - 1e-7)
        logits = logit(clipped) if features.multi_label else np.log(clipped)
        return float(evaluate_logits(logits.astype("float32"), np.array(labels), features.multi_label)[metric])

    return {
        "records": len(labels),
        "metric": metric,
        "trained": measure(trained),
        "exported": measure(exported),
        "largest_difference": float(np.abs(np.subtract(exported, trained)).max()),
        "milliseconds": 1e3 * float(np.median(seconds[-_TIMED:])),
    }


def _check_measured(measured: Mapping, precision: Precision, tolerance: float, most_lost: float) -> None:
    difference, lost = measured["largest_difference"], measured["trained"] - measured["exported"]
    if precision == "float32" and not difference <= tolerance:
        raise ParityError(f"the exported model's probabilities differ by up to {difference:.1e} (allowed: {tolerance:.0e})")
    if not lost <= most_lost:
        raise ParityError(
            f"with {precision} weights the {measured['metric']} falls by {lost:.4f} on {measured['records']} records (allowed: "
            f"{most_lost}, export_portable.most_lost); take --precision={'float16' if precision == 'int8' else 'float32'}"
        )


def _describe(features: FeatureSpec, thresholds) -> dict:
    """What preprocess.json says: all that happens to an example before the model sees it, and what the scores are of."""
    tokenizers = list(dict.fromkeys(text.tokenizer for text in features.texts))
    image = features.image
    return {
        "format_version": 1,
        "image": image and {"size": list(image.size), "fit": image.fit, "present": present(IMAGE)},
        "texts": [
            {
                "field": text.field,
                "max_tokens": text.max_tokens,
                "tokenizer": tokenizers.index(text.tokenizer),
                "present": present(text.name),
                **text.batch_names(),
            }
            for text in features.texts
        ],
        "tokenizers": [describe_tokenizer(spec) for spec in tokenizers],
        "labels": list(features.labels),
        "multi_label": features.multi_label,
        "thresholds": None if thresholds is None else [float(value) for value in thresholds],
    }


def describe_tokenizer(spec: TokenizerSpec) -> dict:
    facts = {"kind": spec.kind, "vocabulary": list(spec.vocabulary)}
    if spec.kind in PRETRAINED_KINDS:
        names = ("family", "lowercase", "strip_accents", "start_id", "end_id", "merges")
        return facts | {name: getattr(spec, name) for name in names}
    return facts | {"family": spec.kind, "spaceless": [list(pair) for pair in RANGES] if spec.by_character else []}
