"""One version of a model: loaded, warmed, and asked with batches of NumPy arrays."""

from __future__ import annotations

import copy
import functools
import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from mm_keras.features import FEATURES_FILE, FeatureSpec
from mm_keras.runs.export_assets import EXTRA, OPERATIONS_FILE
from mm_keras.runs.serving import DEFAULT
from mm_keras.runs.warm_up import WARM_UP_FILE, read_warm_up
from mm_keras.serve.errors import RequestError
from mm_keras.serve.signatures import Signature, read_signatures
from mm_keras.tf_text_model.plain_path import plain_path


class ModelVersion:
    """A SavedModel that answers, on any thread.

    Args:
        name: what the model is called.
        number: its version.
        folder: the SavedModel; what `mm-keras export` wrote into its assets.extra is read, too.

    Attributes:
        signatures: what its signatures take and give, by name.
        features: what the model takes in; None for a SavedModel that `mm-keras export` did not write.

    Raises:
        OSError: if there is no SavedModel, or it cannot be loaded.
    """

    def __init__(self, name: str, number: int, folder: Path):
        self.name, self.number, self.folder = name, number, folder
        self.signatures: dict[str, Signature] = read_signatures(folder)
        extra = folder / EXTRA
        self.features = FeatureSpec.load(extra) if (extra / FEATURES_FILE).is_file() else None
        operations = extra / OPERATIONS_FILE
        if operations.is_file() and json.loads(operations.read_text("utf-8"))["other_operations"]:
            importlib.import_module("tensorflow_text")  # which registers those operations
        self._module = tf.saved_model.load(str(plain_path(folder)))
        self._functions: Mapping[str, Callable] = self._module.signatures

    def with_functions(self, module: tf.Module, functions: Mapping[str, Callable], features: FeatureSpec) -> ModelVersion:
        """The next version, in memory alone: it has the same inputs, and answers by these functions."""
        version = copy.copy(self)
        version.__dict__.pop("takes_pictures", None)
        version.number, version.features = self.number + 1, features
        vars(version).update(_module=module, _functions=functions)
        version.signatures = {name: signature for name, signature in self.signatures.items() if name in functions}
        return version

    def warm_up(self) -> int:
        """Answers the requests for the default signature, the usual one, in the warm-up file; returns how many there are.

        A signature takes a second or two at its first request; warming others, too, would keep the first client waiting.
        """
        path = self.folder / EXTRA / WARM_UP_FILE
        requests = read_warm_up(path) if path.is_file() else []
        requests = [inputs for signature, inputs in requests if signature == DEFAULT]
        for inputs in requests:
            self.run(DEFAULT, inputs)
        return len(requests)

    @functools.cached_property
    def takes_pictures(self) -> bool:
        """Whether pictures are among the model's inputs: a call with one damaged picture alone fails."""
        return self.features is not None and self.features.image is not None

    def check(self, signature: str, inputs: Mapping[str, np.ndarray]) -> None:
        """Raises RequestError for an input of another shape than the signature takes."""
        for name, kind in self.signatures[signature].inputs.items():
            shape = inputs[name].shape
            fits = len(shape) == len(kind.shape) and all(
                side in (None, length) for side, length in zip(kind.shape, shape, strict=True)
            )
            if not fits:
                wanted = [-1 if side is None else side for side in kind.shape]
                raise RequestError(f"input {name!r} of signature {signature!r} has the shape {wanted}. Received: {list(shape)}")

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of a signature by name.

        Raises:
            RequestError: for inputs that the model refuses.
        """
        try:
            outputs = self._call(signature, inputs)
        except tf.errors.InvalidArgumentError as error:
            alone = all(value.shape[:1] == (1,) for value in inputs.values())
            if not (alone and self.takes_pictures):
                raise RequestError(_first_line(error)) from error
            # In a batch of two, a damaged picture does not fail the call: the output `error` tells of it.
            twice = {name: np.concatenate([value, value]) for name, value in inputs.items()}
            try:
                outputs = {name: value[:1] for name, value in self._call(signature, twice).items()}
            except tf.errors.InvalidArgumentError as again:
                raise RequestError(_first_line(again)) from again
        return outputs

    def _call(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        kinds = {name: tf.string if value.dtype == object else None for name, value in inputs.items()}
        outputs = self._functions[signature](**{name: tf.constant(value, kinds[name]) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
