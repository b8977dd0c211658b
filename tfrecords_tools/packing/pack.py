"""Packs a source into a dataset folder.

Packing takes three passes. So memory stays small however large the input is, and any number of workers writes the same bytes.

1. *Spool*: the source is read once. Its examples (paths and texts, not pixels) are written to one file, and their offsets in
   that file to a table beside it.
2. *Plan*: the label vocabulary, duplicate ids and splits are found. Records are ordered by a hash of their ids, and each shard
   takes a range of hashes.
3. *Write*: an engine makes the shards. The engine of this module starts one process for each core, which reads images and
   encodes records, while this process writes them into shards in order. The engine of `beam` spreads the shards over machines.

Everything happens in a staging folder beside the output, which is renamed to the output when it is complete. A pack that was
killed is resumed by running it again: the source is read again, and shards that are finished are kept.
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
from tfrecords_tools.dataset.atomic_file import atomic_file
from tfrecords_tools.dataset.checksums import CHECKSUMS_FILE
from tfrecords_tools.dataset.folder import DESCRIPTIONS, write_checksums
from tfrecords_tools.dataset.index import INDEX_FOLDER, index_file
from tfrecords_tools.dataset.info import CLASS_DESCRIPTIONS_FILE, DATASET_FILE, REJECTED_FILE, DatasetInfo
from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.dataset.shards import sha256_of, shard_name
from tfrecords_tools.packing.encode import Encoder, Result, Settings
from tfrecords_tools.packing.options import PackOptions
from tfrecords_tools.packing.shard_files import FinishedShard, finished_shard, write_shard
from tfrecords_tools.packing.spool import Place, Spool
from tfrecords_tools.packing.staging import LOCK_FILE, SPOOL_FILE, Staging, put_back_retired
from tfrecords_tools.progress import progress_bar
from tfrecords_tools.sources.example import Rejection, Source

_OURS = (
    *(*DESCRIPTIONS, CHECKSUMS_FILE, CLASS_DESCRIPTIONS_FILE, INDEX_FOLDER),
    LOCK_FILE,  # left by a pack that was killed as it ended
    ".features",  # mm_keras caches encodings there, of records that overwriting deletes
)
_VERSIONED = ("opencv-python-headless", "pillow", "numpy")


class PackError(ValueError):
    """Packing cannot go on; nothing was left at the output path."""


class ShardPlan(NamedTuple):
    """A shard to make: its split, its file name, and where its examples stand in the spool."""

    split: str
    name: str
    places: list[Place]


class Job:
    """The work of an engine: it makes shards of spooled examples.

    Attributes:
        spool: holds the examples.
        folder: the staging folder for the shards.
        settings: how examples become records.
        fingerprint: a hash of everything that the bytes of the shards depend on.
        workers: as in `PackOptions`.
        progress: whether to show progress bars.
    """

    def __init__(self, spool: Spool, folder: Path, settings: Settings, fingerprint: str, options: PackOptions, progress: bool):
        self.spool, self.folder, self.settings, self.fingerprint = spool, folder, settings, fingerprint
        self.workers, self.progress = options.workers, progress
        self._max_bad_fraction = options.max_bad_fraction

    def reject(self, position: int, rejection: Rejection) -> None:
        """Adds a bad example, given by its position in the source, to the report.

        Raises:
            PackError: as soon as too much of the input is known to be bad.
        """
        self.spool.reject(position, rejection)
        self.check_bad()

    def check_bad(self) -> None:
        """Raises PackError if too much of the input is known to be bad."""
        rejections, num_bad, num_seen = self.spool.rejections, self.spool.num_bad, self.spool.num_seen
        if num_bad <= self._max_bad_fraction * num_seen:
            return
        counts = Counter()
        for _, rejection in rejections:
            kind = rejection.reason.split(":")[0]
            counts["duplicate id" if kind.startswith("duplicate id ") else kind] += rejection.rows
        reasons = counts.most_common(3)
        listed = "; ".join(f"{count} × {reason}" for reason, count in reasons)
        examples = "; ".join(f"{r.where}: {r.reason}" for _, r in rejections[-2:])
        raise PackError(
            f"at least {num_bad:,} of {num_seen:,} examples are bad, over the allowed fraction of "
            f"{self._max_bad_fraction} (--max_bad_fraction): {listed}. For example: {examples}"
        )


Engine = Callable[[Job, Iterable[ShardPlan]], Iterator[FinishedShard]]
"""Makes the planned shards that the folder does not hold, and yields all of them in order. It reports rejections to the job."""


def write_here(job: Job, plans: Iterable[ShardPlan]) -> Iterator[FinishedShard]:
    """The engine for one machine: while a shard is written, worker processes already encode records of the next ones."""
    plans, plans_ahead = itertools.tee((plan, finished_shard(job.folder, plan.name)) for plan in plans)
    total = sum(job.spool.sizes.values())
    bar = progress_bar("packing", "examples", total, job.progress)
    with Encoder(job.spool.path, job.settings, job.workers, total) as encoder, bar:

        def watched(results: Iterable[tuple[int, Result]]) -> Iterator[tuple[int, Result]]:
            for position, result in results:
                if result.rejection:
                    job.reject(position, result.rejection)
                bar.update()
                yield position, result

        results = watched(encoder.encode(place for plan, finished in plans_ahead if not finished for place in plan.places))
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

    Args:
        source: the raw dataset, as its source module declares it.
        output: the folder to make. It appears complete or not at all.
        options: see `PackOptions`.
        labels: a given vocabulary, such as that of the training data. Examples with other labels are left out and reported.
            None: those of the source, or of its examples.
        overwrite: whether to replace a dataset that is already there.
        progress: whether to show progress bars on standard error.
        engine: makes the shards; see `write_here` and `beam.make_engine`.

    Returns: the description of the packed dataset.

    Raises:
        PackError: if the output is taken, or too much of the source is bad.
        EmptySourceError: if there is no usable example.
        BusyError: if another process is packing into the same output.
        OSError: if the disk is full or fails; packing again goes on from the finished shards.

    Example:
        >>> source = table.make_source(["products.csv"], table.Columns(image="image", text=("title",), label="category"))
        >>> info = pack(source, "data/products", PackOptions(examples_per_shard=500))
        >>> info.num_examples("train")
        840
    """
    output = Path(output).absolute()
    put_back_retired(output)
    _check_output(output, overwrite)
    output.parent.mkdir(parents=True, exist_ok=True)
    keep = options.unlabelled == "keep"
    with Staging(output) as staging:
        by_label = source.stratify if options.stratify is None else options.stratify
        drawing = (options.fractions, options.seed, progress, keep, options.check_images, by_label)
        spool = Spool(staging.path / SPOOL_FILE, source, *drawing)
        labels = _vocabulary(source, spool) if labels is None else labels
        fingerprint = _fingerprint(spool, source, options, labels)
        staging.begin(fingerprint)
        job = Job(spool, staging.path, _settings(source, options, labels), fingerprint, options, progress)
        splits = {split: [] for split, size in spool.sizes.items() if size}
        counts = {split: Counter() for split in splits}
        of_index: dict[str, str] = {}
        job.check_bad()
        returned = Counter()
        for shard in engine(job, _plan(spool, options)):
            splits[shard.split].append(shard.info)
            of_index[index_file(shard.info.file)] = shard.index_sha256
            counts[shard.split].update(shard.counts)
            left_out = sum(rejection.action == Rejection.action for _, rejection in shard.rejections)
            returned[shard.split] += shard.info.num_examples + left_out
        _check_all_returned(returned, spool)
        _write_rejected(staging.path, spool.rejections)
        info = DatasetInfo(
            name=output.name,
            labels=labels,
            multi_label=source.multi_label,
            text_fields=source.text_fields,
            splits=splits,
            images=dataclasses.asdict(options.images) if source.images is None else source.images,
            statistics={split: _statistics(counts[split], labels) for split in splits},
            provenance=_provenance(source, options, spool) | {"labels_left_out": _labels_left_out(spool, labels, counts)},
            ceilings=source.ceilings,
        )
        spool.close()
        croissant.write(info, staging.path)
        tfds_files.write(info, staging.path)
        info.save(staging.path)
        write_checksums(staging.path, of_index)
        staging.publish()
    return info


def _vocabulary(source: Source, spool: Spool) -> LabelVocabulary:
    return LabelVocabulary.from_names(spool.label_names) if source.labels is None else LabelVocabulary(source.labels)


def _settings(source: Source, options: PackOptions, labels: LabelVocabulary) -> Settings:
    roots = () if options.allow_outside else source.image_roots
    fields = tuple(source.text_fields)
    return Settings(labels, source.multi_label, fields, options.images, options.keep_without_image, roots)


def _plan(spool: Spool, options: PackOptions) -> Iterator[ShardPlan]:
    for split, size in spool.sizes.items():
        num_shards = -(-size // options.examples_per_shard)
        for index, places in enumerate(spool.shards(split, num_shards)):
            yield ShardPlan(split, shard_name(split, index, num_shards), places)


def _check_all_returned(returned: Counter, spool: Spool) -> None:
    for split, size in spool.sizes.items():
        if returned[split] != size:
            raise PackError(
                f"{returned[split]:,} of the {size:,} examples of split {split!r} became records or were rejected; the others "
                "were lost by the engine that makes the shards. Delete the unfinished dataset, and pack again"
            )


def _write_rejected(folder: Path, rejections: list[tuple[int, Rejection]]) -> None:
    with atomic_file(folder / REJECTED_FILE) as path, open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
        for _, rejection in sorted(rejections, key=lambda pair: pair[0]):
            file.write(json.dumps(dataclasses.asdict(rejection), ensure_ascii=False) + "\n")


def _fingerprint(spool: Spool, source: Source, options: PackOptions, labels: LabelVocabulary) -> str:
    """A hash of all that the bytes of the shards depend on; of image files it has the digest that `check_images` chooses."""
    settings = dataclasses.replace(options, workers=None)
    versions = [_version(package) for package in ("mm_keras", *_VERSIONED)]
    examples = (spool.digest, spool.images.facts())
    declared = (source.multi_label, source.text_fields, source.images, source.image_roots)
    parts = (*examples, settings, labels.names, *declared, versions)
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


def _labels_left_out(spool: Spool, labels: LabelVocabulary, counts: dict[str, Counter]) -> dict[str, int]:
    """Maps the labels of the vocabulary that only rejected examples carry to the number of these examples."""
    packed = Counter()
    for split_counts in counts.values():
        packed.update(split_counts)
    return {name: spool.label_names[name] for name in labels.names if spool.label_names[name] and not packed[f"label/{name}"]}


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
        "splits_drawn_by": spool.drawn.by,
        "too_many_to_stratify": spool.drawn.too_many,
        "files": [{"name": path.name, "sha256": sha256_of(path)} for path in source.files],
        "images": spool.images.facts(),
        "rejected": spool.rejected_rows(),
        "unlabelled_left_out": spool.num_unlabelled,
        "unknown_labels_left_out": spool.num_unknown,
        "versions": {package: _version(package) for package in ("mm_keras", *_VERSIONED)},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"
