"""One fit of a classifier: packs its examples, or finds them packed, writes the config that it amounts to, and trains."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
from absl import logging

from mm_keras.config.load import Config, load_config
from mm_keras.estimator.columns import Columns, label_columns
from mm_keras.estimator.config import make_config
from mm_keras.estimator.data import Inputs
from mm_keras.estimator.kept_folders import KeptFolder
from mm_keras.estimator.labels import LabelForm
from mm_keras.estimator.packed_frames import pack_training
from mm_keras.estimator.parts import Parts, choose_parts
from mm_keras.estimator.passed_models import as_image_tower, save_text_model
from mm_keras.estimator.warm_start import WarmStart
from mm_keras.runs.run_folder import RunFolder, SavedConfig

_SHARE_OF_TRAINING = 0.9  # of the time limit, less what packing took; the rest is for the last step and for saving


@dataclasses.dataclass(frozen=True)
class Request:
    """What `MultimodalClassifier.fit` was asked for; its attributes are the arguments of it and of the classifier."""

    X: Any
    y: Any
    validation_data: Any
    time_limit: float | None
    start_from: str | Path | None
    new_classes: bool
    folder: str | Path | None
    inputs: Inputs
    form: LabelForm
    preset: str
    image_encoder: str | Path | keras.Model
    text_encoder: str | Path | keras.Model
    seed: int


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What a fit leaves.

    Attributes:
        run: the run folder.
        folders: the temporary folders that it needs.
    """

    run: RunFolder
    folders: tuple[KeptFolder, ...]


def fit_classifier(request: Request) -> Fitted:
    """Trains as a request says; see `MultimodalClassifier.fit` for what it raises."""
    began = time.monotonic()
    inputs, home = request.inputs, KeptFolder()
    warm = WarmStart(RunFolder(request.start_from), inputs) if request.start_from else None
    parts = None if warm else _choose_parts(request, home.path)
    validate = warm.trains_by_gradient if warm else not parts.all_frozen
    packed = pack_training(
        request.X,
        request.y,
        request.validation_data,
        inputs,
        request.form,
        Path(request.folder) if request.folder else None,
        validate,
        request.seed,
        warm and (lambda codec: warm.accept(codec, request.new_classes)),
    )
    dataset, val_split = packed.dataset, "val" if "val" in packed.dataset.info.splits else None
    config_file = home.path / "config.gin"
    if warm:
        text = warm.config(dataset, val_split, request.seed)
    else:
        lines = [f"train.dataset = {str(dataset.folder)!r}"]
        text = make_config(dataset, lines, inputs.texts, parts, val_split, request.seed)
    config_file.write_text(text, "utf-8")
    config = load_config(config_file)
    options = warm.options(config, dataset) if warm else _options(config, parts)
    if request.time_limit is not None:
        options["minutes"] = max(0.0, _SHARE_OF_TRAINING * request.time_limit - (time.monotonic() - began)) / 60
    run = RunFolder(home.path / "run")
    config.functions["train"](workdir=run.path, config=SavedConfig(config.given, config.operative), **options)
    Columns(inputs.image, inputs.texts, label_columns(request.y), packed.codec).save(run)
    return Fitted(run, (home, *packed.folders))


def _choose_parts(request: Request, folder: Path) -> Parts:
    inputs = request.inputs
    parts = choose_parts(request.preset, request.image_encoder, request.text_encoder, bool(inputs.image), bool(inputs.texts))
    for note in parts.notes:
        logging.info(note)
    if isinstance(parts.text, keras.Model):
        save_text_model(parts.text, folder / "text_model")
        parts = dataclasses.replace(parts, text_model=str(folder / "text_model"))
    return parts


def _options(config: Config, parts: Parts) -> dict[str, Callable]:
    """`build_two_tower` as the config binds it, with the image tower that was passed as an object."""
    if not isinstance(parts.image, keras.Model):
        return {}
    build = functools.partial(config.functions["build_two_tower"], image_tower=lambda _: as_image_tower(parts.image))
    return {"build_model": build}
