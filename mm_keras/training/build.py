"""The second step of a training: builds the model in the strategy's scope, and compiles the part of it that is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import keras

from mm_keras.data.sampling import check_runs
from mm_keras.model.frozen import split_at_frozen
from mm_keras.runs.class_embeddings import ClassEmbeddings
from mm_keras.training.cache_choice import choose_cached
from mm_keras.training.precision import LossScale, using_precision
from mm_keras.training.prepare import Prepared


@dataclasses.dataclass(frozen=True)
class Built:
    """The model of a training.

    Attributes:
        model: the whole model, with logits.
        trained: the compiled part that is trained: the model itself, or what follows the encoders that run only once.
        cached: the modalities whose frozen encoders run only once an example.
        encoders: these encoders, by modality.
        optimizer: the optimizer of `trained`; with float16, `trained` holds it inside of a loss scale.
        loss: the loss of `trained`.
        metrics: followed in training; the first one tells which epoch is the best.
        classes: the embeddings of the classes, for a head that compares with them.
    """

    model: keras.Model
    trained: keras.Model
    cached: tuple[str, ...]
    encoders: Mapping[str, keras.Model]
    optimizer: keras.optimizers.Optimizer
    loss: keras.losses.Loss
    metrics: list[keras.metrics.Metric]
    classes: ClassEmbeddings | None


def build(prepared: Prepared) -> Built:
    """Builds and compiles the model of a training.

    Raises:
        ValueError: if the parts of the model do not fit each other, or options ask for what the model cannot do.
    """
    request, features = prepared.request, prepared.features
    classes = request.embed_classes(prepared.train.dataset) if request.embed_classes else None
    with prepared.strategy.scope(), using_precision(request.precision):
        model = request.build_model(features, class_embeddings=classes.values) if classes else request.build_model(features)
        cached = _choose_cached(prepared, model)
        encoders, trained = _cut(prepared, model, cached)
        metrics = request.make_metrics(features.multi_label, len(features.labels))
        loss = request.make_loss(features.multi_label, prepared.train.label_counts)
        optimizer = request.make_optimizer(prepared.steps * request.epochs, trained)
        trained.compile(
            LossScale(optimizer) if request.precision == "mixed_float16" else optimizer,
            loss,
            weighted_metrics=metrics,
            jit_compile=False,  # XLA makes depthwise convolutions 18 times slower on CPUs
        )
    return Built(model, trained, cached, encoders, optimizer, loss, metrics, classes)


def _choose_cached(prepared: Prepared, model: keras.Model) -> tuple[str, ...]:
    request = prepared.request
    several_datasets = bool(request.sampling and request.sampling.mix)  # a cache belongs to one dataset
    cache_frozen = False if several_datasets else request.cache_frozen
    return choose_cached(model, prepared.features, request.augment, cache_frozen, prepared.steps * request.batch_size)


def _cut(prepared: Prepared, model: keras.Model, cached: tuple[str, ...]) -> tuple[Mapping[str, keras.Model], keras.Model]:
    """(the encoders that run only once, the part that is trained)."""
    request = prepared.request
    text_runs = request.sampling.text_runs if request.sampling else 1
    replicas = prepared.strategy.num_replicas_in_sync
    check_runs(text_runs, prepared.features, cached, request.batch_size, replicas, prepared.worker, request.augment)
    if not cached and not request.auxiliary_weight and text_runs == 1:
        return {}, model
    return split_at_frozen(model, prepared.features, cached, request.auxiliary_weight, text_runs)
