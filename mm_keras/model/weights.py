"""Loads weight files and says precisely what does not fit."""

from __future__ import annotations

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
    try:
        model.load_weights(path)
    except (ValueError, KeyError) as error:
        with h5py.File(path) as file:
            arrays: list[str] = []
            file.visititems(lambda name, item: arrays.append(name) if isinstance(item, h5py.Dataset) else None)
        raise ValueError(
            f"{path} does not fit {model.name!r} ({len(model.weights)} weights; the file holds {len(arrays)} arrays): {error}"
        ) from error
