"""Packs a source into a dataset folder on one machine, with one process a core.

Three passes, so that memory stays small whatever the input and the bytes are the same for any number of workers:

1. *spool*: the source is read once; examples (paths and texts, not pixels) go to one spool file, and per example only
   its place in that file, two hashes and a split number stay in memory.
2. *plan*: label vocabulary, duplicate ids, splits; records are ordered by hash and cut into shards by ranges of it.
3. *write*: workers read images and encode records in chunks; one writer puts them into shards, in order.

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
from pathlib import Path

from tfrecords_tools import croissant, encode
from tfrecords_tools.dataset_info import (
    CLASS_DESCRIPTIONS_FILE,
    CROISSANT_FILE,
    DATASET_FILE,
    LABELS_FILE,
    REJECTED_FILE,
    DatasetInfo,
    ShardInfo,
)
from tfrecords_tools.example import Source
from tfrecords_tools.images import ImageOptions
from tfrecords_tools.labels import LabelVocabulary
from tfrecords_tools.progress import progress_bar
from tfrecords_tools.shards import ShardWriter, sha256_of, shard_name
from tfrecords_tools.splits import check_fractions
from tfrecords_tools.spool import Spool
from tfrecords_tools.staging import FinishedShard, Staging

_OURS = (DATASET_FILE, LABELS_FILE, REJECTED_FILE, CROISSANT_FILE, CLASS_DESCRIPTIONS_FILE)
_VERSIONED = ("opencv-python-headless", "pillow", "numpy")


class PackError(ValueError):
    """Packing cannot go on; nothing was left at the output path."""


@dataclasses.dataclass(frozen=True)
class PackOptions:
    """How a source is packed.

    Attributes:
        images: size and quality of the stored images.
        fractions: splits to draw (name -> fraction) for examples to which the source gives none.
        seed: of the splits and of the order of the records.
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


def pack(
    source: Source,
    output: str | Path,
    options: PackOptions = PackOptions(),
    labels: LabelVocabulary | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> DatasetInfo:
    """Packs `source` into the dataset folder `output`.

    Args:
        source: what to pack.
        output: the folder to make. It appears complete or not at all.
        options: see `PackOptions`.
        labels: a given vocabulary (of the training data, say); examples with other labels are left out and reported.
            None takes the source's own, or collects it from its examples.
        overwrite: replace a dataset that is already there.
        progress: show progress bars on standard error.

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
        spool = Spool(staging.path / "spool", source, options.fractions, options.seed, progress)
        if labels is None and source.labels is not None:
            labels = LabelVocabulary(source.labels)
        labels = labels or LabelVocabulary.from_names(spool.label_names)
        staging.begin(_fingerprint(spool, source, options, labels))
        info = _write(spool, staging, source, options, labels, output.name, progress)
        spool.path.unlink()
        croissant.write(info, staging.path)
        info.save(staging.path)
        staging.publish()
    return info


def _write(spool, staging, source, options, labels, name, progress) -> DatasetInfo:
    """Passes 2 and 3: shards, rejected.jsonl, and what dataset.json will say."""
    splits: dict[str, list[ShardInfo]] = {}
    statistics: dict[str, dict] = {}
    settings = encode.Settings(
        spool.path, labels, source.multi_label, tuple(source.text_fields), options.images, options.keep_without_image
    )
    bar = progress_bar("packing", "examples", len(spool.offsets), progress)
    with encode.Encoder(settings, options.workers, len(spool.offsets)) as encoder, bar:
        for index, split in enumerate(spool.split_names):
            order = spool.order(index).tolist()
            if not order:
                continue
            num_shards = -(-len(order) // options.examples_per_shard)
            shards = _write_split(split, order, num_shards, spool, staging, encoder, options, bar)
            splits[split] = [shard.info for shard in shards]
            statistics[split] = _statistics(sum((shard.counts for shard in shards), Counter()), labels)
    _check_bad(spool, options)
    with open(staging.path / REJECTED_FILE, "w", encoding="utf-8", errors="backslashreplace") as file:
        for _, rejection in sorted(spool.rejections, key=lambda pair: pair[0]):
            file.write(json.dumps(dataclasses.asdict(rejection), ensure_ascii=False) + "\n")
    return DatasetInfo(
        name=name,
        labels=labels,
        multi_label=source.multi_label,
        text_fields=source.text_fields,
        splits=splits,
        images=dataclasses.asdict(options.images) if source.images is None else source.images,
        statistics=statistics,
        provenance=_provenance(source, options, spool.rejections),
        ceilings=source.ceilings,
    )


def _write_split(split, order, num_shards, spool, staging, encoder, options, bar) -> list[FinishedShard]:
    """Makes the shards of one split that are not finished yet; returns all, in order."""

    def shard_of(position: int) -> int:
        return (spool.hashes[position] * num_shards) >> 63

    names = [shard_name(split, index, num_shards) for index in range(num_shards)]
    finished = {index: shard for index, name in enumerate(names) if (shard := staging.finished(name))}
    for shard in finished.values():
        spool.rejections += shard.rejections
        _check_bad(spool, options)
    waiting = [position for position in order if shard_of(position) not in finished]
    bar.update(len(order) - len(waiting))
    results = encoder.encode(waiting, spool.offsets)
    for index, group in itertools.groupby(results, lambda result: shard_of(result[0])):
        finished[index] = _write_shard(staging, names[index], group, spool, options, bar)
    for index in set(range(num_shards)) - set(finished):  # a range of the hash that holds no record still gets its file
        finished[index] = _write_shard(staging, names[index], (), spool, options, bar)
    return [finished[index] for index in range(num_shards)]


def _write_shard(staging, name, results, spool, options, bar) -> FinishedShard:
    writer, counts, rejections = ShardWriter(staging.path / name), Counter(), []
    try:
        for position, result in results:
            if result.record is not None:
                writer.write(result.record)
                counts.update(result.counts)
            if result.rejection:
                rejections.append((position, result.rejection))
                spool.reject(position, result.rejection)
                _check_bad(spool, options)
            bar.update()
    except BaseException:
        writer.abandon()
        raise
    writer.close()
    shard = FinishedShard(ShardInfo(name, writer.num_examples, writer.num_bytes, writer.sha256), counts, rejections)
    staging.finish(shard)
    return shard


def _fingerprint(spool: Spool, source: Source, options: PackOptions, labels: LabelVocabulary) -> str:
    """Of all that the shards' bytes depend on, but for the contents of the image files."""
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


def _check_bad(spool: Spool, options: PackOptions) -> None:
    """Raises as soon as too much of the input is known to be bad."""
    allowed = options.max_bad_fraction * spool.num_seen
    if len(spool.rejections) <= allowed:
        return
    reasons = Counter(r.reason.split(":")[0] for _, r in spool.rejections).most_common(3)
    listed = "; ".join(f"{count} × {reason}" for reason, count in reasons)
    examples = "; ".join(f"{r.where}: {r.reason}" for _, r in spool.rejections[-2:])
    raise PackError(
        f"at least {len(spool.rejections):,} of {spool.num_seen:,} examples are bad, over the allowed fraction of "
        f"{options.max_bad_fraction} (--max_bad_fraction): {listed}. For example: {examples}"
    )


def _statistics(counts: Counter, labels: LabelVocabulary) -> dict:
    statistics = {key: counts[key] for key in ("examples", "without_image", "without_label", "images_reencoded")}
    statistics["without_text"] = {
        key.removeprefix("without_text/"): counts[key] for key in sorted(counts) if key.startswith("without_text/")
    }
    statistics["labels"] = {name: counts[f"label/{name}"] for name in labels.names}
    return statistics


def _provenance(source: Source, options: PackOptions, rejections: list) -> dict:
    settings = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.name not in ("images", "workers")
    }
    return {
        "source": source.name,
        "source_options": source.options,
        "pack_options": settings,
        "files": [{"name": path.name, "sha256": sha256_of(path)} for path in source.files],
        "rejected": dict(Counter(rejection.action for _, rejection in rejections)),
        "versions": {package: _version(package) for package in ("mm_keras", *_VERSIONED)},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"
