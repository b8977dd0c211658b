"""One fit of a classifier: packs its examples, or finds them packed, writes the config that it amounts to, and trains."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import time
import warnings
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
from mm_keras.estimator.packed_frames import Packed, is_dataset, pack_training
from mm_keras.estimator.parts import Parts, choose_parts
from mm_keras.estimator.passed_models import as_image_tower, save_text_model
from mm_keras.estimator.time_budget import SAMPLE, affordable_rows
from mm_keras.estimator.warm_start import WarmStart
from mm_keras.runs.run_folder import RunFolder, SavedConfig
from tfrecords_tools.dataset.folder import Dataset
from tfrecords_tools.progress import showing

_SHARE_OF_TRAINING = 0.9  # of the time limit, less what packing took; the rest is for the last validation
_BEHIND_TRAINING = 8.0  # seconds, to save the model and to load it


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
    """The result of a fit.

    Attributes:
        run: the run folder.
        folders: the temporary folders of the run and of the packed examples, for as long as they are needed.
    """

    run: RunFolder
    folders: tuple[KeptFolder, ...]


def fit_classifier(request: Request) -> Fitted:
    """Trains as a request says; see `MultimodalClassifier.fit` for what it raises."""
    began = time.monotonic()
    fit = _Fit(request)
    packed = fit.pack(fit.affordable(began))
    config, options = fit.configure(packed.dataset)
    if request.time_limit is not None:
        spent = time.monotonic() - began + _BEHIND_TRAINING
        options["minutes"] = max(0.0, _SHARE_OF_TRAINING * request.time_limit - spent) / 60
    run = RunFolder(fit.home.path / "run")
    config.functions["train"](workdir=run.path, config=SavedConfig(config.given, config.operative), **options)
    Columns(request.inputs.image, request.inputs.texts, label_columns(request.y, request.X), packed.codec).save(run)
    return Fitted(run, (fit.home, *packed.folders))


class _Fit:
    """The steps of a fit.

    Attributes:
        home: the folder of the run and its config.
    """

    def __init__(self, request: Request):
        self._request, self.home = request, KeptFolder()
        self._warm = WarmStart(RunFolder(request.start_from), request.inputs) if request.start_from else None
        self._parts = None if self._warm else _choose_parts(request, self.home.path)

    @property
    def _by_gradient(self) -> bool:
        return self._warm.trains_by_gradient if self._warm else not self._parts.all_frozen

    def pack(self, most: int | None = None, folder: str | Path | None = None) -> Packed:
        """Packs the examples, or finds them packed; `most` training examples at most."""
        request, warm = self._request, self._warm
        folder = folder or request.folder
        return pack_training(
            *(request.X, request.y, request.validation_data, request.inputs, request.form),
            Path(folder) if folder else None,
            self._by_gradient,
            request.seed,
            warm and (lambda codec: warm.accept(codec, request.new_classes)),
            most,
        )

    def configure(self, dataset: Dataset) -> tuple[Config, dict[str, Any]]:
        """The config of the training on a dataset, and what `train` gets beside it."""
        val_split = "val" if "val" in dataset.info.splits else None
        if self._warm:
            text = self._warm.config(dataset, val_split, self._request.seed)
        else:
            lines = [f"train.dataset = {str(dataset.folder)!r}"]
            text = make_config(dataset, lines, self._request.inputs.texts, self._parts, val_split, self._request.seed)
        file = self.home.path / "config.gin"
        file.write_text(text, "utf-8")
        config = load_config(file)
        return config, self._warm.options(config, dataset) if self._warm else _options(config, self._parts)

    def affordable(self, began: float) -> int | None:
        """How many training examples the time limit allows; None: all, as always for gradients or a dataset folder."""
        request = self._request
        if request.time_limit is None or self._by_gradient or request.folder or is_dataset(request.X):
            return None
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder, showing(0):
            warnings.simplefilter("ignore")  # the same warnings come again when all rows are packed
            started = time.monotonic()
            sample = self.pack(SAMPLE, Path(folder) / "sample").dataset
            packing = (time.monotonic() - started) / SAMPLE
            config, options = self.configure(sample)
            make_features = options.get("make_features", config.functions["make_features"])
            build = options.get("build_model", config.functions["build_two_tower"])
            seconds_left = _SHARE_OF_TRAINING * request.time_limit - (time.monotonic() - began) - _BEHIND_TRAINING
            most = affordable_rows(sample, make_features, build, packing, seconds_left)
        logging.info(f"time_limit={request.time_limit:g}: {most:,} rows can be learned from; of more they are drawn by label")
        return max(most, SAMPLE)


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
