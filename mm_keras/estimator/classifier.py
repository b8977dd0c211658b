"""`MultimodalClassifier`: a scikit-learn estimator that learns from a table of pictures, texts and labels."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from mm_keras.config.load import load_config
from mm_keras.estimator.answers import Answers, logits_of
from mm_keras.estimator.columns import Columns, label_columns
from mm_keras.estimator.config import make_config
from mm_keras.estimator.data import Inputs, label_cells, open_frame, pack_training
from mm_keras.estimator.labels import LabelForm
from mm_keras.estimator.parts import Parts, as_image_tower, choose_parts
from mm_keras.features import IMAGE, input_name, safe_name
from mm_keras.objectives.metrics import evaluate_logits
from mm_keras.runs.export import export
from mm_keras.runs.run_folder import RunFolder, SavedConfig

if TYPE_CHECKING:
    import pandas

_SHARE_OF_TRAINING = 0.9  # of the time limit, less what packing took; the rest is for the last step and for saving


class MultimodalClassifier(ClassifierMixin, BaseEstimator):
    """Classifies examples by a picture, by texts, or by both, where any of them may be missing.

    It follows scikit-learn: parameters are kept as they are given, `fit` returns the estimator, and `clone`, `cross_val_score`
    and `GridSearchCV` take it with a DataFrame. With frozen encoders, the default, nothing but the head is learned, in seconds;
    see `mm_keras.solving`.

    Args:
        image: the column of pictures: paths, bytes, PIL images, arrays uint8 [H, W, 3], {"bytes": …, "path": …}, or empty.
            None: there are none.
        text: the text columns, one name or several.
        label_separator: splits a label into several, as "red|round"; labels may also be lists.
        empty_means_none: whether no label applies to an example whose label is empty, where examples may have several.
            Otherwise its labels are unknown, and it is left out. An empty list says that none applies.
        preset: "auto", "frozen", "scratch" or "finetune", see `choose_parts`.
        image_encoder, text_encoder: "auto", or which ones, see `choose_parts`.
        image_root: the folder of relative paths; None: that of the table, or the working folder.
        base64_images: whether texts in the image column are base64 and not paths.
        seed: the seed of all that is drawn.
        verbose: 0: silent. 1: progress and results.

    Attributes:
        classes_: the labels [L], sorted, of the type that they were given with.
        model_: the Keras model, from a batch as `features_` describes it to logits [B, L].
        features_: what the model takes in.
        history_: a dict an epoch; of a head that was solved, none.
        run_: the run folder, on which the commands of `mm-keras` work as well.
        feature_names_in_, n_features_in_: the columns that are read; a table may have others, in any order.

    Example:
        >>> classifier = MultimodalClassifier(image="photo", text=["title", "description"])
        >>> classifier.fit(train, "category").predict(test)
        >>> classifier.evaluate(test, hide=["photo"])["top_1"]
        0.83
    """

    def __init__(
        self,
        image: str | None = None,
        text: str | Sequence[str] = (),
        label_separator: str | None = None,
        empty_means_none: bool = False,
        preset: str = "auto",
        image_encoder: str | Path | keras.Model = "auto",
        text_encoder: str | Path = "auto",
        image_root: str | Path | None = None,
        base64_images: bool = False,
        seed: int = 0,
        verbose: int = 1,
    ):
        self.image = image
        self.text = text
        self.label_separator = label_separator
        self.empty_means_none = empty_means_none
        self.preset = preset
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.image_root = image_root
        self.base64_images = base64_images
        self.seed = seed
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None, validation_data: Any = None, time_limit: float | None = None) -> MultimodalClassifier:
        """Trains a model.

        Args:
            X: a DataFrame, the path of a table (CSV, TSV, JSON, Parquet), a dict of columns, a list of dicts, or a dataset
                folder that was packed before.
            y: the label column; a list of columns with 0 and 1 for one label each; or the labels, one a row. None for a dataset
                folder, which has them.
            validation_data: examples as X that decide on the best epoch and the thresholds; with labels as in `y`, or a pair
                (X, y). None: where that is of use, a part of X is held out.
            time_limit: seconds after which a training by gradient ends with the best epoch so far; None: there is no limit.

        Returns:
            the classifier.

        Raises:
            ValueError: for missing columns, labels that do not fit, or cells that are no picture or text.
        """
        began = time.monotonic()
        inputs = self._inputs()
        parts = choose_parts(self.preset, self.image_encoder, self.text_encoder, bool(inputs.image), bool(inputs.texts))
        self._say(*parts.notes)
        folder = _temporary_folder(self)
        with self._talking():
            dataset, codec = pack_training(
                X, y, validation_data, inputs, self._form, folder / "dataset", not parts.all_frozen, self.seed
            )
        val_split = "val" if "val" in dataset.info.splits else None
        lines = [f"train.dataset = {str(dataset.folder)!r}"]
        config_file = folder / "config.gin"
        config_file.write_text(make_config(dataset, lines, inputs.texts, parts, val_split, self.seed), "utf-8")
        config = load_config(config_file)
        options = {"build_model": self._with_tower(config, parts)} if isinstance(parts.image, keras.Model) else {}
        if time_limit is not None:
            options["minutes"] = max(0.0, _SHARE_OF_TRAINING * time_limit - (time.monotonic() - began)) / 60
        run = RunFolder(folder / "run")
        with self._talking():
            config.functions["train"](workdir=run.path, config=SavedConfig(config.given, config.operative), **options)
        Columns(inputs.image, inputs.texts, label_columns(y), codec).save(run)
        return self._open(run)

    def predict(self, X: Any) -> pandas.Series:
        """The most probable class of each example; with several labels a list of those above their thresholds.

        Args:
            X: examples as for `fit`, without labels.

        Returns:
            a Series with the index of X.
        """
        import pandas

        answers = self._answers_to(X)
        name = self._label if isinstance(self._label, str) else "prediction"
        if self._codec.multi_label:
            chosen = answers.probabilities > self._engine.thresholds
            return pandas.Series([self.classes_[row].tolist() for row in chosen], answers.index, name=name, dtype=object)
        return pandas.Series(self.classes_[answers.probabilities.argmax(axis=1)], answers.index, name=name)

    def predict_proba(self, X: Any) -> pandas.DataFrame:
        """The probability of each class, float32 within [0, 1], for each example; the columns are `classes_`."""
        import pandas

        answers = self._answers_to(X)
        return pandas.DataFrame(answers.probabilities, answers.index, pandas.Index(self.classes_, name=None))

    def evaluate(self, X: Any, y: Any = None, hide: Sequence[str] = ()) -> dict[str, float]:
        """The metrics of `mm_keras.objectives.metrics.evaluate_logits` on examples with labels.

        Args:
            X: examples as for `fit`.
            y: their labels as for `fit`; None: the column of the training.
            hide: columns that are taken as missing.
        """
        frame, _ = open_frame(X)
        labels, known = self._targets(frame, y)
        answers = self._answers_to(X, hide)
        logits = logits_of(answers.probabilities[known], self._codec.multi_label)
        truth = labels[known] if self._codec.multi_label else labels[known].argmax(axis=1)
        thresholds = self._engine.thresholds if self._codec.multi_label else None
        return evaluate_logits(logits, truth, self._codec.multi_label, thresholds)

    def score(self, X: Any, y: Any = None, sample_weight=None) -> float:
        """Accuracy; with several labels the mean average precision."""
        if sample_weight is not None and not self._codec.multi_label:
            return super().score(X, y, sample_weight)
        return self.evaluate(X, y)["mAP" if self._codec.multi_label else "top_1"]

    def embed(self, X: Any, of: str = "fused") -> np.ndarray:
        """Embeddings float32 [N, D] of examples.

        Args:
            X: examples as for `predict`.
            of: "fused": of all inputs together. Or an input's column: what its encoder and tuning DNN give; rows that lack it
                have embeddings without a meaning.
        """
        check_is_fitted(self, "model_")
        known = {"fused": "fused"} | {field: f"{safe_name(input_name(field))}_embedding" for field in self._columns.texts}
        known |= {self._columns.image: f"{IMAGE}_embedding"} if self._columns.image else {}
        if of not in known:
            raise ValueError(f"embed takes of={' or '.join(map(repr, known))}. Received: {of!r}")
        frame, root = open_frame(X)
        return self._engine.embed(self._columns, frame, root, known[of])

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Copies the run folder to a path; `load` and the commands of `mm-keras` read it there.

        Raises:
            FileExistsError: if there is something already, and `overwrite` is False.
        """
        check_is_fitted(self, "model_")
        path = Path(path)
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists already; choose another path, or pass overwrite=True")
        shutil.rmtree(path, ignore_errors=True)
        return Path(shutil.copytree(self.run_.path, path))

    @classmethod
    def load(cls, path: str | Path, **parameters) -> MultimodalClassifier:
        """Loads what `save` wrote, or any run folder, whose columns are then named as its inputs.

        Args:
            path: the run folder.
            parameters: parameters that only matter for new examples: image_root, base64_images, verbose.
        """
        run = RunFolder(path)
        columns = Columns.load(run)
        return cls(image=columns.image, text=columns.texts, **parameters)._open(run)

    def export(self, path: str | Path) -> Path:
        """Exports a SavedModel, as TensorFlow Serving expects it, to path/<version>; returns that folder.

        Its answers are compared with the trained model's on training examples first.
        """
        check_is_fitted(self, "model_")
        with self._talking():
            exported = export(self.run_.path, split="train")
        versions = [int(folder.name) for folder in Path(path).glob("*/") if folder.name.isdecimal()]
        return Path(shutil.copytree(exported, Path(path) / str(max(versions, default=0) + 1)))

    def to_gin(self) -> str:
        """The gin config that the training amounts to; `mm-keras train FILE` runs it."""
        check_is_fitted(self, "model_")
        return (self.run_.path / "config.gin").read_text("utf-8")

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __getstate__(self):
        if hasattr(self, "model_"):
            raise TypeError("a fitted MultimodalClassifier is kept by save(path) and MultimodalClassifier.load(path)")
        return super().__getstate__()

    def _inputs(self) -> Inputs:
        texts = (self.text,) if isinstance(self.text, str) else tuple(self.text)
        if not self.image and not texts:
            raise ValueError("name the columns: MultimodalClassifier(image='photo', text=['title', 'description'])")
        return Inputs(self.image, texts, self.base64_images, str(self.image_root) if self.image_root else None)

    @property
    def _form(self) -> LabelForm:
        return LabelForm(self.label_separator, self.empty_means_none)

    def _with_tower(self, config, parts: Parts):
        """`build_two_tower` as the config binds it, with the image tower that was passed as an object."""
        build = config.functions["build_two_tower"]
        return lambda features, **options: build(features, image_tower=lambda spec: as_image_tower(parts.image), **options)

    def _open(self, run: RunFolder) -> MultimodalClassifier:
        columns = Columns.load(run)
        self.run_ = run
        self._engine = Answers(run)
        self._codec, self._label = columns.codec, columns.label
        root = str(self.image_root) if self.image_root else None
        self._columns = Inputs(columns.image, columns.texts, self.base64_images, root)
        self.classes_ = self._codec.classes
        self.model_, self.features_ = self._engine.model, self._engine.features
        self.feature_names_in_ = np.array(self._columns.columns, dtype=object)
        self.n_features_in_ = len(self.feature_names_in_)
        lines = run.metrics.read_text("utf-8").splitlines() if run.metrics.is_file() else []
        self.history_ = [json.loads(line) for line in lines]
        return self

    def _answers_to(self, X: Any, hide: Sequence[str] = ()):
        check_is_fitted(self, "model_")
        frame, root = open_frame(X)
        unknown = [column for column in hide if column not in self._columns.columns]
        if unknown:
            raise ValueError(f"hide names inputs, which are {self._columns.columns}. Received: {unknown[0]!r}")
        return self._engine.answer(self._columns, frame, root, self._codec.names, hide)

    def _targets(self, frame: pandas.DataFrame, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """bool [N, L], and whether they are known: bool [N]."""
        if y is None and self._label is None:
            raise ValueError("evaluate needs the labels: evaluate(X, 'category')")
        cells, _ = label_cells(frame, self._label if y is None else y, self._form)
        targets = np.zeros((len(cells), len(self.classes_)), bool)
        for row, cell in zip(targets, cells, strict=True):
            row[[self._codec.names.index(self._codec.name(label)) for label in cell or ()]] = True
        return targets, np.array([cell is not None for cell in cells], bool)

    def _talking(self) -> contextlib.AbstractContextManager:
        """What is printed is held back if nothing is to be said."""
        silent = contextlib.ExitStack()
        if not self.verbose:
            silent.enter_context(contextlib.redirect_stdout(io.StringIO()))
            silent.enter_context(contextlib.redirect_stderr(io.StringIO()))
        return silent

    def _say(self, *notes: str) -> None:
        for note in notes if self.verbose else ():
            print(note)


def _temporary_folder(owner: MultimodalClassifier) -> Path:
    """A folder that lives as long as the classifier, which had another one if it was fitted before."""
    folder = Path(tempfile.mkdtemp(prefix="mm-keras-"))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder
