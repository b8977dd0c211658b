"""Reads PyTorch's .pth and .pt files into NumPy arrays, without PyTorch and without running what is pickled in them.

A pickle is a program that may name any function to be called. Here it may only name what tensors are made of, and each of
these names stands for a method below; any other name is an error that says which.

Since PyTorch 1.6 a file is a zip archive:

    <archive>/data.pkl       the object; a tensor names its storage by a key
    <archive>/data/<key>     the bytes of a storage
    <archive>/byteorder      "little" or "big"; not there before 2.1

Before, it was five pickles one after another (a magic number, the protocol, the system, the object, the keys of the storages),
then for each key the number of elements, int64, and the bytes.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

from mm_keras.model.unpacking import check_unpacked

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    "torch.BFloat16Storage": ml_dtypes.bfloat16,
    "torch.BoolStorage": np.bool_,
    "torch.ByteStorage": np.uint8,
    "torch.CharStorage": np.int8,
    "torch.DoubleStorage": np.float64,
    "torch.FloatStorage": np.float32,
    "torch.HalfStorage": np.float16,
    "torch.IntStorage": np.int32,
    "torch.LongStorage": np.int64,
    "torch.ShortStorage": np.int16,
}
_DAMAGED = (pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
_NESTED = ("state_dict", "model_state_dict", "model", "net", "module")  # where training scripts keep the weights


class TorchFileError(ValueError):
    """A file that cannot be read, or that is not read for safety. The message says what to do."""


def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """The state dict of a file: its tensors by name.

    A checkpoint may keep the state dict under a key, such as "state_dict" or "model". The prefix "module." of data-parallel
    training is removed from the names.

    Raises:
        TorchFileError: if the file is of another format, is damaged, holds no state dict, or names a function or class that
            tensors do not need. Nothing in the file has been run then.
    """
    path = Path(path)
    try:
        content = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    except TorchFileError:
        raise
    except (*_DAMAGED, zipfile.BadZipFile) as error:
        raise TorchFileError(f"{path} is damaged, or no file of torch.save: {type(error).__name__} {error}") from error
    tensors = _find_state_dict(content)
    if tensors is None:
        received = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise TorchFileError(
            f"{path} holds no state dict, neither itself nor under one of {sorted(_NESTED)}. Received: {received}"
        )
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _find_state_dict(content: object) -> dict[str, np.ndarray] | None:
    for candidate in (content, *(content.get(key) for key in _NESTED if isinstance(content, dict))):
        if isinstance(candidate, dict):
            tensors = {key: value for key, value in candidate.items() if isinstance(value, np.ndarray) and isinstance(key, str)}
            if tensors:
                return tensors
    return None


def _read_zip(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        try:
            check_unpacked(path, sum(entry.file_size for entry in archive.infolist()))
        except ValueError as error:
            raise TorchFileError(str(error)) from error
        names = archive.namelist()
        root = next((name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")), None)
        if root is None:
            raise TorchFileError(f"{path} is a zip archive without data.pkl: no file of torch.save")
        if f"{root}constants.pkl" in names:
            raise TorchFileError(f"{path} is a TorchScript program; save the weights alone: torch.save(model.state_dict(), …)")
        big = f"{root}byteorder" in names and archive.read(f"{root}byteorder") == b"big"

        def read_storage(key: str, dtype: np.dtype, numel: int) -> np.ndarray:
            content = archive.read(f"{root}data/{key}")
            if len(content) != numel * dtype.itemsize:
                raise TorchFileError(f"storage {key} of {path} has {len(content)} bytes, not {numel} elements of {dtype}")
            return np.frombuffer(content, dtype.newbyteorder(">") if big else dtype)

        return _Unpickler(io.BytesIO(archive.read(f"{root}data.pkl")), path, read_storage).load()


def _read_legacy(path: Path) -> object:
    storages: dict[str, np.ndarray] = {}
    size = path.stat().st_size

    def promise_storage(key: str, dtype: np.dtype, numel: int) -> np.ndarray:
        """An array that is filled once the object has been read: the bytes come after it."""
        if not 0 <= numel * dtype.itemsize <= size:
            raise TorchFileError(f"storage {key} of {path} has {numel} elements, more than the file")
        return storages.setdefault(key, np.zeros(numel, dtype))

    with path.open("rb") as file:
        try:
            magic = _Unpickler(file, path, promise_storage).load()
        except _DAMAGED:
            magic = None
        if magic != _LEGACY_MAGIC:
            raise TorchFileError(
                f"{path} is no file of torch.save, neither a zip archive (PyTorch 1.6 and newer) nor the format before it"
            )
        for _ in ("protocol", "system"):
            _Unpickler(file, path, promise_storage).load()
        content = _Unpickler(file, path, promise_storage).load()
        for key in _Unpickler(file, path, promise_storage).load():
            storage = storages[key]
            numel = int.from_bytes(file.read(8), "little", signed=True)
            values = file.read(storage.nbytes)
            if numel != storage.size or len(values) != storage.nbytes:
                raise TorchFileError(f"storage {key} of {path} is damaged: it should hold {storage.size} elements")
            storage[:] = np.frombuffer(values, storage.dtype)
    return content


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows only the names that tensors need.

    For such a name it gives the pickle a bound method, a type of the standard library that cannot be changed, or a string. A
    pickle can neither call nor alter anything else.
    """

    def __init__(self, file: io.BufferedIOBase, path: Path, read_storage: Callable[[str, np.dtype, int], np.ndarray]):
        super().__init__(file, encoding="utf-8")
        self._path = path
        self._read_storage = read_storage
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> object:
        full = f"{module}.{name}"
        if full in _STORAGES:
            return full
        if full == "collections.OrderedDict":
            return collections.OrderedDict
        if full in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            return self._tensor
        if full == "torch._utils._rebuild_parameter":
            return self._parameter
        if full == "torch.Size":
            return tuple
        raise TorchFileError(
            f"{self._path} names {full}, which tensors do not need; nothing of it was run. If you trust the file, open it with "
            "PyTorch and save the weights alone: torch.save(model.state_dict(), …)"
        )

    def persistent_load(self, saved_id: tuple) -> np.ndarray:
        if saved_id[0] != "storage":
            raise TorchFileError(f"{self._path} holds a whole model; save the weights alone: torch.save(model.state_dict(), …)")
        _, storage, key, _, numel, *view = saved_id
        if key not in self._storages:
            self._storages[key] = self._read_storage(key, np.dtype(_STORAGES[storage]), numel)
        if view and view[0] is not None:
            _, offset, length = view[0]
            return self._storages[key][offset : offset + length]
        return self._storages[key]

    def _tensor(self, storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_) -> np.ndarray:
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        numbers = (offset, *size, *stride)
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise TorchFileError(f"{self._path} holds a tensor of impossible size {size}, stride {stride}")
        if math.prod(size) == 0:
            return np.zeros(size, storage.dtype)
        if last >= storage.size or math.prod(size) > storage.size:
            raise TorchFileError(
                f"{self._path} holds a tensor of size {size}, more than the {storage.size} elements of its storage"
            )
        steps = [step * storage.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)

    def _parameter(self, tensor: np.ndarray, *_) -> np.ndarray:
        return tensor
