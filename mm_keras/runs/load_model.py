"""Loads the Keras models of run folders, whichever layers they are made of."""

from __future__ import annotations

import importlib
import pkgutil
import zipfile
import zlib
from pathlib import Path

import keras

import mm_keras.model
import mm_keras.tf_text_model
from tfrecords_tools.dataset.checksums import DamagedFileError


def load_model(path: str | Path) -> keras.Model:
    """Loads a saved model, uncompiled: nothing needs its losses, metrics and optimizer.

    Keras finds a custom layer by the name under which its module registers it. So every module that may define one is imported
    first; a new module of these two packages needs no entry here.

    Args:
        path: a .keras file.

    Raises:
        DamagedFileError: if the file is cut off, or its parts are not what their checksums say.
    """
    for package in (mm_keras.model, mm_keras.tf_text_model):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    try:
        if Path(path).is_file() and not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("it is no .keras archive")
        return keras.models.load_model(path, compile=False)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DamagedFileError(
            f"{path} is cut off or damaged: {error}. Put back a copy of it, or train the run again"
        ) from error
