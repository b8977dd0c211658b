"""Records become batches for training and for evaluation."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tensorflow as tf

from mm_keras.data.augment import Augmentation, augment_batch, augmented_image, make_augmentation
from mm_keras.data.damage import naming_damage, promised
from mm_keras.data.images import fit_stored
from mm_keras.data.preprocess import Preprocessor, made_or_zeros
from mm_keras.data.sampling import SampledRecords
from mm_keras.data.sharding import files_of
from mm_keras.distribution.preemption import end_if_asked
from mm_keras.distribution.workers import ALONE, Worker
from mm_keras.features import IMAGE, FeatureSpec, ImageSpec, present
from tfrecords_tools.dataset.folder import Dataset, Split
from tfrecords_tools.dataset.schema import TEXT_PREFIX, parse_example

# Parallel calls of a `map`. Results keep their order, so that with one call for each core, cores would wait for a slow one.
_CALLS = 2 * (os.cpu_count() or 1)
_unconverted = tf.autograph.experimental.do_not_convert  # no function here needs AutoGraph, whose analysis takes seconds
_READ_TOGETHER = 32  # records that one call of Python reads


@dataclasses.dataclass(frozen=True)
class Batches:
    """A tf.data.Dataset of batches `(features, labels, weights)`, with its size.

    Attributes:
        dataset: in training all epochs one after the other, in evaluation one pass. If there are several workers, each has its
            part of every batch.
        steps: number of batches in an epoch.
        num_examples: number of examples in an epoch, over all workers: in training those of `steps` full batches, in
            evaluation all.
        batch_size: global batch size, over all replicas.
        ids: the ids of the records in each batch of `dataset`; None for evaluation batches.
    """

    dataset: tf.data.Dataset
    steps: int
    num_examples: int
    batch_size: int
    ids: tf.data.Dataset | None = None


def make_training_batches(
    split: Split,
    features: FeatureSpec,
    batch_size: int,
    epochs: int,
    seed: int = 0,
    augment: bool | Augmentation = True,
    shuffle_buffer: int = 4096,
    start: int = 0,
    worker: Worker = ALONE,
    sampled: SampledRecords | None = None,
) -> Batches:
    """Makes the batches of `epochs` passes over a split, each in an order that depends on `(seed, epoch)` alone.

    Shards are shuffled and interleaved, and records are shuffled in a buffer. An epoch shows no example twice and leaves out
    less than one batch of examples, others in each epoch. If a field has several texts, one is drawn. All shapes are static.

    Args:
        split: the split to train on.
        features: what a batch holds.
        batch_size: global batch size.
        epochs: number of passes.
        seed: another seed draws another order, augmentation and texts.
        augment: the result of `make_augmentation`; True crops and mirrors images at random; False changes nothing.
        shuffle_buffer: number of records in the shuffle buffer (an encoded record has about 30 KB).
        start: number of batches that a resumed training has seen. They are skipped, and their pictures are not decoded.
        worker: this worker, which gets its part of every batch. If the split's files can be dealt out so that each worker has
            enough records for all steps, it reads only its own files. Otherwise every worker reads all records but
            decodes only its own, and gets its part of the batches that a single worker would make.
        sampled: the split's records as `make_sampling` draws them: an epoch may show some examples several times and others
            not at all. It still depends on `(seed, epoch)` alone.

    Raises:
        ValueError: if the dataset does not have what `features` asks for, or fewer labelled examples than a batch.
    """
    steps = count_steps(split, features, batch_size, sampled)
    own_size = batch_size // worker.count
    least = steps * own_size
    own_files = None if sampled else files_of(worker, split.shards, split.num_labelled, least=least)
    files = [str(split.dataset.folder / shard.file) for shard in own_files or split.shards]
    read_size = own_size if own_files else batch_size
    num_read = sum(shard.num_examples for shard in own_files) if own_files else split.num_labelled

    @_unconverted
    def epoch_records(epoch: tf.Tensor) -> tf.data.Dataset:
        tf.random.set_seed(1)  # seeds only this function's graph, so that the order depends on (seed, epoch) alone
        epoch_seed = tf.constant(seed, tf.int64) * 1_000_003 + epoch
        paths = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files), seed=epoch_seed)
        records = paths.interleave(tf.data.TFRecordDataset, cycle_length=min(8, len(files)))
        records = promised(_drop_unlabelled(records, split), num_read).shuffle(shuffle_buffer, seed=epoch_seed)
        return records.take(steps * read_size)

    preprocessor = Preprocessor(features)
    augmentation = make_augmentation() if augment is True else augment or None
    parse = functools.partial(_parse_at_random, features=features, augmentation=augmentation, seed=seed)
    epoch, seen = divmod(start, steps)
    if sampled:
        records = sampled.numbers(steps * batch_size, seed, epoch, epochs)
    else:
        records = tf.data.Dataset.range(epoch, epochs).flat_map(epoch_records)
    numbered = records.enumerate(epoch * steps * read_size).skip(seen * read_size)
    if own_files:
        numbered = numbered.map(lambda index, serialized: (index * worker.count + worker.index, serialized))
    else:
        numbered = numbered.shard(worker.count, worker.index)
    if sampled:
        blocks = numbered.batch(_READ_TOGETHER)  # a call of Python takes longer than reading a record
        numbered = blocks.map(lambda indices, numbers: (indices, sampled.read(numbers)), num_parallel_calls=_CALLS).unbatch()
    dataset = numbered.map(parse, num_parallel_calls=_CALLS).batch(own_size, drop_remainder=True)

    def augmented(indices: tf.Tensor, *batch):
        batch_seed = tf.random.experimental.stateless_fold_in(
            tf.stack([tf.constant(seed, tf.int64), indices[0]]), tf.constant(0, tf.int64)
        )
        return augment_batch(*batch, batch_seed, features, augmentation)

    steps_left = steps * epochs - start
    dataset = _finished(dataset, preprocessor, features, steps_left, augmented if augmentation else None)
    ids = numbered.map(_record_id).batch(own_size, drop_remainder=True)
    return Batches(dataset, steps, steps * batch_size, batch_size, ids)


@_unconverted
def _parse_at_random(
    index: tf.Tensor, serialized: tf.Tensor, features: FeatureSpec, augmentation: Augmentation | None, seed: int
) -> dict:
    """Parses the record that is shown as number `index` of the training; `(seed, index)` decides on texts and augmentation."""
    record = parse_example(serialized, [text.field for text in features.texts])
    seeds = tf.random.experimental.stateless_split(tf.stack([tf.constant(seed, tf.int64), index]), 2)
    parsed = _labels_and_weight(record, features) | {"index": index, "texts": {}}  # nested: a field may be called "label"
    for text in features.texts:
        texts = record[TEXT_PREFIX + text.field]
        text_index = tf.random.stateless_uniform([], seeds[0], maxval=tf.maximum(1, tf.size(texts)), dtype=tf.int32)
        parsed["texts"][text.key] = _text_or_empty(texts, text_index)
    if features.image:
        parsed[IMAGE] = _stored_image(record["image"], features.image, seeds[1], augmentation)
        parsed[present(IMAGE)] = tf.strings.length(record["image"]) > 0
    return parsed


def count_steps(split: Split, features: FeatureSpec, batch_size: int, sampled: SampledRecords | None = None) -> int:
    """The number of batches in an epoch of `make_training_batches`; raises the same errors, and makes no batch."""
    num_labelled = count_labelled(split, features)
    num_shown = sampled.num_examples if sampled else num_labelled
    if num_shown < batch_size:
        raise ValueError(f"batch_size {batch_size} is larger than split {split.name!r} with its {num_shown} labelled examples")
    return num_shown // batch_size


def count_labelled(split: Split, features: FeatureSpec) -> int:
    """The number of labelled examples in a split.

    Raises:
        ValueError: if the dataset lacks a text field or a label of `features`, if the split has no labelled example, or if a
            shard is missing or cut.
    """
    _check(split.dataset, features)
    split.check_files()
    if not split.num_labelled:
        raise ValueError(f"split {split.name!r} of dataset {split.dataset.info.name!r} has no labelled example")
    return split.num_labelled


def make_evaluation_batches(
    split: Split,
    features: FeatureSpec,
    batch_size: int,
    text_index: int = 0,
    record_weights: bool = False,
    worker: Worker = ALONE,
) -> Batches:
    """Makes the batches of one pass over the labelled examples of a split, each once and in the records' order.

    The last batches are filled up with empty examples of weight 0. All other examples have weight 1, or with `record_weights`
    the weight of their record. If a field has several texts, the one at `text_index` (modulo their number) is taken. The other
    arguments and the errors are those of `make_training_batches`.
    """
    num_examples = count_labelled(split, features)
    steps = -(-num_examples // batch_size)
    preprocessor = Preprocessor(features)

    @_unconverted
    def parse(serialized: tf.Tensor) -> dict:
        record = parse_example(serialized, [text.field for text in features.texts])
        parsed = _labels_and_weight(record, features)
        if not record_weights:
            parsed["weight"] = tf.constant(1.0)
        parsed["texts"] = {text.key: _text_or_empty(record[TEXT_PREFIX + text.field], text_index) for text in features.texts}
        if features.image:
            parsed[IMAGE] = _stored_image(record["image"], features.image)
            parsed[present(IMAGE)] = tf.strings.length(record["image"]) > 0
        return parsed

    own_size = batch_size // worker.count
    own_files = files_of(worker, split.shards, num_examples, most=steps * own_size)
    records = tf.data.TFRecordDataset([str(split.dataset.folder / shard.file) for shard in own_files or split.shards])
    records = _drop_unlabelled(records, split)
    if own_files:
        num_own = sum(shard.num_examples for shard in own_files)
    else:
        records, num_own = records.shard(worker.count, worker.index), len(range(worker.index, num_examples, worker.count))
    dataset = promised(records, num_own).map(parse, num_parallel_calls=_CALLS)
    empty = tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), dataset.element_spec)  # weight 0 too
    filling = tf.data.Dataset.from_tensors(empty).repeat(steps * own_size - num_own)
    dataset = dataset.concatenate(filling).batch(own_size, drop_remainder=True)
    return Batches(_finished(dataset, preprocessor, features, steps), steps, num_examples, batch_size)


def make_image_batches(files: Sequence[Path], features: FeatureSpec, batch_size: int, num_examples: int) -> tf.data.Dataset:
    """The pictures of the `num_examples` labelled records in some shards, in their order and as evaluation sees them.

    Each batch is float32 [up to batch_size, H, W, 3]; a record without a picture has zeros. More or fewer than
    `num_examples` labelled records are an error, see `naming_damage`.
    """
    records = tf.data.TFRecordDataset([str(file) for file in files])
    if not features.multi_label:
        records = records.filter(_is_labelled)

    @_unconverted
    def pixels(serialized: tf.Tensor) -> tf.Tensor:
        return _stored_image(parse_example(serialized, [])["image"], features.image)

    return _not_autotuned(promised(records, num_examples).map(pixels, num_parallel_calls=_CALLS).batch(batch_size).prefetch(2))


def iter_texts(split: Split, fields: list[str], max_examples: int = 200_000) -> Iterator[list[bytes]]:
    """Yields the texts of all `fields` of a split in common batches, to make a vocabulary of them."""
    _check_fields(split.dataset, fields)
    split.check_files()
    records = tf.data.TFRecordDataset([str(file) for file in split.files]).take(max_examples)
    records = promised(records, min(max_examples, split.num_examples))
    texts = records.map(functools.partial(_all_texts, fields=fields), num_parallel_calls=_CALLS)
    with naming_damage(split):
        for batch in _not_autotuned(texts.unbatch().batch(1024)).as_numpy_iterator():
            end_if_asked()
            yield batch.tolist()


@_unconverted
def _record_id(index: tf.Tensor, serialized: tf.Tensor) -> tf.Tensor:
    del index
    return parse_example(serialized, [])["id"]


@_unconverted
def _all_texts(serialized: tf.Tensor, fields: list[str]) -> tf.Tensor:
    record = parse_example(serialized, fields)
    return tf.concat([value for key, value in record.items() if key.startswith(TEXT_PREFIX)], axis=0)


def _labels_and_weight(record: dict[str, tf.Tensor], features: FeatureSpec) -> dict[str, tf.Tensor]:
    ids = record["label_ids"]
    if features.multi_label:
        ones = tf.ones_like(ids, tf.float32)
        label = tf.minimum(tf.scatter_nd(ids[:, tf.newaxis], ones, [len(features.labels)]), 1.0)
    else:
        label = tf.cast(ids[0], tf.int32)
    return {"label": label, "weight": record["weight"]}


def _stored_image(
    data: tf.Tensor, spec: ImageSpec, seed: tf.Tensor | None = None, augmentation: Augmentation | None = None
) -> tf.Tensor:
    """The image of a record as float32 [*spec.size, 3], as `fit_stored` makes it, or augmented."""
    if augmentation is None:
        return made_or_zeros(data, spec.size, lambda: fit_stored(data, spec))
    return made_or_zeros(data, spec.size, lambda: augmented_image(data, spec, seed, augmentation))


def _text_or_empty(texts: tf.Tensor, index) -> tf.Tensor:
    return tf.cond(tf.size(texts) > 0, lambda: texts[index % tf.size(texts)], lambda: tf.constant(b""))


def _finished(
    dataset: tf.data.Dataset,
    preprocessor: Preprocessor,
    features: FeatureSpec,
    steps: int,
    augmented: Callable[..., tuple] | None = None,
) -> tf.data.Dataset:
    """Turns batches of parsed records into `(features, labels, weights)`; `augmented`, if given, is applied last."""

    @_unconverted
    def finish(raw: dict):
        inputs = preprocessor.texts(raw["texts"])
        if features.image:
            inputs |= {IMAGE: raw[IMAGE], present(IMAGE): raw[present(IMAGE)]}
        batch = (inputs, raw["label"], raw["weight"])
        return augmented(raw["index"], *batch) if augmented else batch

    dataset = dataset.map(finish, num_parallel_calls=min(4, _CALLS))  # each call holds a batch of pixels
    return _not_autotuned(dataset.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2))


def _not_autotuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Switches autotuning off.

    With autotuning, one of four passes waited at its end for the tuner's thread, for as long as the pass itself had taken.
    Decoding uses all cores already, so that nothing is left to tune.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


@_unconverted
def _is_labelled(serialized: tf.Tensor) -> tf.Tensor:
    return tf.size(parse_example(serialized, [])["label_ids"]) > 0


def _drop_unlabelled(records: tf.data.Dataset, split: Split) -> tf.data.Dataset:
    if split.num_labelled == split.num_examples:
        return records
    return records.filter(_is_labelled)


def _check(dataset: Dataset, features: FeatureSpec) -> None:
    info = dataset.info
    _check_fields(dataset, [text.field for text in features.texts])
    names = tuple(info.labels.names)
    # A model to which classes were added after training has the dataset's labels first, with the same ids.
    if not names or names != features.labels[: len(names)] or info.multi_label != features.multi_label:
        kinds = {True: "multi-label", False: "multi-class"}
        raise ValueError(
            f"dataset {dataset.folder} has {len(info.labels)} {kinds[info.multi_label]} labels {info.labels.names[:5]}…, the "
            f"model {len(features.labels)} {kinds[features.multi_label]} labels {list(features.labels[:5])}…; pack the dataset "
            "with the model's labels: tfrecords-tools pack … --labels=<labels.txt of the training data>"
        )


def _check_fields(dataset: Dataset, fields: list[str]) -> None:
    known = dataset.info.text_fields
    missing = [field for field in fields if field not in known]
    if missing:
        raise ValueError(f"dataset {dataset.folder} has no text field {missing[0]!r}; it has {sorted(known)}")
