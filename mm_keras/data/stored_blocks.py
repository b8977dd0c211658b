"""Arrays that take long to compute, kept on disk in blocks. Several processes fill them, and a killed one can be resumed.

    <folder>/<block>/<array>.npy       an array of the block
    <folder>/<block>/checksums.json    {"rows": n, "crc32c": {"<array>.npy": "…"}}

A block whose files do not match its checksums is computed anew.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import filelock
import google_crc32c
import numpy as np
from absl import logging

from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.progress import progress_bar

MOST_BLOCKS = 64  # each array of each block keeps a file open
_CHECKSUMS = "checksums.json"
_CHUNK = 2**24  # bytes


class StoredRows:
    """An array [N, …] whose rows lie in several files, which are memory-mapped.

    Attributes:
        shape, dtype: those of the whole array.
    """

    def __init__(self, files: Sequence[Path]):
        self._blocks = [np.load(file, mmap_mode="r") for file in files]
        self._ends = np.cumsum([len(block) for block in self._blocks])
        self.shape, self.dtype = (int(self._ends[-1]), *self._blocks[0].shape[1:]), self._blocks[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Rows by their numbers: int [B] -> [B, …]; -1 is the last row."""
        if len(self._blocks) == 1:
            return self._blocks[0][rows]
        rows = rows % len(self)
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        block_of = np.searchsorted(self._ends, rows, side="right")
        for index in np.unique(block_of):
            block, places = self._blocks[index], np.flatnonzero(block_of == index)
            values[places] = block[rows[places] - (self._ends[index] - len(block))]
        return values


class NewBlock:
    """The files of a block that is being written; an array's file is made with its first rows. Each row is written once.

    Args:
        folder: an empty folder.
        size: number of rows.
        written: called after each write with the number of rows that it wrote.
    """

    def __init__(self, folder: Path, size: int, written: Callable[[int], object]):
        self._folder, self._size, self._written = folder, size, written
        self._arrays: dict[str, np.ndarray] = {}
        self._num_written = 0

    def write(self, rows: slice | np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Writes rows of each array: `values` are [b, …], and `rows` selects b rows."""
        for name, value in values.items():
            if name not in self._arrays:
                file, shape = self._folder / f"{name}.npy", (self._size, *value.shape[1:])
                self._arrays[name] = np.lib.format.open_memmap(file, "w+", value.dtype, shape)
                if hasattr(os, "posix_fallocate"):  # a memory map of a full disk ends the process
                    with open(file, "r+b") as handle:
                        os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)
            self._arrays[name][rows] = value
        num_rows = len(next(iter(values.values())))
        self._num_written += num_rows
        self._written(num_rows)

    def finish(self) -> None:
        """Writes the checksums, once all is on the disk.

        Raises:
            RuntimeError: if more or fewer rows were written than the block has.
        """
        if self._num_written != self._size:
            raise RuntimeError(f"{self._num_written:,} rows were computed for the {self._size:,} of block {self._folder}")
        for array in self._arrays.values():
            array.flush()
        checksums = {path.name: _checksum(path) for path in sorted(self._folder.glob("*.npy"))}
        write_text(self._folder / _CHECKSUMS, json.dumps({"rows": self._size, "crc32c": checksums}) + "\n")


def fill_blocks(folder: Path, sizes: Mapping[str, int], make: Callable[[str, NewBlock], None], description: str) -> list[Path]:
    """Computes the blocks that are missing or damaged.

    A block gets its name when it is complete, so that a killed process loses only the block it was working on. If several
    processes call this function, each computes blocks that no other one is working on, and all return when all blocks exist.

    Args:
        folder: the folder of the blocks; it is made if it does not exist.
        sizes: name of a block -> its number of rows.
        make: `(block, new_block) -> None`, which writes all rows of a block.
        description: text of the progress bar.

    Returns:
        the folders of the blocks; each holds one file `<array>.npy` for each array.

    Raises:
        OSError: if the folder cannot be written to, or the disk is full. The block that was being written is deleted.
    """
    paths = [folder / block for block in sizes]
    missing = [block for block, path in zip(sizes, paths, strict=True) if not _is_sound(path, sizes[block])]
    if not missing:
        return paths
    try:
        folder.mkdir(parents=True, exist_ok=True)
        total = sum(sizes.values())
        with progress_bar(description, "examples", total) as bar:
            bar.update(total - sum(sizes[block] for block in missing))
            for timeout in (0, -1):  # first the blocks that no other process works on; then wait for those
                for block in missing:
                    try:
                        with filelock.FileLock(folder / f".{block}.lock", timeout):
                            if not _is_sound(folder / block, sizes[block]):
                                _make_block(folder, block, sizes[block], make, bar.update)
                    except filelock.Timeout:
                        pass
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise OSError(
            error.errno,
            f"{'the disk is full' if full else error.strerror}: what frozen encoders make of each example is kept beside the "
            "dataset; make room there, or set train.cache_frozen = False",
            str(folder),
        ) from error
    return paths


def _make_block(folder: Path, block: str, size: int, make: Callable[[str, NewBlock], None], written) -> None:
    staging = folder / f".{block}.unfinished"
    shutil.rmtree(staging, ignore_errors=True)  # left by a process that was killed
    staging.mkdir()
    try:
        new = NewBlock(staging, size, written)
        make(block, new)
        new.finish()
        if (folder / block).exists():
            logging.info(f"{folder / block} is damaged, or of an older version: it was computed anew")
            shutil.rmtree(folder / block)
        staging.replace(folder / block)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _is_sound(path: Path, size: int) -> bool:
    """Whether a block is there, and all of its files are what was written."""
    try:
        content = json.loads((path / _CHECKSUMS).read_text("utf-8"))
        checksums = content["crc32c"]
        return content["rows"] == size and all(_checksum(path / name) == value for name, value in checksums.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _checksum(path: Path) -> str:
    crc = google_crc32c.Checksum()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            crc.update(chunk)
    return crc.hexdigest().decode()
