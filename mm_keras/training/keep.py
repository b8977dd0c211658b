"""The fourth step of a training: what it leaves in the run folder, at its start and at its end."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import keras
import tensorflow as tf
from absl import logging

import mm_keras
from mm_keras.distribution.preemption import end_if_asked
from mm_keras.model.frozen import frozen_modalities
from mm_keras.runs.thresholds import save_thresholds, tune_thresholds
from mm_keras.training.build import Built
from mm_keras.training.checkpoint import prune
from mm_keras.training.fit import best_epoch_file
from mm_keras.training.prepare import Prepared
from mm_keras.training.progress import Progress
from mm_keras.training.solve_head import SolvedHead
from mm_keras.training.solver_report import format_solution
from mm_keras.training.training_setup import save_setup
from tfrecords_tools.dataset.atomic_file import atomic_file, write_text
from tfrecords_tools.dataset.checksums import check, enter, forget
from tfrecords_tools.dataset.info import DatasetInfo


def start_run(prepared: Prepared, built: Built, setup: Mapping[str, object]) -> None:
    """Makes the run folder of a new training; a run that may be overwritten is deleted only now."""
    run, request = prepared.run, prepared.request
    run.start(overwrite=request.overwrite or request.resume)  # a run that cannot be resumed was cut off before its first step
    prepared.features.save(run.path)
    if built.classes:
        built.classes.save(run.class_encoder)
    if request.config:
        run.save_config(request.config)
    run.save_facts(**_facts(prepared, built))
    save_setup(run.setup, setup)


def keep(prepared: Prepared, built: Built, progress: Progress) -> keras.Model:
    """Keeps the best epoch's weights, or the last one's without a validation split, and tunes thresholds.

    Returns:
        the model, with the weights that are kept.
    """
    run, request, model = prepared.run, prepared.request, built.model
    best_epoch = best_epoch_file(prepared, built)
    logging.info(progress.summary())
    end_if_asked()
    if prepared.val:
        check(best_epoch)
        built.trained.load_weights(best_epoch)
    if not prepared.worker.is_chief:
        return model
    if not prepared.val or built.trained is not model:
        with atomic_file(run.best) as temporary:
            model.save(temporary)
    if prepared.val and prepared.features.multi_label:
        tune_thresholds(run.path, prepared.train.dataset, prepared.val.name, request.batch_size)
    if run.tensorboard.is_dir():
        enter(run.tensorboard)
    run.save_facts(**_facts(prepared, built), finished=True, seconds=progress.seconds())
    if built.trained is not model:
        forget(best_epoch)
    prune(run.checkpoints, kept=0)
    return model


def keep_solved(prepared: Prepared, built: Built, solved: SolvedHead) -> keras.Model:
    """Keeps a model whose head was solved, its report, and its thresholds.

    Returns:
        the model.
    """
    run, features, val = prepared.run, prepared.features, prepared.val
    run.report.mkdir(parents=True, exist_ok=True)
    write_text(run.report / "solver.json", json.dumps(solved.report, indent=2) + "\n")
    write_text(run.report / "solver.md", format_solution(solved.report) + "\n")
    with atomic_file(run.best) as temporary:
        solved.model.save(temporary)
    if features.multi_label:
        tuned_on = f"held-out folds of {prepared.train.name}" + (f", and {val.name}" if val else "")
        save_thresholds(run, features, solved.thresholds, tuned_on)
    facts = _facts(prepared, built) | _size(solved.model) | {"followed": None}
    run.save_facts(**facts, solver="solved", finished=True)
    return solved.model


def _facts(prepared: Prepared, built: Built) -> dict[str, object]:
    """What run.json says of a training."""
    request, model = prepared.request, built.model
    return {
        "dataset": str(prepared.train.dataset.folder.absolute()),
        "train_split": prepared.train.name,
        "images": prepared.train.dataset.info.images,  # how they were packed; prediction prepares pictures in the same way
        "columns": _columns(prepared.train.dataset.info),  # of the table; those of tables to predict for have the same names
        "modalities": prepared.features.modalities,
        "seed": request.seed,
        "epochs": request.epochs,
        "batch_size": request.batch_size,
        "replicas": prepared.strategy.num_replicas_in_sync,
        "precision": request.precision,
        "frozen": frozen_modalities(model, prepared.features),
        "followed": f"val_{built.metrics[0].name}" if prepared.val else None,
        **_size(model),
        "versions": {"mm_keras": mm_keras.__version__, "keras": keras.__version__, "tensorflow": tf.__version__},
    }


def _columns(info: DatasetInfo) -> dict[str, object]:
    """The columns of the table that a dataset was packed from, by their roles, and how labels were written in them."""
    options = info.provenance["source_options"] if info.provenance.get("source") == "table" else {}
    roles = ("image", "image_template", "id", "label", "labels", "label_separator", "empty_means_none")
    return {name: options[name] for name in roles if options.get(name)}


def _size(model: keras.Model) -> dict[str, int]:
    size = sum(math.prod(weight.shape) * tf.as_dtype(weight.dtype).size for weight in model.weights)
    return {"parameters": model.count_params(), "weight_bytes": size}
