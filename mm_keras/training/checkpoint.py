"""Checkpoints: everything that the next step of a training depends on, in one file.

    checkpoints/step-0000001234.safetensors  arrays of the model, its random generators, the optimizer and the metrics; in the
                                             header the step, the state of callbacks, and a checksum

A file gets its name when it is complete and on the disk. The latest two are kept, so that one is left if the other is damaged.
Random numbers that a SavedModel inside of the model draws are not covered: TensorFlow keeps their state.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import google_crc32c
import keras
import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tfrecords_tools.dataset.atomic_file import atomic_file
from tfrecords_tools.dataset.checksums import forget
from tfrecords_tools.dataset.publish import UNFINISHED

KEPT = 2
_PATTERN = "step-*.safetensors"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says which one and why."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        path: the file.
        step: number of steps made, counted from the first epoch on.
        arrays: the variables, as `capture` gives them.
        callbacks: name of a callback -> its state.
    """

    path: Path
    step: int
    arrays: Mapping[str, np.ndarray]
    callbacks: Mapping[str, dict]


def capture(model: keras.Model) -> dict[str, np.ndarray]:
    """Copies all variables of a compiled and built model: weights, random generators, optimizer and metrics."""
    return {name: np.require(keras.ops.convert_to_numpy(variable), requirements="C") for name, variable in _variables(model)}


def restore(model: keras.Model, arrays: Mapping[str, np.ndarray], kinds: tuple[str, ...] = ("model", "optimizer")) -> None:
    """Assigns the variables that `capture` has copied.

    Args:
        model: a compiled and built model of the same architecture.
        arrays: the variables, as `capture` gives them.
        kinds: which variables to assign: "model", "optimizer", "metrics".

    Raises:
        CheckpointError: if names or shapes differ.
    """
    variables = {name: variable for name, variable in _variables(model) if name.split("/")[0] in kinds}
    stored = {name: array for name, array in arrays.items() if name.split("/")[0] in kinds}
    differences = [f"{name}: only in the checkpoint" for name in stored if name not in variables]
    differences += [f"{name}: not in the checkpoint" for name in variables if name not in stored]
    for name in variables.keys() & stored.keys():
        here, there = tuple(variables[name].shape), stored[name].shape
        if here != there:
            differences.append(f"{name}: {list(there)} in the checkpoint, {list(here)} in the model")
    if differences:
        raise CheckpointError("the checkpoint is of another model:" + listed(differences))
    for name, variable in variables.items():
        variable.assign(stored[name])


def save(path: Path, model: keras.Model, step: int, callbacks: Mapping[str, dict]) -> None:
    """Writes a checkpoint as a whole, or not at all.

    Raises:
        OSError: if the file cannot be written; the error names it.
    """
    arrays = capture(model)
    bfloat16 = [name for name, array in arrays.items() if array.dtype == ml_dtypes.bfloat16]
    arrays |= {name: arrays[name].view(np.uint16) for name in bfloat16}  # safetensors reads no bfloat16 into NumPy
    header = json.loads(json.dumps({"step": step, "callbacks": callbacks, "bfloat16": bfloat16}))  # as it will be read
    header["crc32c"] = _checksum(arrays, header)
    try:
        with atomic_file(path) as temporary:
            save_file(arrays, temporary, {"training": json.dumps(header)})
    except SafetensorError as error:  # raised if the disk is full, for example
        raise OSError(0, f"could not be written: {error}", str(path)) from error


def check_room(folder: Path, model: keras.Model, trained: keras.Model) -> None:
    """Checks that checkpoints can be written to a folder and will fit on its disk.

    Args:
        folder: the folder of the checkpoints; if it does not exist yet, the nearest folder above it is checked.
        model: the whole model, which is kept at the end.
        trained: the compiled part that is trained.

    Raises:
        OSError: if the folder cannot be written to, or its disk has too little room.
    """
    replaced = sum(path.stat().st_size for path in folder.glob("*"))  # bytes of files that this training replaces
    folder = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    probe = folder / ".mm-keras-probe"
    with atomic_file(probe) as temporary:
        temporary.write_bytes(bytes(4096))
    probe.unlink()
    moments = 2 * _size(trained.trainable_variables)  # Adam's two moments; the best epoch's model is saved with them, too
    needed = (KEPT + 1) * (_size(trained.variables) + moments) + 2 * (_size(model.variables) + moments)
    free = shutil.disk_usage(folder).free
    if free + replaced < needed:
        raise OSError(
            errno.ENOSPC,
            f"checkpoints will take up to {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free: make room, or choose a "
            "--workdir on another disk",
            str(folder),
        )


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        CheckpointError: if the file is no checkpoint, or is damaged.
    """
    try:
        with safe_open(path, "numpy") as file:
            header = json.loads(file.metadata()["training"])
            checksum = header.pop("crc32c")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is no checkpoint: {error}") from error
    if _checksum(arrays, header) != checksum:
        raise CheckpointError(f"{path} is damaged: its checksum is not that of what was written")
    arrays |= {name: arrays[name].view(ml_dtypes.bfloat16) for name in header["bfloat16"]}
    return Checkpoint(path, header["step"], arrays, header["callbacks"])


def load_latest(folder: Path, tell: Callable[[str], None] = print) -> Checkpoint | None:
    """The latest undamaged checkpoint, or None if there is none at all. `tell` gets a message about each damaged one.

    Raises:
        CheckpointError: if all are damaged.
    """
    paths = checkpoints(folder)
    for path in reversed(paths):
        try:
            return load(path)
        except CheckpointError as error:
            if path == paths[0]:
                raise CheckpointError(
                    f"{error}, and there is none before it to go on from. Put back a copy, or pass --overwrite to train anew"
                ) from error
            tell(f"{error}; taking the one before")
    return None


def checkpoints(folder: Path) -> list[Path]:
    """The paths of the complete checkpoints in a folder, from the first to the latest."""
    return sorted(folder.glob(_PATTERN))


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:010d}.safetensors"


def prune(folder: Path, kept: int = KEPT) -> None:
    """Deletes all but the latest checkpoints, and what a killed process left half-written."""
    for path in folder.glob(f"{UNFINISHED}*"):
        path.unlink(missing_ok=True)
    paths = checkpoints(folder)
    for path in paths[: len(paths) - kept]:
        forget(path)


def listed(lines: list[str], most: int = 12) -> str:
    """The lines, indented and sorted; if there are more than `most`, their number stands for the rest."""
    more = [f"… and {len(lines) - most} more"] if len(lines) > most else []
    return "".join(f"\n  {line}" for line in sorted(lines)[:most] + more)


def _variables(model: keras.Model) -> Iterator[tuple[str, keras.Variable]]:
    """Yields ("kind/index/name", variable): names alone are not unique. Numbers that Keras puts into names are removed."""
    kinds = {"model": model.variables, "optimizer": model.optimizer.variables, "metrics": model.metrics_variables}
    for kind, variables in kinds.items():
        for index, variable in enumerate(variables):
            yield f"{kind}/{index}/{re.sub(r'_[0-9]+', '', variable.name)}", variable


def _size(variables: list[keras.Variable]) -> int:
    """The size of some variables in bytes."""
    return sum(math.prod(variable.shape) * np.dtype(variable.dtype).itemsize for variable in variables)


def _checksum(arrays: Mapping[str, np.ndarray], header: Mapping[str, object]) -> int:
    checksum = google_crc32c.value(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        described = f"{name} {arrays[name].dtype} {list(arrays[name].shape)}"
        checksum = google_crc32c.extend(checksum, described.encode())
        checksum = google_crc32c.extend(checksum, arrays[name].tobytes())
    return checksum
