"""TFRecord shards: their names, a writer that leaves no incomplete file, and a reader that checks every byte.

A TFRecord file is a sequence of (little-endian):

    uint64  length
    uint32  masked crc32c of the 8 length bytes
    bytes   data[length]
    uint32  masked crc32c of data        mask(c) = ((c >> 15) | (c << 17)) + 0xa282ead8  mod 2**32
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from tfrecords_tools.dataset.publish import UNFINISHED, publish


class CorruptShardError(ValueError):
    """A shard that was damaged after it was written. The message names the file, the record and its offset."""


def shard_name(split: str, index: int, count: int) -> str:
    """("train", 3, 16) -> "train-00003-of-00016.tfrecord"."""
    return f"{split}-{index:05d}-of-{count:05d}.tfrecord"


class ShardWriter:
    """Writes one shard under a temporary name; `close` renames it to `path` when all of it is on the disk.

    Attributes:
        num_examples, num_bytes, sha256: the number, bytes and checksum of the records that were written so far.

    Raises:
        OSError: from any method, if the file cannot be written. It names the file.

    Example:
        >>> writer = ShardWriter(Path("train-00000-of-00001.tfrecord"))
        >>> writer.write(encode_example(Record("a1")))
        >>> writer.close()
    """

    def __init__(self, path: Path):
        self._path = path
        self._temporary = path.with_name(f"{UNFINISHED}{path.name}")
        self._file = open(self._temporary, "wb")
        self._sha256 = hashlib.sha256()
        self.num_examples = 0
        self.num_bytes = 0

    def write(self, record: bytes) -> None:
        """Adds one serialised record."""
        length = struct.pack("<Q", len(record))
        framed = b"".join((length, _masked_crc(length), record, _masked_crc(record)))
        with self._named_errors():
            self._file.write(framed)
        self._sha256.update(framed)
        self.num_examples += 1
        self.num_bytes += len(framed)

    def close(self) -> None:
        """Gives the complete file its name, in place of an older one."""
        with self._named_errors():
            self._file.close()
            publish(self._temporary, self._path)

    def abandon(self) -> None:
        """Deletes what was written; an older file of that name stays."""
        with contextlib.suppress(OSError):  # closing writes what is buffered, which fails again where the disk is full
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = str(self._path)
            raise

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()


def iter_records(path: str | Path, promised: int | None = None) -> Iterator[bytes]:
    """Yields the serialised records of a shard, and checks both checksums of each record.

    Args:
        path: the shard.
        promised: the number of records that the shard has according to dataset.json; None: the number is not checked.

    Raises:
        CorruptShardError: at the first byte that is wrong or missing, or at the end if the shard does not have `promised`
            records.
    """
    return (data for _, data in iter_placed_records(path, promised))


def iter_placed_records(path: str | Path, promised: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Yields (offset, record) pairs like `iter_records`. `read_record` reads a record again by its offset, in bytes."""
    with open(path, "rb") as file:
        index = 0
        while True:
            offset = file.tell()
            data = _read_framed(file, f"{path}: record {index} at byte {offset}")
            if data is None:
                break
            yield offset, data
            index += 1
    if promised is not None and index != promised:
        raise CorruptShardError(f"{path}: {index:,} records, dataset.json says {promised:,}")


def read_record(path: str | Path, offset: int) -> bytes:
    """Reads the record that begins at byte `offset` of a shard.

    Raises:
        CorruptShardError: if no record begins there, or a byte of it is wrong.
    """
    with open(path, "rb") as file:
        file.seek(offset)
        data = _read_framed(file, f"{path}: record at byte {offset}")
    if data is None:
        raise CorruptShardError(f"{path}: the file ends before byte {offset}")
    return data


def _read_framed(file: BinaryIO, where: str) -> bytes | None:
    header = file.read(12)
    if not header:
        return None
    if len(header) < 12:
        raise CorruptShardError(f"{where}: the file ends inside the record's header")
    if header[8:] != _masked_crc(header[:8]):
        raise CorruptShardError(f"{where}: wrong checksum of the length")
    (length,) = struct.unpack("<Q", header[:8])
    data, checksum = file.read(length), file.read(4)
    if len(data) < length or len(checksum) < 4:
        raise CorruptShardError(f"{where}: the file ends inside the record ({length} bytes announced)")
    if checksum != _masked_crc(data):
        raise CorruptShardError(f"{where}: wrong checksum of the data")
    return data


def sha256_of(path: str | Path) -> str:
    """The sha256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
