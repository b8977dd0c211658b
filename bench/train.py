"""What is computed once instead of in every epoch, and what our training loop costs. One JSON line per measurement.

    python bench/train.py products.csv --label=category --split_column=split --image_weights=mobilenet_v2.weights.h5 \\
        --text_encoder=all-MiniLM-L6-v2

On a table with columns id, image, title and description, with a frozen MobileNetV2 and a frozen sentence encoder:

- epochs: epochs on cached features beside epochs that compute everything, in images/s and with the accuracies that both end
  with; the first epoch with filling the cache beside one without a cache; and what steps wait for their input when they read
  packed records. Targets: 50 times, the same accuracy within its standard error, 1.05 times.
- steps: our trained part in our loop, on cached features, beside a model of the same layers written by hand, without
  presence flags, and Keras' `fit` on the same arrays. Target: 1.03 times.
- texts: filling the text cache beside padding every text to the longest that is kept. Target: 4 times, which takes texts
  that are on average less than a quarter of that.
- runs: steps that train the sentence encoder on batches of runs of eight equal descriptions (`make_sampling.text_runs`),
  encoded once a run, beside the same batches encoded one by one.

Ways take turns; the best run counts. CPU seconds are of this process, and tell more than seconds on a machine that does other
work too. `bench/run.py` measures the whole command.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf
from measure import in_turns, report

from mm_keras.data.encode_once import CACHE_FOLDER, FrozenEncoder, TextPreprocessor, encode_texts, iter_buckets
from mm_keras.data.feature_cache import FeatureCache
from mm_keras.data.make_features import make_features
from mm_keras.data.pipeline import make_evaluation_batches, make_training_batches
from mm_keras.data.preprocess import Preprocessor
from mm_keras.data.text import make_pretrained_tokenizer
from mm_keras.data.text_table import TextTable
from mm_keras.model.frozen import split_at_frozen
from mm_keras.model.image_tower import build_image_tower
from mm_keras.model.lexical_encoder import BagOfTokens, build_lexical_encoder
from mm_keras.model.transformer_encoder import build_transformer_encoder
from mm_keras.model.two_tower import build_two_tower
from mm_keras.objectives.losses import make_loss
from mm_keras.objectives.metrics import make_metrics
from mm_keras.training.fit import fit
from mm_keras.training.input_wait import InputWait
from mm_keras.training.optimizer import make_optimizer
from mm_keras.training.progress import Progress
from tfrecords_tools.dataset.folder import Dataset, Split
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.sources import table

FIELDS = {"title": 32, "description": 128}
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--label", required=True, metavar="COLUMN")
    parser.add_argument("--split_column", metavar="COLUMN", help="with train and test (default: 80 % are drawn for train)")
    parser.add_argument("--image_weights", required=True, metavar="FILE", help="MobileNetV2 without its head, .weights.h5")
    parser.add_argument("--text_encoder", required=True, metavar="FOLDER", help="Hugging Face folder or keras_hub preset")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="epochs,steps,texts,runs", help="which, separated by commas (default: %(default)s)")
    options = parser.parse_args()
    parts = {"epochs": measure_epochs, "steps": measure_steps, "texts": measure_texts, "runs": measure_runs}
    if unknown := set(options.only.split(",")) - set(parts):
        parser.error(f"--only: unknown {sorted(unknown)}; there are {sorted(parts)}")
    with tempfile.TemporaryDirectory() as scratch:
        bench = _Bench(options, Path(scratch))
        for part in options.only.split(","):
            parts[part](bench)


class _Bench:
    """The packed table, and models for it."""

    def __init__(self, options: argparse.Namespace, scratch: Path):
        self.options, self.scratch, self.folder = options, scratch, scratch / "records"
        columns = table.Columns(image="image", text=tuple(FIELDS), label=options.label, id="id", split=options.split_column)
        fractions = {"train": 0.8, "test": 0.2}
        pack(table.make_source([options.table], columns), self.folder, PackOptions(fractions=fractions), progress=False)

    @functools.cached_property
    def features(self):
        return self.make_features(FIELDS)

    def make_features(self, max_tokens: dict[str, int]):
        tokenizer = functools.partial(make_pretrained_tokenizer, source=self.options.text_encoder)
        return make_features(
            self.folder, image_fit="stretch", text_fields=tuple(max_tokens), max_tokens=max_tokens, make_tokenizer=tokenizer
        )

    def build(self) -> keras.Model:
        keras.utils.set_random_seed(SEED)
        return build_two_tower(
            self.features,
            image_tower=functools.partial(
                build_image_tower,
                architecture="mobilenet_v2",
                weights=self.options.image_weights,
                freeze_fraction=1.0,
                pooling="avg_max",
            ),
            text_encoder=functools.partial(build_transformer_encoder, source=self.options.text_encoder),
            lexical_encoder=build_lexical_encoder,
            tune_image=True,
        )

    def compile(self, model: keras.Model, steps: int) -> None:
        metrics = make_metrics(False, len(self.features.labels))
        model.compile(make_optimizer(steps, model), make_loss(False), weighted_metrics=metrics, jit_compile=False)

    def clear_cache(self) -> None:
        shutil.rmtree(self.folder / CACHE_FOLDER, ignore_errors=True)


class _Epochs(keras.callbacks.Callback):
    """Seconds of each epoch."""

    def __init__(self):
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self._began)


def measure_epochs(bench: _Bench) -> None:
    options, folder, features = bench.options, bench.folder, bench.features
    epochs, batch_size = options.epochs, options.batch_size
    seconds, first, accuracies = {}, {}, {}
    test = make_evaluation_batches(Split.open(folder, "test"), features, batch_size)
    for way in ("computed in every epoch", "cached"):
        model, clock, wait = bench.build(), _Epochs(), InputWait()
        trained, validated, filling = model, test, 0.0
        batches = make_training_batches(Split.open(folder, "train"), features, batch_size, epochs, SEED, augment=False)
        dataset = wait.watched(batches.dataset)
        if way == "cached":
            bench.clear_cache()
            encoders, trained = split_at_frozen(model, features, features.modalities)
            began = time.perf_counter()
            batches = FeatureCache(Split.open(folder, "train"), features, encoders, list(trained.input)).training_batches(
                batch_size, epochs, SEED
            )
            filling, dataset = time.perf_counter() - began, batches.dataset
            validated = FeatureCache(Split.open(folder, "test"), features, encoders, list(trained.input)).evaluation_batches(
                batch_size
            )
        bench.compile(trained, batches.steps * epochs)
        trained.fit(dataset, steps_per_epoch=batches.steps, epochs=epochs, verbose=0, callbacks=[clock])
        accuracy = trained.evaluate(validated.dataset, verbose=0, return_dict=True)["top_1"]
        seconds[way] = statistics.median(clock.seconds[1:])
        first[way], accuracies[way] = filling + clock.seconds[0], accuracy
        values = (
            {"input_wait": round(wait.seconds / sum(clock.seconds), 4)} if way != "cached" else {"filling_seconds": filling}
        )
        report(
            "train",
            f"epochs: {way}",
            images_per_second=round(batches.num_examples / seconds[way], 1),
            first_epoch_seconds=round(first[way], 2),
            epochs=epochs,
            accuracy=round(accuracy, 4),
            **{name: round(value, 4) for name, value in values.items()},
        )
    plain = "computed in every epoch"
    error = (accuracies[plain] * (1 - accuracies[plain]) / test.num_examples) ** 0.5
    report(
        "train",
        "epochs: cached",
        ratio_of_images_per_second=round(seconds[plain] / seconds["cached"], 1),
        ratio_of_first_epochs=round(first["cached"] / first[plain], 3),
        difference_of_accuracies=round(accuracies["cached"] - accuracies[plain], 4),
        standard_error=round(error, 4),
    )


def measure_steps(bench: _Bench) -> None:
    options, features = bench.options, bench.features
    encoders, trained = split_at_frozen(bench.build(), features, features.modalities)
    cache = FeatureCache(Split.open(bench.folder, "train"), features, encoders, list(trained.input))
    arrays = cache.inputs(np.arange(len(cache.labels)))
    by_hand = _build_by_hand(trained, len(features.labels))
    given = {name: arrays[name] for name in by_hand.input}
    steps = len(cache.labels) // options.batch_size
    for model in (trained, by_hand):
        bench.compile(model, steps * options.epochs * options.repeats)
    rows = slice(None, steps * options.batch_size)
    given, labels = {name: array[rows] for name, array in given.items()}, cache.labels[rows]

    def ours() -> float:
        clock, folder = _Epochs(), Path(tempfile.mkdtemp(dir=bench.scratch))
        progress = Progress(folder / "metrics.jsonl", options.epochs, steps, options.batch_size)
        make_batches = functools.partial(cache.training_batches, options.batch_size, options.epochs, SEED)
        with open(os.devnull, "w") as nothing:
            out, sys.stdout = sys.stdout, nothing
            try:
                fit(trained, make_batches, None, options.epochs, [clock, progress], {"progress": progress}, folder, 10)
            finally:
                sys.stdout = out
        return statistics.median(clock.seconds[1:])

    def theirs() -> float:
        clock = _Epochs()
        by_hand.fit(given, labels, batch_size=options.batch_size, epochs=options.epochs, verbose=0, callbacks=[clock])
        return statistics.median(clock.seconds[1:])

    ways = {"steps: ours": ours, "steps: a model by hand, fit on arrays": theirs}
    best = in_turns("train", ways, options.repeats)
    for way, model in zip(ways, (trained, by_hand), strict=True):
        report("train", way, milliseconds=round(1000 * best[way] / steps, 3), parameters=model.count_params())
    ours_seconds, hand_seconds = best.values()
    report("train", "steps: ours", ratio_of_step_times=round(ours_seconds / hand_seconds, 3))


def _build_by_hand(trained: keras.Model, num_labels: int) -> keras.Model:
    """The layers of our trained part, as one would write them who has no missing modalities."""
    widths = {name: tensor.shape[-1] for name, tensor in trained.input.items() if name.endswith("_encoded")}
    inputs, parts = {}, []
    for name, width in widths.items():
        inputs[name] = keras.Input((width,), name=name)
        x = keras.layers.Dense(256, use_bias=False)(inputs[name])
        x = keras.layers.Dropout(0.1)(keras.layers.ReLU()(keras.layers.LayerNormalization()(x)))
        parts.append(keras.layers.RMSNormalization()(x))
        field = name.removesuffix("_encoded")
        if field in FIELDS:
            tokens = {
                part: keras.Input(trained.input[f"{field}_{part}"].shape[1:], dtype=dtype, name=f"{field}_{part}")
                for part, dtype in (("token_ids", "int32"), ("padding_mask", "bool"))
            }
            inputs |= {tensor.name: tensor for tensor in tokens.values()}
            parts.append(keras.layers.RMSNormalization()(BagOfTokens(8192)(tokens["token_ids"], tokens["padding_mask"])))
    fused = keras.layers.Dropout(0.1)(keras.layers.Concatenate()(parts))
    return keras.Model(inputs, keras.layers.Dense(num_labels)(fused))


def measure_texts(bench: _Bench) -> None:
    for lengths in (FIELDS, {"description": 128}, {"description": 512}):
        features = bench.make_features(lengths)
        model = build_transformer_encoder(features.texts[0], bench.options.text_encoder)
        encoder = FrozenEncoder(model)
        tables = {spec.field: _texts_of(bench.folder, spec.field) for spec in features.texts}
        made: dict[str, dict[str, np.ndarray]] = {"bucketed": {}, "padded": {}}

        def bucketed(features=features, tables=tables, encoder=encoder, made=made) -> float:
            bench.clear_cache()
            began = time.perf_counter()
            preprocess = TextPreprocessor(features)
            for spec in features.texts:
                rows = encode_texts(Dataset.open(bench.folder), preprocess, spec, encoder, tables[spec.field])["encoded"]
                made["bucketed"][spec.field] = rows.take(np.arange(len(rows)))
            return time.perf_counter() - began

        def padded(features=features, tables=tables, encoder=encoder, made=made) -> float:
            began = time.perf_counter()
            for spec in features.texts:
                texts = tables[spec.field].texts.to_numpy(zero_copy_only=False)
                tokens = Preprocessor(features.only([spec.field])).texts({spec.field: tf.constant(texts)})
                given = {name: tokens[f"{spec.field}_{name}"].numpy() for name in spec.inputs()}
                # All have one length, so that they stay in their order.
                made["padded"][spec.field] = np.concatenate([encoder(batch) for _, batch in iter_buckets(given, fixed=True)])
            return time.perf_counter() - began

        what = "texts: " + ", ".join(f"{field} of {length} tokens" for field, length in lengths.items())
        ways = {f"{what}, bucketed": bucketed, f"{what}, padded": padded}
        best = in_turns("train", ways, bench.options.repeats)
        number = sum(len(table.texts) for table in tables.values())
        differences = [np.abs(made["bucketed"][field] - made["padded"][field])[1:].max() for field in tables]
        for way, seconds in best.items():
            report("train", way, texts=number, texts_per_second=round(number / seconds, 1))
        ours, theirs = best.values()
        difference = float(f"{max(differences):.1e}")
        report("train", f"{what}, bucketed", ratio_of_texts_per_second=round(theirs / ours, 2), largest_difference=difference)


def _texts_of(folder: Path, field: str) -> TextTable:
    return TextTable(pq.read_table(folder / "index", columns=[f"text/{field}"])[f"text/{field}"])


def measure_runs(bench: _Bench, length: int = 8, steps: int = 3) -> None:
    features = bench.make_features({"description": 128}).only(["description"])
    texts = _texts_of(bench.folder, "description").texts.to_numpy(zero_copy_only=False)[
        1 : 1 + bench.options.batch_size // length
    ]
    inputs = Preprocessor(features).texts({"description": tf.constant(np.repeat(texts, length))})
    labels = np.zeros(len(inputs["description_present"]), np.int32)

    def time_of(text_runs: int):
        encoder = functools.partial(build_transformer_encoder, source=bench.options.text_encoder, trainable=True)
        _, model = split_at_frozen(build_two_tower(features, text_encoder=encoder), features, text_runs=text_runs)
        bench.compile(model, 1000)
        model.train_on_batch(inputs, labels)

        def seconds() -> float:
            began = time.perf_counter()
            for _ in range(steps):
                model.train_on_batch(inputs, labels)
            return time.perf_counter() - began

        return seconds

    ways = {"runs: one by one": time_of(1), f"runs: of {length} encoded once": time_of(length)}
    best = in_turns("train", ways, bench.options.repeats)
    for way, seconds in best.items():
        report("train", way, images_per_second=round(steps * len(labels) / seconds, 1))
    plain, once = best.values()
    report("train", f"runs: of {length} encoded once", ratio_of_step_times=round(once / plain, 3))


if __name__ == "__main__":
    main()
