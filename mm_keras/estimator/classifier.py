"""`MultimodalClassifier`: a scikit-learn estimator that learns from a table of pictures, texts and labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from mm_keras.estimator.answers import Answers, logits_of
from mm_keras.estimator.columns import Columns
from mm_keras.estimator.data import Inputs, label_cells, open_frame
from mm_keras.estimator.fitting import Request, fit_classifier
from mm_keras.estimator.labels import LabelForm
from mm_keras.estimator.report import report_frame
from mm_keras.features import IMAGE, input_name
from mm_keras.objectives.metrics import evaluate_logits
from mm_keras.runs.export import export
from mm_keras.runs.run_folder import RunFolder
from tfrecords_tools.progress import showing

if TYPE_CHECKING:
    import pandas


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
        verbose: 0: warnings alone. 1: progress bars, and lines on what is done. 2: lines without bars, for log files.

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
        text_encoder: str | Path | keras.Model = "auto",
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

    def fit(
        self,
        X: Any,
        y: Any = None,
        validation_data: Any = None,
        time_limit: float | None = None,
        start_from: str | Path | None = None,
        new_classes: bool = False,
        folder: str | Path | None = None,
    ) -> MultimodalClassifier:
        """Trains a model.

        Args:
            X: a DataFrame, the path of a table (CSV, TSV, JSON, Parquet), a dict of columns, a list of dicts, or a dataset
                folder that was packed before.
            y: the label column; a list of columns with 0 and 1 for one label each; or the labels, one a row. None for a dataset
                folder, which has them.
            validation_data: examples as X that decide on the best epoch and the thresholds; with labels as in `y`, or a pair
                (X, y). None: where that is of use, a part of X is held out.
            time_limit: seconds that it may take; None: there is no limit. A training by gradient ends with the best epoch so
                far; above frozen encoders, so many rows are learned from as can be encoded in that time, unless `X` or `folder`
                is a dataset folder, which is learned from as a whole.
            start_from: a run folder, such as `save` wrote, to go on from: its encoders, vocabulary and classes are taken over
                in the place of `preset`, `image_encoder` and `text_encoder`. A head that was solved is solved anew from the
                rows that are given; all other weights are trained further.
            new_classes: whether the classes of the rows may be others than those of `start_from`. All of both are then told
                apart; a new one begins between its nearest old ones.
            folder: where the examples are packed, or are found packed by an earlier call; None: a temporary folder.

        Returns:
            the classifier.

        Raises:
            ValueError: for missing columns, labels that do not fit, cells that are no picture or text, or a run to go on from
                that sees other inputs or classes.
        """
        request = Request(
            *(X, y, validation_data, time_limit, start_from, new_classes, folder),
            *(self._inputs(), self._form, self.preset, self.image_encoder, self.text_encoder, self.seed),
        )
        with showing(self.verbose):
            fitted = fit_classifier(request)
            self._folders = fitted.folders
            return self._open(fitted.run)

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
        spaces = {"fused": "fused"} | {field: input_name(field) for field in self._columns.texts}
        spaces |= {self._columns.image: IMAGE} if self._columns.image else {}
        if of not in spaces:
            raise ValueError(f"embed takes of={' or '.join(map(repr, spaces))}. Received: {of!r}")
        frame, root = open_frame(X)
        return self._engine.embed(self._columns, frame, root, spaces[of])

    def report(self, X: Any, path: str | Path, y: Any = None) -> Path | None:
        """Writes a page on how well examples are answered, and why; see `mm_keras.report.report`.

        Args:
            X: examples as for `fit`.
            path: the HTML file to write; its data, tables and figures go into the folder <its name>_data beside it.
            y: their labels as for `fit`; None: the column of the training, if X has it.
        """
        check_is_fitted(self, "model_")
        frame, root = open_frame(X)
        columns = [self._label] if isinstance(self._label, str) else list(self._label or ())
        if y is None and columns and set(columns) <= {*frame.columns}:
            y = self._label
        with showing(self.verbose):
            return report_frame(self.run_, self._columns, self._codec, frame, root, y, self._form, path)

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
        """Loads what `save` wrote, or any run folder, whose columns are those of the table that it was trained on.

        Args:
            path: the run folder.
            parameters: parameters that only matter for new examples: image_root, base64_images, verbose, label_separator,
                empty_means_none.
        """
        run = RunFolder(path)
        columns = Columns.load(run)
        written = run.facts().get("columns", {})
        known = {name: written[name] for name in ("label_separator", "empty_means_none") if name in written}
        return cls(image=columns.image, text=columns.texts, **known | parameters)._open(run)

    def export(self, path: str | Path) -> Path:
        """Exports a SavedModel, as TensorFlow Serving expects it, to path/<version>; returns that folder.

        Its answers are compared with the trained model's on training examples first.
        """
        check_is_fitted(self, "model_")
        with showing(self.verbose):
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
        """The labels of each row, bool [N, L], and whether they are known, bool [N]."""
        if y is None and self._label is None:
            raise ValueError("evaluate needs the labels: evaluate(X, 'category')")
        cells, _ = label_cells(frame, self._label if y is None else y, self._form)
        targets = np.zeros((len(cells), len(self.classes_)), bool)
        for row, cell in zip(targets, cells, strict=True):
            row[[self._codec.names.index(self._codec.name(label)) for label in cell or ()]] = True
        return targets, np.array([cell is not None for cell in cells], bool)
