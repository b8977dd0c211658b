"""Packs a source into a dataset folder.

Three passes, so that memory stays small whatever the input and the bytes are the same for any number of workers:

1. *spool*: the source is read once; examples (paths and texts, not pixels) go to one file, their places to a table beside it.
2. *plan*: label vocabulary, duplicate ids, splits; records are ordered by hash and cut into shards by ranges of it.
3. *write*: an engine makes the shards. That of this module has one process a core read images and encode records, and one
   writer put them into shards, in order; `beam` spreads the shards over machines.

Everything happens in a staging folder beside the output, which takes the output's name once it is complete. A pack that was
killed is resumed by running it again: the source is read anew, shards that are finished are not made anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tfrecords_tools.dataset import croissant, tfds_files
from tfrecords_tools.dataset.index import INDEX_FOLDER
from tfrecords_tools.dataset.info import (
    CLASS_DESCRIPTIONS_FILE,
    CROISSANT_FILE,
    DATASET_FILE,
    LABELS_FILE,
    REJECTED_FILE,
    DatasetInfo,
    ShardInfo,
)
from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.dataset.shards import sha256_of, shard_name
from tfrecords_tools.dataset.splits import check_fractions
from tfrecords_tools.packing.encode import Encoder, Result, Settings
from tfrecords_tools.packing.images import ImageOptions
from tfrecords_tools.packing.shard_files import FinishedShard, finished_shard, write_shard
from tfrecords_tools.packing.spool import Place, Spool
from tfrecords_tools.packing.staging import SPOOL_FILE, Staging
from tfrecords_tools.progress import progress_bar
from tfrecords_tools.sources.example import Rejection, Source

_OURS = (
    *(DATASET_FILE, LABELS_FILE, REJECTED_FILE, CROISSANT_FILE, CLASS_DESCRIPTIONS_FILE, INDEX_FOLDER),
    ".features",  # what mm_keras caches beside a dataset, of records that overwriting deletes
    *(tfds_files.FEATURES_FILE, tfds_files.INFO_FILE, tfds_files.NAMES_FILE),
)
_VERSIONED = ("opencv-python-headless", "pillow", "numpy")


class PackError(ValueError):
    """Packing cannot go on; nothing was left at the output path."""


@dataclasses.dataclass(frozen=True)
class PackOptions:
    """How a source is packed.

    Attributes:
        images: size and quality of the stored images.
        fractions: splits to draw (name -> fraction) for examples to which the source gives none.
        seed: another seed draws other splits and another order of the records.
        examples_per_shard: about how many records go into one shard.
        keep_without_image: keep a record whose image is missing or unreadable, without its image, where it has a text;
            it is reported either way. False leaves it out.
        max_bad_fraction: stop when more than this fraction of the input is bad: a wrong image folder, most likely.
        workers: processes; None = one a core. The bytes do not depend on it.
    """

    images: ImageOptions = dataclasses.field(default_factory=ImageOptions)
    fractions: dict[str, float] = dataclasses.field(default_factory=lambda: {"train": 0.8, "val": 0.1, "test": 0.1})
    seed: int = 0
    examples_per_shard: int = 2000
    keep_without_image: bool = True
    max_bad_fraction: float = 0.2
    workers: int | None = None

    def __post_init__(self):
        check_fractions(self.fractions)
        if self.examples_per_shard < 1:
            raise ValueError(f"examples_per_shard must be at least 1. Received: {self.examples_per_shard}")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be at least 1, or None for one a core. Received: {self.workers}")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(f"max_bad_fraction must be within 0–1. Received: {self.max_bad_fraction}")


class ShardPlan(NamedTuple):
    """A shard to make, and the places of its examples in the spool."""

    split: str
    name: str
    places: list[Place]


class Job:
    """What an engine is given: a staging folder to make shards in, from spooled examples.

    Attributes:
        spool, folder, settings: where examples come from, where shards go, how the former become the latter.
        fingerprint: a hash of all that the shards' bytes depend on.
        workers: as in `PackOptions`.
        progress: whether to show progress bars.
    """

    def __init__(self, spool: Spool, folder: Path, settings: Settings, fingerprint: str, options: PackOptions, progress: bool):
        self.spool, self.folder, self.settings, self.fingerprint = spool, folder, settings, fingerprint
        self.workers, self.progress = options.workers, progress
        self._max_bad_fraction = options.max_bad_fraction

    def reject(self, position: int, rejection: Rejection) -> None:
        """Notes a bad example.

        Raises:
            PackError: as soon as too much of the input is known to be bad.
        """
        self.spool.reject(position, rejection)
        self.check_bad()

    def check_bad(self) -> None:
        """Raises PackError if too much of the input is known to be bad."""
        rejections, num_seen = self.spool.rejections, self.spool.num_seen
        if len(rejections) <= self._max_bad_fraction * num_seen:
            return
        reasons = Counter(r.reason.split(":")[0] for _, r in rejections).most_common(3)
        listed = "; ".join(f"{count} × {reason}" for reason, count in reasons)
        examples = "; ".join(f"{r.where}: {r.reason}" for _, r in rejections[-2:])
        raise PackError(
            f"at least {len(rejections):,} of {num_seen:,} examples are bad, over the allowed fraction of "
            f"{self._max_bad_fraction} (--max_bad_fraction): {listed}. For example: {examples}"
        )


Engine = Callable[[Job, Iterable[ShardPlan]], Iterator[FinishedShard]]
"""Makes the planned shards, or finds them in the folder, and yields them in order; reports each rejection to the job."""


def write_here(job: Job, plans: Iterable[ShardPlan]) -> Iterator[FinishedShard]:
    """The engine for one machine: worker processes encode, and run ahead into the next shards while one is written."""
    plans, ahead = itertools.tee((plan, finished_shard(job.folder, plan.name)) for plan in plans)
    total = sum(job.spool.sizes.values())
    bar = progress_bar("packing", "examples", total, job.progress)
    with Encoder(job.spool.path, job.settings, job.workers, total) as encoder, bar:

        def watched(results: Iterable[tuple[int, Result]]) -> Iterator[tuple[int, Result]]:
            for position, result in results:
                if result.rejection:
                    job.reject(position, result.rejection)
                bar.update()
                yield position, result

        results = watched(encoder.encode(place for plan, finished in ahead if not finished for place in plan.places))
        for plan, finished in plans:
            if finished:
                bar.update(len(plan.places))
                for pair in finished.rejections:
                    job.reject(*pair)
                yield finished
            else:
                records = itertools.islice(results, len(plan.places))
                yield write_shard(job.folder, plan.split, plan.name, records, job.settings)


def pack(
    source: Source,
    output: str | Path,
    options: PackOptions = PackOptions(),
    labels: LabelVocabulary | None = None,
    overwrite: bool = False,
    progress: bool = True,
    engine: Engine = write_here,
) -> DatasetInfo:
    """Packs `source` into the dataset folder `output`.

    Everything happens in a staging folder beside the output, which takes the output's name once it is complete. A pack that
    was killed is resumed by running it again: the source is read anew, shards that are finished are not made anew.

    Args:
        source: what to pack.
        output: the folder to make. It appears complete or not at all.
        options: see `PackOptions`.
        labels: a given vocabulary (of the training data, say); examples with other labels are left out and reported.
            None takes the source's own, or collects it from its examples.
        overwrite: replace a dataset that is already there.
        progress: show progress bars on standard error.
        engine: what makes the shards.

    Returns:
        the description of the packed dataset.

    Raises:
        PackError: if the output is taken, or too much of the source is bad.
        EmptySourceError: if the source yields no usable example.
        BusyError: if another process is packing into the same output.
    """
    output = Path(output).absolute()
    _check_output(output, overwrite)
    output.parent.mkdir(parents=True, exist_ok=True)
    with Staging(output) as staging:
        spool = Spool(staging.path / SPOOL_FILE, source, options.fractions, options.seed, progress)
        if labels is None and source.labels is not None:
            labels = LabelVocabulary(source.labels)
        labels = labels or LabelVocabulary.from_names(spool.label_names)
        fingerprint = _fingerprint(spool, source, options, labels)
        staging.begin(fingerprint)
        settings = Settings(labels, source.multi_label, tuple(source.text_fields), options.images, options.keep_without_image)
        job = Job(spool, staging.path, settings, fingerprint, options, progress)
        splits: dict[str, list[ShardInfo]] = {split: [] for split, size in spool.sizes.items() if size}
        counts = {split: Counter() for split in splits}
        job.check_bad()
        for shard in engine(job, _plan(spool, options)):
            splits[shard.split].append(shard.info)
            counts[shard.split].update(shard.counts)
        _write_rejected(staging.path, spool.rejections)
        info = DatasetInfo(
            name=output.name,
            labels=labels,
            multi_label=source.multi_label,
            text_fields=source.text_fields,
            splits=splits,
            images=dataclasses.asdict(options.images) if source.images is None else source.images,
            statistics={split: _statistics(counts[split], labels) for split in splits},
            provenance=_provenance(source, options, spool),
            ceilings=source.ceilings,
        )
        spool.close()
        croissant.write(info, staging.path)
        tfds_files.write(info, staging.path)
        info.save(staging.path)
        staging.publish()
    return info


def _plan(spool: Spool, options: PackOptions) -> Iterator[ShardPlan]:
    for split, size in spool.sizes.items():
        num_shards = -(-size // options.examples_per_shard)
        for index, places in enumerate(spool.shards(split, num_shards)):
            yield ShardPlan(split, shard_name(split, index, num_shards), places)


def _write_rejected(folder: Path, rejections: list[tuple[int, Rejection]]) -> None:
    with open(folder / REJECTED_FILE, "w", encoding="utf-8", errors="backslashreplace") as file:
        for _, rejection in sorted(rejections, key=lambda pair: pair[0]):
            file.write(json.dumps(dataclasses.asdict(rejection), ensure_ascii=False) + "\n")


def _fingerprint(spool: Spool, source: Source, options: PackOptions, labels: LabelVocabulary) -> str:
    """A hash of all that the shards' bytes depend on, but for the contents of the image files."""
    settings = dataclasses.replace(options, workers=None)
    versions = [_version(package) for package in ("mm_keras", *_VERSIONED)]
    parts = (spool.digest, settings, labels.names, source.multi_label, source.text_fields, source.images, versions)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.exists():
        return
    if not output.is_dir() or (any(output.iterdir()) and not (output / DATASET_FILE).is_file()):
        raise PackError(f"{output} exists and is no dataset; choose another output folder")
    if (output / DATASET_FILE).is_file() and not overwrite:
        raise PackError(f"{output} already holds a dataset; pass --overwrite to replace it, or choose another folder")
    foreign = sorted(path.name for path in output.iterdir() if path.name not in _OURS and path.suffix != ".tfrecord")
    if foreign:
        raise PackError(f"{output} also holds {foreign[:5]}, which overwriting would delete; move them away first")


def _statistics(counts: Counter, labels: LabelVocabulary) -> dict:
    statistics = {key: counts[key] for key in ("examples", "without_image", "without_label", "images_reencoded")}
    statistics["without_text"] = {
        key.removeprefix("without_text/"): counts[key] for key in sorted(counts) if key.startswith("without_text/")
    }
    statistics["labels"] = {name: counts[f"label/{name}"] for name in labels.names}
    return statistics


def _provenance(source: Source, options: PackOptions, spool: Spool) -> dict:
    settings = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.name not in ("images", "workers")
    }
    return {
        "source": source.name,
        "source_options": source.options,
        "pack_options": settings,
        "splits_drawn": spool.splits_drawn,
        "files": [{"name": path.name, "sha256": sha256_of(path)} for path in source.files],
        "rejected": dict(Counter(rejection.action for _, rejection in spool.rejections)),
        "versions": {package: _version(package) for package in ("mm_keras", *_VERSIONED)},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"
