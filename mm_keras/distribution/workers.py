"""The names of strategies, and the processes that train together according to TF_CONFIG. TensorFlow is not loaded."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import filelock

_EXAMPLE = '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'
STRATEGIES = ("auto", "none", "mirrored", "multi_worker", "tpu")


def check_strategy(name: str) -> str:
    """Checks the name of a strategy, and returns it unchanged.

    Raises:
        ValueError: if the name is neither one of `STRATEGIES` nor tpu:<name>.
    """
    kind, colon, tpu = name.partition(":")
    if kind not in STRATEGIES or (colon and (kind != "tpu" or not tpu)):
        raise ValueError(f"strategy is one of {', '.join(STRATEGIES)}, tpu:<name>. Received: {name!r}")
    return name


@dataclasses.dataclass(frozen=True)
class Worker:
    """One of the processes that train a model together.

    Attributes:
        index: 0 to count - 1. Worker 0 is the chief.
        count: number of workers.
    """

    index: int = 0
    count: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder. In a training of one process, that process does."""
        return self.index == 0


ALONE = Worker()


def worker_of_environment() -> Worker:
    """The place of this process in the cluster of TF_CONFIG; `ALONE` if TF_CONFIG is not set or names no other process.

    Raises:
        ValueError: if TF_CONFIG is not valid for `tf.distribute.MultiWorkerMirroredStrategy`.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text.strip():
        return ALONE
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        addresses = {kind: list(cluster[kind]) for kind in cluster}
        kind, index = task["type"], int(task["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"TF_CONFIG is a JSON object such as {_EXAMPLE}. Received: {text!r} ({error!r})") from error
    kinds = ("chief", "worker")
    if kind not in kinds or not set(addresses) <= set(kinds):
        raise ValueError(
            f"the tasks of TF_CONFIG are workers, and a chief if you like; parameter servers and evaluators have no part in "
            f"this. Received: task {kind!r} in a cluster of {sorted(addresses)}"
        )
    if not 0 <= index < len(addresses.get(kind, ())):
        raise ValueError(
            f"TF_CONFIG says that this is {kind} {index}, of {len(addresses.get(kind, ()))} in its cluster, counted from 0. "
            f"Received: {text!r}"
        )
    before = len(addresses.get("chief", ())) if kind == "worker" else 0
    return Worker(before + index, sum(map(len, addresses.values())))


@contextlib.contextmanager
def one_worker_at_a_time(path: Path) -> Iterator[None]:
    """Lets the workers of a training run the `with` block one after the other.

    The first worker makes the file or folder at `path`; the others find it there. Workers that do not share the file system run
    their blocks at the same time.
    """
    if worker_of_environment() == ALONE:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_name(f".{path.name}.lock")):
        yield
