"""The Apache Beam engine of `pack`. It runs on any runner and writes the same bytes as the engine for one machine.

The program that starts the pipeline reads the source and plans the shards. For each shard it writes a task, which holds the
examples of that shard in order. The pipeline has one element for each task and makes a shard of it, under a temporary name
first. So nothing is shuffled, a task that a runner runs twice makes the same shard, and shards that were finished when a run
was killed are kept.

Workers have to reach the tasks, the shards and the images:

- Where all machines share a file system, tasks and shards lie in the staging folder of the pack, and no option is needed.
- Elsewhere, as on Dataflow, `exchange` names a folder that all machines reach by Beam's file systems, such as
  "gs://bucket/exchange". Tasks are written there, and shards are copied back from there. `path_map` tells workers where to
  find the images that the source names by local paths.

mm_keras has to be installed on the workers (`--setup_file`, `--sdk_container_image`: see docs/beam.md).
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tfrecords_tools.dataset.atomic_file import atomic_file
from tfrecords_tools.packing.encode import Settings, encode
from tfrecords_tools.packing.images import use_one_thread
from tfrecords_tools.packing.pack import Engine, Job, ShardPlan
from tfrecords_tools.packing.shard_files import FinishedShard, files_of, finished_shard, write_shard
from tfrecords_tools.packing.spool import read_spooled
from tfrecords_tools.packing.staging import TASKS_FOLDER
from tfrecords_tools.progress import progress_bar
from tfrecords_tools.sources.image_files import check_inside, read_image_file

try:
    from apache_beam import Create, Map, Pipeline
    from apache_beam.io.filesystem import BeamIOError
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.transforms.util import Reshuffle
except ImportError as error:
    raise ImportError("the Beam engine needs Apache Beam: pip install 'mm_keras[beam]'") from error


class PipelineError(OSError):
    """The pipeline failed. The shards that it finished are kept."""


@dataclasses.dataclass(frozen=True)
class Places:
    """Where workers read and write.

    Attributes:
        folder: the folder of shards and tasks, as Beam's file systems name it.
        is_shared: whether it is an ordinary folder of a shared file system, to which workers write directly.
        path_map: maps beginnings of local paths to what workers read instead.
    """

    folder: str
    is_shared: bool
    path_map: dict[str, str]


def make_engine(arguments: list[str], exchange: str | None = None, path_map: dict[str, str] | None = None) -> Engine:
    """Makes an engine for `pack`.

    Args:
        arguments: Beam's options, such as ["--runner=FlinkRunner", "--flink_master=host:8081"].
        exchange: a folder for tasks and shards that all workers reach; None where the file system of the output is shared.
        path_map: maps beginnings of local paths to where workers find the images below them.

    Raises:
        ValueError: for an option that Beam does not know.

    Example:
        >>> pack(source, "data/products", engine=make_engine(["--runner=DirectRunner", "--direct_num_workers=4"]))
    """
    options = PipelineOptions(arguments)
    all_options = options.get_all_options(retain_unknown_options=True)
    unknown = sorted(set(all_options) - set(options.get_all_options()))
    if unknown:
        raise ValueError(f"Apache Beam knows no option --{unknown[0]}: see docs/beam.md")

    def write_with_beam(job: Job, plans: Iterable[ShardPlan]) -> Iterator[FinishedShard]:
        if exchange is None:
            places = Places(str(job.folder), True, path_map or {})
        else:
            places = Places(FileSystems.join(exchange, job.fingerprint[:16]), False, path_map or {})
        names, tasks = _write_tasks(job, plans, places)
        if tasks:
            try:
                with Pipeline(options=options) as pipeline:
                    pipeline | Create(tasks) | Reshuffle() | Map(make_shard, places=places, settings=job.settings)
            except Exception as error:  # runners wrap what happened on a worker in errors of many kinds
                raise PipelineError(
                    f"the Beam pipeline failed: {error}. Run the same command again to go on; finished shards are kept"
                ) from error
        for name in names:
            finished = finished_shard(job.folder, name)
            if not finished and not places.is_shared:
                _copy_back(job.folder, name, places)
                finished = finished_shard(job.folder, name)
            if not finished:
                raise PipelineError(
                    f"the files of shard {name} are not what a worker wrote: delete {places.folder}, and run the command again"
                )
            for pair in finished.rejections:
                job.reject(*pair)
            yield finished
        _delete(FileSystems.join(places.folder, TASKS_FOLDER) if places.is_shared else places.folder)

    return write_with_beam


def _write_tasks(job: Job, plans: Iterable[ShardPlan], places: Places) -> tuple[list[str], list[str]]:
    """Writes a task for each shard that is not finished; returns the names of all shards, and the tasks' paths."""
    tasks_folder = FileSystems.join(places.folder, TASKS_FOLDER)
    _delete(tasks_folder)
    FileSystems.mkdirs(tasks_folder)
    names, tasks = [], []
    bar = progress_bar("writing tasks", "examples", sum(job.spool.sizes.values()), job.progress)
    with open(job.spool.path, "rb") as spool, bar:
        for plan in plans:
            bar.update(len(plan.places))
            names.append(plan.name)
            if finished_shard(job.folder, plan.name):
                continue
            if not places.is_shared and FileSystems.exists(_exchanged(places.folder, files_of(plan.name)[-1])):
                continue
            path = FileSystems.join(tasks_folder, plan.name)
            with FileSystems.create(path) as file:
                pickle.dump((plan.split, plan.name, len(plan.places)), file)
                for place in plan.places:
                    pickle.dump((place.position, read_spooled(spool, place.offset)), file)
            tasks.append(path)
    return names, tasks


def make_shard(task: str, places: Places, settings: Settings) -> None:
    """Makes the shard of a task. It runs on a worker."""
    use_one_thread()
    with FileSystems.open(task) as file:  # unpickling is safe: the program that started the pipeline wrote it
        split, name, count = pickle.load(file)
        examples = (pickle.load(file) for _ in range(count))
        read = functools.partial(_read, path_map=places.path_map)
        results = ((position, encode(example, settings, read)) for position, example in examples)
        if places.is_shared:
            write_shard(Path(places.folder), split, name, results, settings)
            return
        with tempfile.TemporaryDirectory() as scratch:
            write_shard(Path(scratch), split, name, results, settings)
            for file_name in files_of(name):
                target = _exchanged(places.folder, file_name)
                with open(Path(scratch) / file_name, "rb") as source, FileSystems.create(target + ".tmp") as file:
                    shutil.copyfileobj(source, file)
                FileSystems.rename([target + ".tmp"], [target])


def _read(path: Path, roots: Sequence[Path], path_map: dict[str, str]) -> bytes:
    """Reads an image file of one of the folders `roots`, or the file that stands for it by `path_map`.

    Raises:
        FileNotFoundError: if there is none.
        ImageFileError: if it may not be read. Errors of other kinds are left to the runner, which tries again.
    """
    for prefix, target in path_map.items():
        if path.is_relative_to(prefix):
            check_inside(path, os.path.normpath(path), tuple(map(os.path.normpath, roots)))
            url = FileSystems.join(target, *path.relative_to(prefix).parts)
            try:
                with FileSystems.open(url) as file:
                    return file.read()
            except BeamIOError:
                if FileSystems.exists(url):
                    raise
                raise FileNotFoundError(url) from None
    return read_image_file(path, roots)


def _copy_back(folder: Path, name: str, places: Places) -> None:
    """Copies the files of a shard from the exchange into the staging folder."""
    for file_name in files_of(name):
        target = folder / file_name
        target.parent.mkdir(exist_ok=True)
        exchanged = _exchanged(places.folder, file_name)
        with atomic_file(target) as temporary, open(temporary, "wb") as file, FileSystems.open(exchanged) as source:
            shutil.copyfileobj(source, file)


def _exchanged(folder: str, file_name: str) -> str:
    """The path of a shard's file in the exchange, which has no sub-folders."""
    return FileSystems.join(folder, file_name.replace("/", "-"))


def _delete(path: str) -> None:
    if FileSystems.exists(path):
        FileSystems.delete([path])
