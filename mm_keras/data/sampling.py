"""Sampling: how often training shows each record.

Classes or sources are balanced, several datasets are mixed, and examples of equal texts are put side by side. Records are drawn
by their numbers, and read from the places that the datasets' indexes give.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import tensorflow as tf

from mm_keras.configurable import Fraction, OpenFraction, PositiveFraction, PositiveInt, configurable
from mm_keras.data.augment import Augmentation
from mm_keras.data.record_index import read_index
from mm_keras.data.text_table import TextTable
from mm_keras.distribution.workers import Worker
from mm_keras.features import FeatureSpec, TokenText
from tfrecords_tools.dataset.folder import Dataset, Split
from tfrecords_tools.dataset.schema import TEXT_PREFIX
from tfrecords_tools.dataset.shards import read_record


@dataclasses.dataclass(frozen=True)
class Sampling:
    """The arguments of `make_sampling`."""

    balance: float
    mix: tuple[tuple[str, float], ...]
    text_runs: int
    balance_by: str
    epoch_fraction: float = 1.0

    def describe(self, split: str) -> dict[str, object]:
        """Describes how a split is sampled, to compare trainings. Datasets are named by checksums, as they may have moved."""
        shards = {f"mix[{index}]": [shard.sha256 for shard in Dataset.open(folder).split(split).shards]
                  for index, (folder, _) in enumerate(self.mix)}  # fmt: skip
        balancing = {"balance_by": self.balance_by, "text_runs": self.text_runs}
        balancing |= {"epoch_fraction": self.epoch_fraction} if self.epoch_fraction < 1 else {}
        return {"balance": self.balance, "rates": [rate for _, rate in self.mix], **balancing, **shards}


@configurable
def make_sampling(
    balance: Fraction = 0.0,
    mix: Mapping[str, OpenFraction] | None = None,
    text_runs: PositiveInt = 1,
    balance_by: Literal["class", "source"] = "class",
    epoch_fraction: PositiveFraction = 1.0,
) -> Sampling:
    """Collects the options of sampling.

    Args:
        balance: within [0, 1]. A class with n examples is shown in proportion to n^(1 - balance): with 0 as often as it has
            examples, with 0.5 in proportion to their square root, with 1 as often as every other class. An example with
            several labels counts for its rarest one.
        mix: folder of another dataset -> its share of an epoch, within (0, 1). The rest comes from `train.dataset`. Classes
            are balanced within each dataset.
        text_runs: number of examples with the same texts that follow each other, so that a trained text encoder runs only once
            for all of them. It suits texts that many examples share, such as descriptions of classes. If a text has fewer
            examples, some of them are repeated.
        balance_by: what is balanced: "class", or "source", the first folder of a record's id ("google" in
            "google/q0001/abc.jpg").
        epoch_fraction: the fraction of the split, within (0, 1], that an epoch shows; each epoch draws another part.

    Raises:
        ValueError: if a value is out of its range.
    """
    mix = {str(folder): rate for folder, rate in (mix or {}).items()}
    if not 0 <= balance <= 1:
        raise ValueError(f"balance is within 0 (classes as they are) and 1 (all equally often). Received: {balance!r}")
    if not all(0 < rate < 1 for rate in mix.values()) or sum(mix.values()) >= 1:
        raise ValueError(
            "mix gives each other dataset its part of an epoch, above 0 and together below 1: the rest is of train.dataset. "
            f"Received: {mix}"
        )
    if balance_by not in ("class", "source"):
        raise ValueError(f"balance_by is 'class' or 'source'. Received: {balance_by!r}")
    if text_runs < 1:
        raise ValueError(f"text_runs is a number of examples, at least 1. Received: {text_runs}")
    if not 0 < epoch_fraction <= 1:
        raise ValueError(f"epoch_fraction is within (0, 1]. Received: {epoch_fraction!r}")
    if not balance and not mix and text_runs == 1 and epoch_fraction == 1:
        raise ValueError(
            "make_sampling needs balance, mix, text_runs or epoch_fraction; leave train.sampling out to show each example once"
        )
    return Sampling(balance, tuple(mix.items()), text_runs, balance_by, epoch_fraction)


def check_runs(
    length: int,
    features: FeatureSpec,
    cached: Sequence[str],
    batch_size: int,
    replicas: int,
    worker: Worker,
    augment: bool | Augmentation,
) -> None:
    """Raises ValueError if runs of equal texts (`make_sampling.text_runs`) would save nothing, or would be torn apart."""
    if length == 1:
        return
    mixing = isinstance(augment, Augmentation) and (augment.mixup or augment.cutmix)
    encoded = [text.name for text in features.texts if isinstance(text, TokenText) and text.name not in cached]
    for wrong, why in (
        (not encoded, "no text encoder of this training runs in every step: they are frozen, or there is no text"),
        (batch_size // replicas % length, f"a replica's {batch_size // replicas} examples of a batch are no multiple of it"),
        (worker.count > 1, f"it is for one process, not for {worker.count} workers"),
        (mixing, "MixUp and CutMix give an example another one's texts"),
    ):
        if wrong:
            raise ValueError(f"make_sampling.text_runs = {length}: {why}")


class SampledRecords:
    """The labelled records of a split of one or several datasets, and which of them each epoch shows.

    Args:
        split: the training split of `train.dataset`; the splits of the other datasets have the same name.
        sampling: the result of `make_sampling`.
        fields: the text fields of the model, for `text_runs`.

    Attributes:
        splits: the splits that are read.
        num_examples: number of examples that an epoch shows. It is chosen so that the share of `train.dataset` has as many
            examples as that dataset, times `epoch_fraction`.

    Raises:
        FileNotFoundError: if a dataset was packed by a version that wrote no index.
        ValueError: if a dataset lacks the split, or has other labels or fields than the first; or if `text_runs` is asked for
            where a record has several texts in a field.
    """

    def __init__(self, split: Split, sampling: Sampling, fields: Sequence[str] = ()):
        own_part = 1 - math.fsum(rate for _, rate in sampling.mix)
        self._paths: list[str] = []
        self.splits: list[Split] = []
        shards, offsets, rates, groups, texts = [], [], [], [], []
        mixed = [(Dataset.open(folder), part) for folder, part in sampling.mix]
        for dataset, part in ((split.dataset, own_part), *mixed):
            _check_alike(split.dataset, dataset, split.name)
            same_split = dataset.split(split.name)
            same_split.check_files()
            self.splits.append(same_split)
            columns = ["id", "shard", "offset", "label/ids"]
            columns += [TEXT_PREFIX + field for field in fields] if sampling.text_runs > 1 else []
            table, _ = read_index(same_split, columns)
            if sampling.balance_by == "source":
                kinds, weights = source_weights(dataset.folder, table["id"], sampling.balance)
            else:
                kinds, weights = class_weights(table["label/ids"], len(dataset.info.labels), sampling.balance)
            if not len(weights):
                raise ValueError(f"split {split.name!r} of dataset {dataset.folder} has no labelled example")
            files = same_split.files
            numbers = {file.name: len(self._paths) + index for index, file in enumerate(files)}
            self._paths += map(str, files)
            shards += [numbers[name] for name in table["shard"].to_pylist()]
            offsets.append(table["offset"].to_numpy())
            rates.append(part * weights / weights.sum())
            if sampling.text_runs > 1:
                texts.append(_equal_texts(dataset.folder, table, fields) + sum(numbers.max() + 1 for numbers in texts))
            groups.append(kinds + sum(numbers.max() + 1 for numbers in groups))
        self.num_examples = max(1, round(len(rates[0]) / own_part * sampling.epoch_fraction))
        self._rates = np.concatenate(rates) * self.num_examples
        self._groups = np.concatenate(groups)  # of each record: a class or source of its dataset
        self._shards, self._offsets = np.array(shards), np.concatenate(offsets)
        self._text_runs = sampling.text_runs
        self._texts = np.concatenate(texts) if texts else None

    def epoch(self, count: int, seed: int, epoch: int) -> np.ndarray:
        """The numbers of the records of an epoch, int64 [count]; they depend on `(seed, epoch)` alone."""
        rng = np.random.default_rng((seed, epoch))
        if self._texts is None:
            return draw(self._rates, self._groups, count, rng)
        return draw_runs(self._rates, self._groups, self._texts, self._text_runs, count, rng)

    def numbers(self, count: int, seed: int, epoch: int, epochs: int) -> tf.data.Dataset:
        """The numbers of the records of all epochs from `epoch` on, one after the other."""

        def draw():
            yield from (self.epoch(count, seed, number) for number in range(epoch, epochs))

        orders = tf.data.Dataset.from_generator(draw, output_signature=tf.TensorSpec([count], tf.int64))
        return orders.flat_map(tf.data.Dataset.from_tensor_slices)

    def read(self, numbers: tf.Tensor) -> tf.Tensor:
        """Reads records by their numbers: int64 [n] -> serialised records, string [n]."""

        def apply(numbers: np.ndarray) -> np.ndarray:
            places = zip(self._shards[numbers], self._offsets[numbers], strict=True)
            return np.array([read_record(self._paths[shard], int(offset)) for shard, offset in places], object)

        return tf.ensure_shape(tf.numpy_function(apply, [numbers], tf.string), numbers.shape)


def draw(rates: np.ndarray, groups: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws numbers of records, int64 [count], in random order, each as often as its rate says.

    A record of rate 2.3 is drawn two or three times, and the same holds for the records of each group together: chance decides
    only about the fraction.

    Args:
        rates: float [N], expected number of draws of each record.
        groups: int [N], the group (class or source of a dataset) of each record.
        count: number of draws.
        rng: the random generator.
    """
    order = rng.permutation(len(rates))
    order = order[np.argsort(groups[order], kind="stable")]
    ends = np.cumsum(rates[order])
    places = np.searchsorted(ends, (np.arange(count) + rng.random()) * (ends[-1] / count), side="right")
    return rng.permutation(order[np.minimum(places, len(rates) - 1)]).astype(np.int64)


def draw_runs(
    rates: np.ndarray, groups: np.ndarray, texts: np.ndarray, length: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws as `draw` does, in runs of `length` records that have the same text; `count` is a multiple of `length`.

    A text is drawn as often as the sum of its examples' rates says. Its runs show its examples in turn:
    none is repeated before all have been shown.
    """
    _, first = np.unique(texts, return_index=True)
    run_texts = draw(np.bincount(texts, rates) / length, groups[first], count // length, rng)
    order = rng.permutation(len(texts))
    order = order[np.argsort(texts[order], kind="stable")]
    sizes = np.bincount(texts)
    by_text = np.argsort(run_texts, kind="stable")
    earlier = np.empty(len(run_texts), np.int64)  # for each run, the number of runs of the same text before it
    earlier[by_text] = np.arange(len(run_texts)) - np.searchsorted(run_texts[by_text], run_texts[by_text])
    turns = (earlier[:, np.newaxis] * length + np.arange(length)) % sizes[run_texts][:, np.newaxis]
    return order[(np.cumsum(sizes) - sizes)[run_texts][:, np.newaxis] + turns].ravel()


def class_weights(label_ids: pa.ChunkedArray, num_labels: int, balance: float) -> tuple[np.ndarray, np.ndarray]:
    """(rarest label of each example, int64 [N], and n^-balance, float64 [N], where n examples have that label).

    Examples without a label count as one more class, `num_labels`.
    """
    lengths = pa.compute.list_value_length(label_ids).to_numpy()
    ids = pa.compute.list_flatten(label_ids).to_numpy()
    counts = np.append(np.bincount(ids, minlength=num_labels), np.count_nonzero(lengths == 0))
    owners = np.repeat(np.arange(len(lengths)), lengths)
    rarest_last = np.lexsort((-counts[ids], owners))
    rarest = np.full(len(lengths), num_labels)
    rarest[owners[rarest_last]] = ids[rarest_last]  # the last one that is written stays
    return rarest, counts[rarest].astype(float) ** -balance


def source_weights(folder: Path, ids: pa.ChunkedArray, balance: float) -> tuple[np.ndarray, np.ndarray]:
    """(the source of each record as a number, int64 [N], and n^-balance, float64 [N], where n records have that source).

    Raises:
        ValueError: if all records have the same source, or each a source of its own.
    """
    sources = pa.compute.list_element(pa.compute.split_pattern(ids, "/", max_splits=1), 0).to_numpy()
    names, numbers, counts = np.unique(sources.astype(str), return_inverse=True, return_counts=True)
    if len(names) == 1 or len(names) == len(sources):
        raise ValueError(
            f"make_sampling.balance_by = 'source' needs ids whose first folder is their source; those of {folder} are as "
            f"{ids[0].as_py()!r}"
        )
    return numbers.ravel(), counts[numbers.ravel()].astype(float) ** -balance


def _equal_texts(folder: Path, table: pa.Table, fields: Sequence[str]) -> np.ndarray:
    """A number for each record, from 0, int64 [N]: the same for those whose texts are the same in all these fields."""
    rows = []
    for field in fields:
        texts = TextTable(table[TEXT_PREFIX + field])
        if texts.counts.max(initial=0) > 1:
            raise ValueError(f"text_runs is for one text a field; {folder} has records of several in {field!r}")
        rows.append(texts.rows(np.arange(len(table))))
    return np.unique(np.stack(rows, axis=1), axis=0, return_inverse=True)[1].ravel()


def _check_alike(first: Dataset, second: Dataset, split: str) -> None:
    folder, other, info = first.folder, second.folder, second.info
    if split not in info.splits:
        raise ValueError(f"dataset {other} has no split {split!r} to mix in; it has {sorted(info.splits)}")
    if info.multi_label != first.info.multi_label:
        kinds = {True: "several labels an example", False: "one label an example"}
        mine, theirs = kinds[first.info.multi_label], kinds[info.multi_label]
        raise ValueError(f"{folder} has {mine}, {other} {theirs}: they cannot be mixed")
    ours, theirs = first.info.labels.names, info.labels.names
    if ours != theirs:
        pairs = zip(ours, theirs, strict=False)
        at = next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
        names = [repr(labels[at]) if at < len(labels) else "nothing" for labels in (ours, theirs)]
        raise ValueError(
            f"{folder} and {other} have other labels: number {at} is {names[0]} there and {names[1]} here; pack the latter "
            f"with --labels={folder / 'labels.txt'}"
        )
    missing = sorted(set(first.info.text_fields) ^ set(info.text_fields))
    if missing:
        place = folder if missing[0] in first.info.text_fields else other
        raise ValueError(
            f"{folder} and {other} have other text fields: {missing[0]!r} is only in {place}; pack the other one with a field "
            "of that name, which may be empty"
        )
