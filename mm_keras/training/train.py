"""Trains a model and leaves a run folder behind."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import google_crc32c
import keras
import tensorflow as tf

import mm_keras
from mm_keras.data.augment import Augmentation
from mm_keras.data.feature_cache import FeatureCache
from mm_keras.data.make_features import make_features
from mm_keras.data.pipeline import count_labelled, count_steps, make_evaluation_batches, make_training_batches
from mm_keras.data.sampling import SampledRecords, Sampling, check_runs
from mm_keras.distribution.multi_worker import check_same, own_folder, this_worker
from mm_keras.distribution.strategy import build_for_replicas, make_strategy
from mm_keras.features import FeatureSpec
from mm_keras.model.frozen import frozen_modalities, split_at_frozen
from mm_keras.model.two_tower import build_two_tower
from mm_keras.objectives.losses import make_loss
from mm_keras.objectives.metrics import make_metrics
from mm_keras.runs.class_embeddings import ClassEmbeddings
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.thresholds import tune_thresholds
from mm_keras.training.cache_choice import choose_cached
from mm_keras.training.checkpoint import check_room, load_latest, prune, replacing
from mm_keras.training.checkpoint_callbacks import KeepBest
from mm_keras.training.fit import fit
from mm_keras.training.input_wait import InputWait
from mm_keras.training.optimizer import make_optimizer
from mm_keras.training.optimizer_callbacks import make_optimizer_callbacks
from mm_keras.training.precision import LossScale, using_precision
from mm_keras.training.progress import Progress
from mm_keras.training.training_setup import check_setup, describe_features, describe_training, save_setup
from tfrecords_tools.dataset.info import DatasetInfo


def train(
    dataset: str,
    workdir: str | Path,
    make_features: Callable[..., FeatureSpec] = make_features,
    build_model: Callable[[FeatureSpec], keras.Model] = build_two_tower,
    make_optimizer: Callable[[int, keras.Model], keras.optimizers.Optimizer] = make_optimizer,
    make_loss: Callable[..., keras.losses.Loss] = make_loss,
    make_metrics: Callable[..., list[keras.metrics.Metric]] = make_metrics,
    embed_classes: Callable[[str], ClassEmbeddings] | None = None,
    epochs: int = 10,
    batch_size: int = 64,
    train_split: str = "train",
    val_split: str | None = "val",
    augment: bool | Augmentation = True,
    sampling: Sampling | None = None,
    cache_frozen: bool | str = True,
    auxiliary_weight: float = 0.0,
    seed: int = 0,
    strategy: str = "auto",
    precision: str = "float32",
    modalities: Sequence[str] | None = None,
    patience: int | None = None,
    checkpoint_minutes: float = 10,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    on_start: Callable[[Path], None] | None = None,
) -> keras.Model:
    """Trains on a dataset folder; everything is built and compiled inside the strategy's scope.

    Args:
        dataset: the dataset folder.
        workdir: the run folder to make; of several workers, the chief alone writes there.
        make_features: `(dataset, train_split=) -> FeatureSpec`: what the model sees.
        build_model: `(FeatureSpec) -> model` with logits; with `embed_classes` it also gets `class_embeddings`.
        make_optimizer: `(total_steps, model) -> optimizer`, of the part that is trained.
        make_loss: `(multi_label, label_counts) -> loss`, the counts of the training split; see `losses`.
        make_metrics: `(multi_label, num_labels) -> metrics` to follow the training with; the first one tells which epoch is
            the best.
        embed_classes: `(dataset) -> ClassEmbeddings`, for `build_class_embedding_head`. Its encoder stays with the run, so that
            classes can be added to it.
        epochs: passes over the training split.
        batch_size: global, of all replicas together.
        train_split: its labelled examples are learned from.
        val_split: measured after every epoch; the epoch that is best on it is kept, and for multi-label data its thresholds
            are tuned on it. None: the last epoch is kept.
        sampling: what `make_sampling` says: how often classes and other datasets are shown. None: each example once an epoch.
        augment: what `make_augmentation` says; True: crop and mirror the training images at random; False: nothing.
        cache_frozen: compute what frozen encoders make of each example once, keep it beside the dataset and train the rest on
            it, wherever that gives the same: nothing is augmented. False: never. Of a tower that is frozen in part, "towers"
            keeps nothing, "cut" what its frozen part gives, and True that where it saves time, see `choose_cached`.
        auxiliary_weight: how much the loss of a linear head on each single modality counts beside the model's own, at least 0;
            with it every tower learns to tell the classes apart alone, however strong another is. Such heads end with the
            training.
        seed: of initial weights, order, augmentation and dropout.
        strategy: see `make_strategy`.
        precision: in which layers compute: "float32"; "mixed_bfloat16", for TPUs and newer GPUs; "mixed_float16", for GPUs,
            with the loss scaled so that small gradients survive.
        modalities: let the model see only these of the features (a baseline).
        patience: epochs in a row without a better first metric on `val_split`, after which the training stops; None: it goes on
            to the last epoch.
        checkpoint_minutes: between checkpoints within an epoch, at least 0; there is one at the end of each epoch, too.
        resume: go on with the run that is in the folder; it ends as if it had never stopped. If there is none, begin one.
        overwrite: delete a run that is already in the folder.
        dry_run: build data and model, run one batch through it, print shapes and sizes, and stop.
        on_start: called with the run folder once it is made; the command line saves its config there.

    Returns:
        the model, with the weights that were kept.

    Raises:
        FileExistsError: if there is a run in the folder that is neither to be resumed nor overwritten.
        CheckpointError: if the run that shall be resumed is of another model, configuration or dataset.
        OSError: if the folder can not be written to, or checkpoints do not fit on its disk.
        NotFiniteError: if the loss or a weight becomes NaN or infinite.
        Preempted: if the process was asked to end (SIGTERM), once that is saved.
    """
    if resume and (overwrite or dry_run):
        raise ValueError(f"a run is either resumed or {'overwritten' if overwrite else 'tried'}; leave one of the two out")
    scope, worker = make_strategy(strategy), this_worker()
    if batch_size % scope.num_replicas_in_sync:
        raise ValueError(
            f"batch_size is a multiple of the replicas, {scope.num_replicas_in_sync}, that have equal parts of it. Received: "
            f"batch_size={batch_size}"
        )
    run = RunFolder(own_folder(workdir, resume))
    if resume:
        resume, overwrite = run.can_resume(), True  # what is there without that was cut off before its first step
    elif not dry_run:
        run.check_free(overwrite)
    keras.utils.set_random_seed(seed)
    features = make_features(dataset, train_split=train_split)
    if modalities is not None:
        features = features.only(modalities)
    info = DatasetInfo.load(dataset)
    splits = sorted(info.splits)
    if val_split and val_split not in splits:
        raise ValueError(
            f"dataset {dataset} has no split {val_split!r}; it has {splits}: set train.val_split to one of them, or to None "
            "to keep the last epoch"
        )
    if patience is not None and (patience < 1 or not val_split):
        raise ValueError(
            f"patience is a number of epochs, at least 1, without a better metric on val_split. Received: patience={patience}, "
            f"val_split={val_split!r}"
        )
    sampled = SampledRecords(dataset, train_split, sampling, [text.field for text in features.texts]) if sampling else None
    make_batches = functools.partial(
        make_training_batches,
        *(dataset, train_split, features, batch_size, epochs, seed, augment),
        worker=worker,
        sampled=sampled,
    )
    steps = count_steps(dataset, train_split, features, batch_size, sampled)
    if val_split:
        count_labelled(dataset, val_split, features)
    classes = embed_classes(dataset) if embed_classes else None
    with scope.scope(), using_precision(precision):
        model = build_model(features, class_embeddings=classes.values) if classes else build_model(features)
        cache_frozen = cache_frozen and not (sampling and sampling.mix)  # a cache is of one dataset
        cached = choose_cached(model, features, augment, cache_frozen, steps * batch_size)
        text_runs = sampling.text_runs if sampling else 1
        check_runs(text_runs, features, cached, batch_size, scope.num_replicas_in_sync, worker, augment)
        encoders, trained = {}, model
        if cached or auxiliary_weight or text_runs > 1:
            encoders, trained = split_at_frozen(model, features, cached, auxiliary_weight, text_runs)
        metrics = make_metrics(features.multi_label, len(features.labels))
        loss = make_loss(features.multi_label, info.label_counts(train_split))
        optimizer = make_optimizer(steps * epochs, trained)
        trained.compile(
            LossScale(optimizer) if precision == "mixed_float16" else optimizer,
            loss,
            weighted_metrics=metrics,
            jit_compile=False,  # XLA makes depthwise convolutions 18 times slower on CPUs
        )
    _describe(model, features, steps, batch_size, scope, cached)
    if dry_run:
        inputs, labels, weights = next(iter(make_batches().dataset))
        print(f"one batch: loss {float(loss(labels, model(inputs), weights)):.4f}; dry run: stopping here")
        return model
    setup = describe_training(
        model,
        trained,
        dataset,
        (train_split, val_split) if val_split else (train_split,),
        features=describe_features(features),
        epochs=epochs,
        batch_size=batch_size,
        augment=augment,
        seed=seed,
        patience=patience,
        **({"sampling": sampling.describe(train_split)} if sampling else {}),
    )
    checkpoint = None
    if resume:
        check_setup(run.setup, setup)
        if run.facts().get("finished"):
            print(f"the run in {run.path} is finished, there is nothing to resume; --overwrite trains it anew")
            prune(run.checkpoints, kept=0)
            return run.load_model()[0]
        checkpoint = load_latest(run.checkpoints)
    if checkpoint:
        print(f"going on after step {checkpoint.step:,}, from {checkpoint.path}")
    else:
        run.start(overwrite)
        features.save(run.path)
        if classes:
            classes.save(run.class_encoder)
        if on_start:
            on_start(run.path)
    del classes  # its encoder is not needed in training
    facts = {
        "dataset": str(Path(dataset).absolute()),
        "train_split": train_split,
        "modalities": features.modalities,
        "seed": seed,
        "epochs": epochs,
        "batch_size": batch_size,
        "replicas": scope.num_replicas_in_sync,
        "precision": precision,
        "frozen": frozen_modalities(model, features),
        "followed": f"val_{metrics[0].name}" if val_split else None,
        "parameters": model.count_params(),
        "weight_bytes": sum(math.prod(weight.shape) * tf.as_dtype(weight.dtype).size for weight in model.weights),
        "versions": {"mm_keras": mm_keras.__version__, "keras": keras.__version__, "tensorflow": tf.__version__},
    }
    run.save_facts(**facts)
    if not checkpoint:
        save_setup(run.setup, setup)
    check_room(run.checkpoints, model, trained)
    validation = None
    if cached:
        inputs = list(trained.input)
        make_batches = FeatureCache(dataset, train_split, features, encoders, inputs).training_batches
        make_batches = functools.partial(make_batches, batch_size, epochs, seed, worker=worker, sampled=sampled)
        if val_split:
            validation = FeatureCache(dataset, val_split, features, encoders, inputs).evaluation_batches(batch_size, worker)
    elif val_split:
        validation = make_evaluation_batches(dataset, val_split, features, batch_size, worker=worker)
    check_same(training=google_crc32c.value(json.dumps(setup).encode()), step=checkpoint.step if checkpoint else 0)
    build_for_replicas(trained, make_batches().dataset)
    # Of cached features, the clock would take longer than the waiting; on several replicas, it would not see it.
    wait = InputWait() if not cached and scope.num_replicas_in_sync == 1 else None
    progress = Progress(run.metrics, epochs, steps, batch_size, wait and (lambda: wait.seconds))
    callbacks = [progress, _TensorBoard(run.tensorboard, write_graph=False)]
    kept = run.best if trained is model else run.best.with_name("best_trained_part.weights.h5")
    followed = {"monitor": f"val_{metrics[0].name}", "mode": "max"} if validation else {"monitor": "loss", "mode": "min"}
    best = KeepBest(kept, followed["monitor"], patience) if validation else None
    callbacks += make_optimizer_callbacks(optimizer, **followed, checkpoint=best)
    remembering = {"progress": progress} | ({"best": best} if best else {})
    fit(
        trained,
        make_batches,
        validation,
        epochs,
        callbacks,
        remembering,
        run.checkpoints,
        checkpoint_minutes,
        checkpoint,
        wait.watched if wait else lambda batches: batches,
    )
    print(progress.summary())
    if validation:
        trained.load_weights(kept)
    if not worker.is_chief:
        return model
    if not validation or trained is not model:
        with replacing(run.best) as temporary:
            model.save(temporary)
    if validation and features.multi_label:
        tune_thresholds(run.path, dataset, val_split, batch_size)
    run.save_facts(**facts, finished=True, seconds=progress.seconds())
    if trained is not model:
        kept.unlink(missing_ok=True)
    prune(run.checkpoints, kept=0)
    return model


class _TensorBoard(keras.callbacks.TensorBoard):
    """Leaves the validation loss out: Keras averages it over batches, the filled-up last one among them."""

    def on_test_end(self, logs=None):
        super().on_test_end({name: value for name, value in (logs or {}).items() if name != "loss"})

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, {name: value for name, value in (logs or {}).items() if name != "val_loss"})


def _describe(
    model: keras.Model,
    features: FeatureSpec,
    steps: int,
    batch_size: int,
    scope: tf.distribute.Strategy,
    cached: tuple[str, ...],
) -> None:
    """Prints what will be trained on what."""
    print(f"{steps * batch_size:,} training examples an epoch, {steps} steps of {batch_size}")
    print(f"{len(features.labels)} labels, {'multi-label' if features.multi_label else 'multi-class'}")
    for name, (shape, dtype) in features.inputs().items():
        print(f"  {name:<28} {dtype:<8} {[batch_size, *shape]}")
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    print(f"{model.count_params():,} parameters, {trainable:,} trainable; {scope.num_replicas_in_sync} replica(s)")
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            print(f"  {layer.name:<28} {layer.count_params():>12,}")
    if cached:
        print(f"frozen encoders run once an example, and once a text: {', '.join(cached)}")
