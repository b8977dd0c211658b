"""TFRecord shards: framing, names, a writer that leaves no half file, a reader that checks every byte.

A TFRecord file is a sequence of (little-endian):

    uint64  length
    uint32  masked crc32c of the 8 length bytes
    bytes   data[length]
    uint32  masked crc32c of data        mask(c) = ((c >> 15) | (c << 17)) + 0xa282ead8  mod 2**32
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c


class CorruptShardError(ValueError):
    """A shard whose bytes are not what was written; the message names the file, the record and the offset."""


def shard_name(split: str, index: int, count: int) -> str:
    return f"{split}-{index:05d}-of-{count:05d}.tfrecord"


class ShardWriter:
    """Writes one shard under a temporary name and gives it its own on `close`, once it is on the disk.

    Attributes:
        num_examples, num_bytes, sha256: of what was written so far.
    """

    def __init__(self, path: Path):
        self._path = path
        self._temporary = path.with_name(path.name + ".tmp")
        self._file = open(self._temporary, "wb")
        self._sha256 = hashlib.sha256()
        self.num_examples = 0
        self.num_bytes = 0

    def write(self, record: bytes) -> None:
        length = struct.pack("<Q", len(record))
        framed = b"".join((length, _masked_crc(length), record, _masked_crc(record)))
        self._file.write(framed)
        self._sha256.update(framed)
        self.num_examples += 1
        self.num_bytes += len(framed)

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self._path)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()


def iter_records(path: str | Path) -> Iterator[bytes]:
    """Yields the records of a shard, checking both checksums of each.

    Raises:
        CorruptShardError: at the first byte that is wrong or missing.
    """
    with open(path, "rb") as file:
        index = 0
        while header := file.read(12):
            where = f"{path}: record {index} at byte {file.tell() - len(header)}"
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
            yield data
            index += 1


def sha256_of(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
