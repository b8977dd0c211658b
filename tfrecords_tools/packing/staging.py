"""The staging folder of a pack: hidden beside the output until the dataset is complete, then renamed to it.

    .products.packing/
        lock                               held by the pack that runs; a kill releases it
        fingerprint                        of the input and the options
        train-00000-of-00004.tfrecord      finished shards, each with
        index/train-00000-of-00004.parquet the index of its records, and
        train-00000-of-00004.tfrecord.json what they count for
        tasks/                             of the engines that have any

What a killed or interrupted pack left there, the same pack takes up again: shards that are finished are not made anew. A pack
of another input or with other options clears it first, so that no two runs are ever mixed.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path

import filelock

from tfrecords_tools.dataset.atomic_file import UNFINISHED
from tfrecords_tools.dataset.index import INDEX_FOLDER

SPOOL_FILE = "spool"
TASKS_FOLDER = "tasks"
_LOCK, _FINGERPRINT = "lock", "fingerprint"


class BusyError(RuntimeError):
    """Another process packs into the same output."""


class Staging:
    """Context of one pack; left by an error, it removes the folder, but keeps it where going on makes sense.

    That is after an interrupt, or an error of the operating system: a full disk, a share that went away. Of a full disk it
    says what to do.

    Args:
        output: the folder that the dataset will have.

    Raises:
        BusyError: if another process is packing into the same output.
    """

    def __init__(self, output: Path):
        self.path = output.parent / f".{output.name}.packing"
        self._output = output

    def __enter__(self) -> Staging:
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(self.path / _LOCK, timeout=0)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise BusyError(f"another process is packing into {self._output}") from None
        return self

    def __exit__(self, kind, error, _) -> None:
        self._lock.release()
        if isinstance(error, Exception) and not isinstance(error, OSError):
            shutil.rmtree(self.path, ignore_errors=True)
        for left in self.path.glob(f"{SPOOL_FILE}*"):  # large, and made anew
            left.unlink()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = (
                f"{len(self.finished_shards()):,} finished shard(s) are kept in {self.path}; make room and run the same "
                "command again, which goes on from there, or delete that folder"
            )
            raise OSError(error.errno, f"{error.strerror}: {advice}", error.filename or str(self.path)) from error

    def finished_shards(self) -> list[Path]:
        """The files that say of a shard that it is complete."""
        return [path for path in self.path.glob("*.tfrecord.json") if not path.name.startswith(UNFINISHED)]

    def begin(self, fingerprint: str) -> None:
        """Clears what another pack left."""
        shutil.rmtree(self.path / TASKS_FOLDER, ignore_errors=True)
        path = self.path / _FINGERPRINT
        if not path.is_file() or path.read_text() != fingerprint:
            for left in [*self.path.glob("*.tfrecord*"), path]:
                left.unlink(missing_ok=True)
            shutil.rmtree(self.path / INDEX_FOLDER, ignore_errors=True)
            path.write_text(fingerprint)

    def publish(self) -> None:
        """Gives the folder the output's name; a dataset that is there is replaced."""
        for left in [*self.path.glob("*.tfrecord.json"), self.path / _FINGERPRINT, self.path / _LOCK]:
            left.unlink(missing_ok=True)
        if self._output.exists():
            retired = Path(tempfile.mkdtemp(prefix=f".{self._output.name}.old-", dir=self._output.parent))
            self._output.replace(retired / self._output.name)
            self.path.replace(self._output)
            shutil.rmtree(retired)
        else:
            self.path.replace(self._output)
