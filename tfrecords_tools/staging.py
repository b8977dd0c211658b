"""The staging folder of a pack: hidden beside the output until the dataset is complete, then renamed to it.

    .products.packing/
        lock                               held by the pack that runs; a kill releases it
        fingerprint                        of the input and the options
        train-00000-of-00004.tfrecord      finished shards, each with
        train-00000-of-00004.tfrecord.json what it counts for

What a killed or interrupted pack left there, the same pack takes up again: shards that are finished are not made anew. A pack
of another input or with other options clears it first, so that no two runs are ever mixed.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import filelock

from tfrecords_tools.dataset_info import ShardInfo
from tfrecords_tools.example import Rejection

_LOCK, _FINGERPRINT = "lock", "fingerprint"


class BusyError(RuntimeError):
    """Another process packs into the same output."""


@dataclasses.dataclass(frozen=True)
class FinishedShard:
    """A shard that is on the disk, what its records count for, and the (position, rejection) pairs found on the way."""

    info: ShardInfo
    counts: Counter
    rejections: list[tuple[int, Rejection]]


class Staging:
    """Context of one pack; left by an error, it removes the folder, but keeps it where going on makes sense.

    That is after an interrupt, or an error of the operating system: a full disk, a share that went away.

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

    def begin(self, fingerprint: str) -> None:
        """Clears what another pack left."""
        path = self.path / _FINGERPRINT
        if not path.is_file() or path.read_text() != fingerprint:
            for left in [*self.path.glob("*.tfrecord*"), path]:
                left.unlink(missing_ok=True)
            path.write_text(fingerprint)

    def finished(self, name: str) -> FinishedShard | None:
        """The shard of that name, if an earlier try finished it."""
        facts, shard = self._facts(name), self.path / name
        if not facts.is_file() or not shard.is_file():
            return None
        content = json.loads(facts.read_text("utf-8"))
        info = ShardInfo(**content["info"])
        if shard.stat().st_size != info.num_bytes:
            return None
        rejections = [(position, Rejection(**rejection)) for position, rejection in content["rejections"]]
        return FinishedShard(info, Counter(content["counts"]), rejections)

    def finish(self, shard: FinishedShard) -> None:
        """Notes that a shard is complete."""
        facts = self._facts(shard.info.file)
        temporary = facts.with_name(facts.name + ".tmp")
        rejections = [(position, dataclasses.asdict(rejection)) for position, rejection in shard.rejections]
        content = {"info": dataclasses.asdict(shard.info), "counts": shard.counts, "rejections": rejections}
        temporary.write_text(json.dumps(content), "utf-8")
        temporary.replace(facts)

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

    def _facts(self, name: str) -> Path:
        return self.path / f"{name}.json"
