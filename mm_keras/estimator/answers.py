"""A loaded run that answers the rows of a DataFrame, as `mm-keras predict` and the exported model would."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mm_keras.estimator.cells import first_text
from mm_keras.estimator.data import Inputs
from mm_keras.features import IMAGE, input_name
from mm_keras.runs.predict import Predictor
from mm_keras.runs.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas

_BATCH_SIZE = 64


class Answered(NamedTuple):
    """Answers to rows.

    Attributes:
        probabilities: float32 [N, L], in the order of the classifier's classes.
        index: the index of the rows.
    """

    probabilities: np.ndarray
    index: pandas.Index


class Answers:
    """Answers rows with a trained run.

    Args:
        run: the run folder.
    """

    def __init__(self, run: RunFolder):
        self._predictor = Predictor(run.path)
        self.model, self.features = self._predictor.model, self._predictor.features

    @property
    def thresholds(self) -> np.ndarray:
        """float32 [L], in the order of the run's labels."""
        return self._predictor.thresholds

    def answer(
        self, inputs: Inputs, frame: pandas.DataFrame, root: Path, names: Sequence[str], hide: Sequence[str] = ()
    ) -> Answered:
        """The probabilities of each row.

        Args:
            inputs: the columns that are read.
            frame: the rows.
            root: the folder of their relative image paths.
            names: the names of the classes, in the order of the answer.
            hide: columns that are taken as missing.

        Raises:
            ValueError: if a column is missing, or a cell is no picture or text.
        """
        order = [self.features.labels.index(name) for name in names]
        rows = self._raw(inputs, frame, root, hide)
        parts = [self._predictor.probabilities(batch)[:, order] for batch in _batches(rows)]
        probabilities = np.concatenate(parts) if parts else np.zeros((0, len(names)), np.float32)
        return Answered(probabilities, frame.index)

    def embed(self, inputs: Inputs, frame: pandas.DataFrame, root: Path, of: str) -> np.ndarray:
        """The embeddings of each row, float32 [N, D]: what `Predictor.embeddings` gives for `of`."""
        nothing = dict.fromkeys(self.features.modalities, b"")
        batches = _batches(self._raw(inputs, frame, root)) or [[nothing]]
        return np.concatenate([self._predictor.embeddings(batch, of) for batch in batches])[: len(frame)]

    def _raw(self, inputs: Inputs, frame: pandas.DataFrame, root: Path, hide: Sequence[str] = ()) -> list[dict[str, bytes]]:
        """What the model is asked with for each row; pictures that cannot be read count as missing, with a warning."""
        inputs.check(frame)
        images = inputs.images(frame, root) if inputs.image and inputs.image not in hide else [None] * len(frame)
        columns = {IMAGE: images} | {
            input_name(field): [None] * len(frame) if field in hide else [first_text(cell) for cell in frame[field]]
            for field in inputs.texts
        }
        examples = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
        with ThreadPoolExecutor(min(len(frame), os.cpu_count() or 1) or 1) as pool:  # decoders run beside each other
            read = list(pool.map(self._read, examples))
        bad = [f"row {index}: {error}" for index, (_, error) in zip(frame.index, read, strict=True) if error]
        num_without = sum(not any(row.values()) for row, _ in read)
        if bad:
            warnings.warn(
                f"the pictures of {len(bad):,} rows cannot be read and count as missing, the first: {bad[0]}", stacklevel=5
            )
        if num_without:
            warnings.warn(
                f"{num_without:,} rows have none of the inputs {inputs.columns}: they are answered without any", stacklevel=5
            )
        return [row for row, _ in read]

    def _read(self, example: dict[str, Any]) -> tuple[dict[str, bytes], str]:
        """(what the model is asked with, why the picture cannot be read; empty if it can, or if there is none)."""
        row = dict.fromkeys(self.features.modalities, b"")
        example = {name: value for name, value in example.items() if isinstance(value, bytes) or (value or "").strip()}
        if not example:
            return row, ""
        try:
            return row | self._predictor.read(example), ""
        except (ValueError, OSError) as error:
            texts = {name: value for name, value in example.items() if name != IMAGE}
            return row | (self._predictor.read(texts) if texts else {}), str(error) or type(error).__name__


def _batches(rows: list) -> list[list]:
    return [rows[start : start + _BATCH_SIZE] for start in range(0, len(rows), _BATCH_SIZE)]


def logits_of(probabilities: np.ndarray, multi_label: bool) -> np.ndarray:
    """float64 [N, L]: logits that have these probabilities."""
    inside = np.clip(probabilities.astype("float64"), 1e-12, 1 - 1e-12 if multi_label else 1)
    return np.log(inside / (1 - inside)) if multi_label else np.log(inside)
