"""The staging folder of a pack: hidden beside the output until the dataset is complete, then renamed to it.

    .products.packing/
        .lock                                 held by the pack that runs; released when that process is killed
        fingerprint                           a hash of the input and the options
        train-00000-of-00004.tfrecord         a finished shard
        index/train-00000-of-00004.parquet    the index of its records
        train-00000-of-00004.tfrecord.json    its counts and rejections
        tasks/                                examples by shard, for workers of the Beam engine

When a pack was killed or interrupted, running it again keeps the finished shards. A pack of another input or with other options
deletes them first, so that no two packs are ever mixed.
"""

from __future__ import annotations

import errno
import glob
import shutil
import tempfile
from pathlib import Path

import filelock
from absl import logging

from tfrecords_tools.dataset.checksums import CHECKSUMS_FILE
from tfrecords_tools.dataset.index import INDEX_FOLDER
from tfrecords_tools.dataset.publish import UNFINISHED

SPOOL_FILE = "spool"
TASKS_FOLDER = "tasks"
LOCK_FILE, _FINGERPRINT = ".lock", "fingerprint"


class BusyError(RuntimeError):
    """Another process packs into the same output."""


class Staging:
    """A context manager for one pack, which makes the staging folder and locks it.

    After an error the folder is deleted, since the same error would come again. After an interrupt or an error of the operating
    system (a full disk, a share that went away) it is kept, so that packing again goes on from the finished shards. The error
    of a full disk says what to do.

    Args:
        output: the dataset folder that the staging folder becomes.

    Attributes:
        path: the staging folder.

    Raises:
        BusyError: if another process is packing into the same output.

    Example:
        >>> with Staging(Path("data/products")) as staging:
        ...     staging.begin(fingerprint)
        ...     ...  # write the shards into staging.path
        ...     staging.publish()
    """

    def __init__(self, output: Path):
        self.path = output.parent / f".{output.name}.packing"
        self._output = output

    def __enter__(self) -> Staging:
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(self.path / LOCK_FILE, timeout=0)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise BusyError(f"another process is packing into {self._output}") from None
        return self

    def __exit__(self, kind, error, _) -> None:
        self._lock.release()
        if isinstance(error, Exception) and not isinstance(error, OSError):
            shutil.rmtree(self.path, ignore_errors=True)
        for path in self.path.glob(f"{SPOOL_FILE}*"):  # they are large, and the next pack reads the source again
            path.unlink()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = (
                f"{len(self.finished_shards()):,} finished shard(s) are kept in {self.path}; make room and run the same "
                "command again, which goes on from there, or delete that folder"
            )
            raise OSError(error.errno, f"{error.strerror}: {advice}", error.filename or str(self.path)) from error

    def finished_shards(self) -> list[Path]:
        """The files that mark the shards that are complete, such as train-00000-of-00004.tfrecord.json."""
        return [path for path in self.path.glob("*.tfrecord.json") if not path.name.startswith(UNFINISHED)]

    def begin(self, fingerprint: str) -> None:
        """Deletes the shards that a pack of another input or with other options left."""
        shutil.rmtree(self.path / TASKS_FOLDER, ignore_errors=True)
        (self.path / CHECKSUMS_FILE).unlink(missing_ok=True)  # left by a pack that was killed as it ended
        path = self.path / _FINGERPRINT
        if not path.is_file() or path.read_text() != fingerprint:
            for stale in [*self.path.glob("*.tfrecord*"), path]:
                stale.unlink(missing_ok=True)
            shutil.rmtree(self.path / INDEX_FOLDER, ignore_errors=True)
            path.write_text(fingerprint)

    def publish(self) -> None:
        """Renames the staging folder to the output; a dataset that is there is replaced.

        If the process is killed before the older dataset is deleted, `put_back_retired` does the rest.
        """
        for path in [*self.path.glob("*.tfrecord.json"), self.path / _FINGERPRINT]:
            path.unlink(missing_ok=True)
        retired = None
        if self._output.exists():
            retired = Path(tempfile.mkdtemp(prefix=f".{self._output.name}.old-", dir=self._output.parent))
            self._output.replace(retired / self._output.name)
        self.path.replace(self._output)
        (self._output / LOCK_FILE).unlink(missing_ok=True)  # the lock was held until here
        if retired:
            shutil.rmtree(retired, ignore_errors=True)


def put_back_retired(output: Path) -> None:
    """Cleans up after a pack that was killed while it replaced the dataset `output`.

    Between its two renames there is no dataset at `output`: then the older one is put back. Otherwise the older one is deleted.

    Raises:
        BusyError: if another process is packing into the same output.
    """
    pattern = f".{glob.escape(output.name)}.old-*"
    if not any(output.parent.glob(pattern)):
        return
    with Staging(output) as staging:
        for folder in sorted(output.parent.glob(pattern)):
            if not output.exists() and (folder / output.name).is_dir():
                (folder / output.name).replace(output)
                logging.info(f"{output}: an overwriting pack was killed; the older dataset is back in its place")
            shutil.rmtree(folder, ignore_errors=True)
        staged_files = [path for path in staging.path.iterdir() if path.name != LOCK_FILE]
    if not staged_files:
        shutil.rmtree(staging.path, ignore_errors=True)
