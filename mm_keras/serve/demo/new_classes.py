"""Adds classes to the model of a demo, from their texts or from pictures of them, while it is served."""

from __future__ import annotations

import dataclasses
import tempfile
import threading
from pathlib import Path

import keras
import numpy as np

from mm_keras.model import head
from mm_keras.runs.class_embeddings import ClassEncoder
from mm_keras.runs.load_model import load_model
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.serving import DEFAULT, EMBED, ServingModule
from mm_keras.runs.thresholds import load_thresholds
from mm_keras.serve.model_version import ModelVersion


def _apart(model: keras.Model) -> keras.Model:
    """A copy of a model that shares no layer with it: models that share layers cannot be cut into towers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return load_model(path)


class NewClasses:
    """Further classes of a run with a class-embedding head, until the server ends; `mm-keras add-classes` adds lasting ones.

    Args:
        run: the run folder; its model is loaded when the first class is added.
    """

    def __init__(self, run: RunFolder):
        self._run = run
        self._lock = threading.Lock()
        self._loaded = None
        self._embeddings: dict[str, np.ndarray] = {}

    @staticmethod
    def are_possible(run: RunFolder) -> bool:
        """Whether a run can take new classes."""
        return run.class_encoder.is_dir()

    @property
    def added(self) -> list[str]:
        """The names of the classes that were added."""
        return list(self._embeddings)

    def add(self, label: str, text: str, fused: np.ndarray | None, version: ModelVersion) -> ModelVersion:
        """A version that knows one class more than those added before.

        Args:
            label: the name of the class.
            text: what describes it; empty if there are pictures.
            fused: float [N, D], the fused embeddings of pictures of the class; None: there are none. A class that has both is
                half-way between what its text and what its pictures say.
            version: the version that is served now.

        Raises:
            ValueError: for a class that is there already, or has neither text nor pictures.
        """
        label, text = label.strip(), text.strip()
        if not label or not (text or fused is not None):
            raise ValueError("a class needs a name, and a description or some pictures")
        with self._lock:
            if self._loaded is None:
                self._loaded = (*self._run.load_model(), ClassEncoder.load(self._run.class_encoder))
            model, features, encoder = self._loaded
            if label in features.labels or label in self._embeddings:
                raise ValueError(f"{label!r} is a class already")
            parts = [encoder([text])[0]] if text else []
            parts += [head.embed_class(model, fused)] if fused is not None else []
            embedding = np.sum([part / max(np.linalg.norm(part), 1e-12) for part in parts], axis=0)
            embeddings = {**self._embeddings, label: embedding}
            model = _apart(head.add_classes(model, np.stack(list(embeddings.values()))))
            tuned = load_thresholds(self._run, features)
            thresholds = [*tuned.values, *[0.5] * len(embeddings)] if tuned else None
            features = dataclasses.replace(features, labels=(*features.labels, *embeddings))
            module = ServingModule(model, features, thresholds)
            signatures = {DEFAULT: module.signature(), EMBED: module.signatures()[EMBED]}
            new_version = version.with_functions(module, signatures, features)
            self._embeddings = embeddings
            return new_version
