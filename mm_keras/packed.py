"""Packs raw data the first time that a config asks for them, so that one config goes from a table to an exported model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from absl import logging

from mm_keras.configurable import Fraction, NonNegativeInt, PositiveInt, Rate, configurable
from mm_keras.distribution.workers import one_worker_at_a_time
from tfrecords_tools.dataset.info import DATASET_FILE, DatasetInfo
from tfrecords_tools.dataset.shards import sha256_of
from tfrecords_tools.packing.image_digest import CheckImages, ImageDigest
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.packing.summary import summary_lines
from tfrecords_tools.progress import progress_bar
from tfrecords_tools.sources import sample, table, webvision
from tfrecords_tools.sources.example import Source, SourceExample


@configurable
def sample_dataset(
    folder: str = "data/sample",
    num_examples: PositiveInt = 4000,
    seed: NonNegativeInt = 0,
    multi_label: bool = False,
) -> str:
    """Packs the drawn sample into `folder`, or finds it there, and returns the folder.

    Args:
        folder: the dataset folder.
        num_examples, seed, multi_label: see `tfrecords_tools.sources.sample.make_source`.

    Raises:
        ValueError: if the folder holds another dataset.
    """
    source = sample.make_source(num_examples, seed, multi_label)
    options = PackOptions(fractions={"train": 0.7, "val": 0.1, "test": 0.2}, seed=seed, check_images="none")
    return pack_once(source, folder, options)


@configurable
def table_dataset(
    file: str,
    folder: str,
    label: str | None = None,
    image: str | None = "image",
    text: Sequence[str] = (),
    id: str | None = None,
    split: str | None = None,
    fractions: Mapping[str, Fraction] | None = None,
    label_separator: str | None = None,
    image_root: str | None = None,
    allow_outside: bool = False,
    seed: NonNegativeInt = 0,
    multi_label: bool = False,
    image_template: str | None = None,
    first_image: bool = False,
    encoding: str | None = None,
    delimiter: str | None = None,
    quotes: bool = True,
    unlabelled: Literal["keep", "leave_out"] = "keep",
    check_images: CheckImages = "time",
    labels: Sequence[str] = (),
    group: str | None = None,
    empty_means_none: bool = False,
    stratify: bool | None = None,
    hold_out: Rate = 0.0,
) -> str:
    """Packs a table (CSV, JSON, JSON Lines, Parquet) into `folder`, or finds it there, and returns the folder.

    Args:
        file: the table.
        label, image, id, split, group: names of the columns that have these roles; None: the table has no such column.
        folder: the dataset folder.
        text: the text columns.
        fractions: splits to draw where there is no split column; default: those of `PackOptions`.
        label_separator: splits a cell into several labels; makes the dataset multi-label.
        image_root: folder of the image paths; default: the table's.
        allow_outside: also read images outside of that folder, where absolute paths, `../` or links lead.
        seed: another seed draws other splits and another order.
        multi_label: whether label cells may hold lists.
        image_template: makes image paths of other columns, "images/{id}.jpg"; `image` is then None.
        first_image, encoding, delimiter, quotes: see `tfrecords_tools.sources.table.make_source`.
        labels: columns that say by 0 and 1 whether the label that they are called applies; `label` is then None.
        empty_means_none: see `tfrecords_tools.sources.table.make_source`.
        hold_out: the fraction of the rows of "train" that becomes "val" where the split column names none, so that a training
            by gradient can tell its best epoch; a head that is solved does not need it.
        unlabelled, stratify, check_images: see `PackOptions`. `check_images` also says how a dataset in the
            folder is compared with the image files.

    Raises:
        ValueError: if the table lacks a column, or the folder holds another dataset.
    """
    columns = table.Columns(None if image_template else image, tuple(text), label, id, split, labels=tuple(labels), group=group)
    source = table.make_source(
        [file],
        columns,
        label_separator=label_separator,
        multi_label=multi_label,
        image_root=image_root,
        encoding=encoding,
        image_template=image_template,
        first_image=first_image,
        delimiter=delimiter,
        quotes=quotes,
        empty_means_none=empty_means_none,
    )
    options = PackOptions(
        seed=seed, allow_outside=allow_outside, unlabelled=unlabelled, check_images=check_images, stratify=stratify
    )
    if hold_out and split and not _names_split(source, "val"):
        source, fractions = _without_split(source, "train"), {"train": 1 - hold_out, "val": hold_out}
        logging.info(f"no row of {file} is of split 'val': {hold_out:.0%} of those of 'train' are")
    return pack_once(source, folder, options if fractions is None else dataclasses.replace(options, fractions=dict(fractions)))


def _names_split(source: Source, name: str) -> bool:
    return any(isinstance(example, SourceExample) and example.split == name for example in source.examples())


def _without_split(source: Source, name: str) -> Source:
    """The source, in which examples of split `name` have no split, so that packing draws one for each."""

    def examples():
        for example in source.examples():
            is_drawn = isinstance(example, SourceExample) and example.split == name
            yield dataclasses.replace(example, split=None) if is_drawn else example

    return dataclasses.replace(source, examples=examples, options={**source.options, "drawn": name}, stratify=True)


@configurable
def webvision_dataset(
    root: str,
    folder: str,
    sources: Literal["all", "google", "flickr"] = "all",
    fields: Sequence[str] = ("title", "description"),
    num_classes: PositiveInt | None = None,
    holdout: Rate = 0.04,
    seed: NonNegativeInt = 0,
    check_images: CheckImages = "time",
) -> str:
    """Packs WebVision into `folder`, or finds it there, and returns the folder.

    Args:
        root: the folder that holds info/ (the release) or meta/ (the benchmark's layout).
        folder: the dataset folder.
        sources, fields, num_classes: see `tfrecords_tools.sources.webvision.Options`.
        holdout: fraction of each class's training images to split off, half "val", half "test", as in the paper; 0 reads
            the release's own "val", whose images have no texts.
        seed: another seed draws other splits and another order.
        check_images: see `PackOptions`; "none" saves reading all metadata if the dataset is in the folder already.

    Raises:
        SourceError: if the folder is no WebVision, or the options contradict each other.
        ValueError: if `folder` holds another dataset.
    """
    options = webvision.Options(
        Path(root), sources=sources, fields=tuple(fields), num_classes=num_classes, holdout=holdout, seed=seed
    )
    return pack_once(webvision.make_source(options), folder, PackOptions(seed=seed, check_images=check_images))


def pack_once(source: Source, folder: str, options: PackOptions) -> str:
    """Packs a source into `folder`, or finds it there, and returns the folder.

    Raises:
        ValueError: if the folder holds another dataset.
    """
    with one_worker_at_a_time(Path(folder)):
        return _pack_or_find(source, folder, options)


def _pack_or_find(source: Source, folder: str, options: PackOptions) -> str:
    if (Path(folder) / DATASET_FILE).is_file():
        expected = {
            "source": source.name,
            "source_options": source.options,
            "files": [{"name": path.name, "sha256": sha256_of(path)} for path in source.files],
        }
        provenance = DatasetInfo.load(folder).provenance
        different = [key for key, value in expected.items() if provenance[key] != _as_json(value)]
        packed_by = {"unlabelled": "keep", "stratify": options.stratify} | provenance["pack_options"]
        compared = ("fractions", "seed", "unlabelled", "stratify")
        different += [key for key in compared if packed_by[key] != getattr(options, key)]
        if different:
            raise ValueError(
                f"{folder} holds a dataset of another {different[0]}: {(packed_by | provenance).get(different[0])}; "
                "name another folder (--dataset, or `folder` in a config), or delete this one to pack it anew"
            )
        _check_images(source, folder, provenance.get("images"), options.check_images)
        return folder
    logging.info(f"packing {source.name} data into {folder}")
    for note in source.notes:
        logging.info(f"  {note}")
    info = pack(source, folder, options)
    for line in summary_lines(info, folder):
        logging.info(f"  {line}")
    return folder


def _check_images(source: Source, folder: str, packed: dict | None, check: CheckImages) -> None:
    """Raises ValueError if the image files are not those that the dataset was packed of, as far as it knows them."""
    if check == "none" or packed is None or packed["by"] == "none":
        return
    remedy = (
        'delete the folder to pack it anew, or bind another one. If the pictures are the same: check_images="none" does not '
        'look, and "content" packs with checksums, so that copies with other times are known again'
    )
    if check == "content" != packed["by"]:
        raise ValueError(f"{folder} was packed without checksums of its image files: {remedy}")
    digest = ImageDigest(packed["by"])
    with progress_bar("looking at the image files", "examples") as bar:
        for example in source.examples():
            bar.update()
            if isinstance(example, SourceExample):
                digest.add(example)
    now = digest.facts()
    if now != packed:
        then, today = (f"{facts['files'] - facts['missing']:,} of {facts['files']:,}" for facts in (packed, now))
        raise ValueError(f"{folder} was packed of other image files (then {then} were there, now {today}); {remedy}")


def _as_json(value):
    """The value as it comes back from a JSON file (tuples are lists there)."""
    return json.loads(json.dumps(value))
