"""Loads weight files and says precisely what does not fit."""

from __future__ import annotations

import warnings
from pathlib import Path

import h5py
import keras


def load_weights(model: keras.Model, path: str) -> None:
    """Loads a Keras `.weights.h5` file into a model, all of it or nothing.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is of another format or another model; the message says what differs.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    if not path.endswith(".weights.h5") or not h5py.is_hdf5(path):
        raise ValueError(f"weights are 'imagenet', None or a Keras .weights.h5 file. Received: {path}")
    num_arrays = _num_arrays(path)
    before = model.get_weights()
    try:
        if num_arrays != len(model.weights):  # Keras loads a part of a larger model's file without a word
            raise ValueError("their numbers differ")
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras only warns of layers for which the file has nothing
            model.load_weights(path)
    except (ValueError, KeyError, UserWarning) as error:
        model.set_weights(before)
        raise ValueError(
            f"{path} does not fit {model.name!r} ({len(model.weights)} weights; the file holds {num_arrays} arrays): {error}"
        ) from error


def _num_arrays(path: str) -> int:
    """How many arrays a file holds of the model itself."""
    names: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return sum(not name.startswith("optimizer/") for name in names)
