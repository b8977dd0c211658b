"""One training, from a dataset folder to a run folder: prepare, build, fit, keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import keras
from absl import logging

from mm_keras.configurable import NonNegativeFloat, NonNegativeInt, PositiveInt, configurable
from mm_keras.data.augment import Augmentation
from mm_keras.data.damage import naming_damage
from mm_keras.data.make_features import make_features
from mm_keras.data.pipeline import count_steps
from mm_keras.data.sampling import Sampling
from mm_keras.distribution.preemption import end_if_asked
from mm_keras.features import FeatureSpec
from mm_keras.model.two_tower import build_two_tower
from mm_keras.objectives.losses import make_loss
from mm_keras.objectives.metrics import make_metrics
from mm_keras.runs.class_embeddings import ClassEmbeddings
from mm_keras.runs.run_folder import SavedConfig
from mm_keras.training.build import Built, build
from mm_keras.training.checkpoint import check_room, load_latest, prune
from mm_keras.training.fit import fit, make_uncached_batches
from mm_keras.training.keep import keep, keep_solved, start_run
from mm_keras.training.optimizer import make_optimizer
from mm_keras.training.prepare import Prepared, prepare
from mm_keras.training.request import Request
from mm_keras.training.solve_head import solve_head, why_not_solved
from mm_keras.training.training_setup import check_setup, describe_features, describe_training
from tfrecords_tools.dataset.folder import Dataset


@configurable
def train(
    dataset: str | Path | Dataset,
    workdir: str | Path,
    make_features: Callable[..., FeatureSpec] = make_features,
    build_model: Callable[..., keras.Model] = build_two_tower,
    make_optimizer: Callable[[int, keras.Model], keras.optimizers.Optimizer] = make_optimizer,
    make_loss: Callable[..., keras.losses.Loss] = make_loss,
    make_metrics: Callable[..., list[keras.metrics.Metric]] = make_metrics,
    embed_classes: Callable[..., ClassEmbeddings] | None = None,
    solver: Literal["auto", "gradient", "solved"] = "auto",
    epochs: PositiveInt = 10,
    batch_size: PositiveInt = 64,
    train_split: str = "train",
    val_split: str | None = "val",
    augment: bool | Augmentation = True,
    sampling: Sampling | None = None,
    cache_frozen: bool | Literal["towers", "cut"] = True,
    auxiliary_weight: NonNegativeFloat = 0.0,
    seed: NonNegativeInt = 0,
    strategy: str = "auto",
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32",
    modalities: Sequence[str] | None = None,
    patience: PositiveInt | None = None,
    minutes: NonNegativeFloat | None = None,
    checkpoint_minutes: NonNegativeFloat = 10,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    later_splits: Sequence[str | tuple[str, str]] = (),
    later_baselines: Sequence[str] = (),
    config: SavedConfig | None = None,
) -> keras.Model:
    """Trains a model on a dataset and leaves a run folder.

    Args:
        dataset: the dataset, or its folder.
        workdir: the run folder to make; of several workers, the chief alone writes there.
        make_features: `(dataset, train_split=) -> FeatureSpec`: what the model takes in.
        build_model: `(FeatureSpec) -> model` with logits; with `embed_classes` it also gets `class_embeddings`.
        make_optimizer: `(total_steps, model) -> optimizer` for the part of the model that is trained.
        make_loss: `(multi_label, label_counts) -> loss`, with the label counts of the training split; see `losses`.
        make_metrics: `(multi_label, num_labels) -> metrics` that follow the training; the first one decides on the best epoch.
        embed_classes: `(dataset) -> ClassEmbeddings`, for `build_class_embedding_head`. Its encoder is kept with the run.
        solver: "solved" solves the head above frozen encoders (`mm_keras.solving`), "gradient" trains, "auto" solves if it can.
        epochs: number of passes over the training split, at least 1.
        batch_size: global batch size, over all replicas; at least 1, and a multiple of their number.
        train_split: the split to learn from; its labelled examples are used.
        val_split: decides on the best epoch, which is kept, and on multi-label thresholds; calibrates a head that is solved.
            None: the last epoch is kept.
        augment: the result of `make_augmentation`; True crops and mirrors training images at random; False changes nothing.
        sampling: the result of `make_sampling`: how often classes and other datasets are shown. None: each example once.
        cache_frozen: whether outputs of frozen encoders are computed once an example, where nothing is augmented. "cut" also
            keeps the activations behind the frozen part of a tower, "towers" does not; see `choose_cached`.
        auxiliary_weight: the weight of the losses of heads that teach each modality alone; see `AuxiliaryTraining`.
        seed: the seed of the initial weights, the order of examples, augmentation and dropout.
        strategy: a name for `make_strategy`.
        precision: the dtype policy: "float32"; "mixed_bfloat16", for TPUs and newer GPUs; "mixed_float16", with a scaled loss.
        modalities: show the model only these modalities of the features, which makes a baseline.
        patience: epochs in a row without a better first metric on `val_split` after which the training stops; None: never.
        minutes: after so many minutes of this call, a training by gradient ends with its best epoch; None: there is no limit.
        checkpoint_minutes: minutes between two checkpoints within an epoch, at least 0. Each epoch ends with one, too.
        resume: go on with the run that is in the folder; it ends as if it had never stopped. If there is none, begin one.
        overwrite: delete a run that is already in the folder.
        dry_run: build data and model, run one batch through it, print shapes and sizes, and stop.
        later_splits: splits, of the dataset or (folder, name) of another one, without which a training does not begin.
        later_baselines: modalities that are trained alone afterwards, which has to be possible.
        config: the config that the training comes from, to be kept in the run folder.

    Returns: the model, with the weights that were kept.
    Raises:
        FileExistsError: if a run in the folder is neither to be resumed nor overwritten.
        CheckpointError: if the run to resume has another model, configuration or dataset, or no checkpoint that is whole.
        DamagedFileError: if another file of that run is not what was written.
        OSError: if the folder cannot be written to, or its disk is too small.
        NotFiniteError: if the loss or a weight becomes NaN or infinite.
        Preempted: if the process was asked to end (SIGTERM), once the training is saved.

    Example: `model = train("data/products", "runs/products", epochs=5)`.
    """
    return _train(Request(**locals()))


def _train(request: Request) -> keras.Model:
    prepared = prepare(request)
    end_if_asked()
    built = build(prepared)
    end_if_asked()
    _print_summary(prepared, built)
    solved = _is_solved(prepared, built)
    if not solved:
        count_steps(prepared.train, prepared.features, request.batch_size, prepared.sampled)
    if request.dry_run:
        return _try_one_batch(prepared, built)
    run, setup = prepared.run, _describe_setup(prepared, built) | {"solver": "solved" if solved else "gradient"}
    checkpoint = None
    if prepared.resumes:
        check_setup(run.setup, setup)
        if run.facts().get("finished"):
            logging.info(f"the run in {run.path} is finished, there is nothing to resume; --overwrite trains it anew")
            prune(run.checkpoints, kept=0)
            return run.load_model()[0]
        checkpoint = None if solved else load_latest(run.checkpoints)
    if solved:
        start_run(prepared, built, setup)
        return keep_solved(prepared, built, solve_head(prepared, built))
    check_room(run.checkpoints, built.model, built.trained)
    if checkpoint:
        logging.info(f"going on after step {checkpoint.step:,}, from {checkpoint.path}")
    else:
        start_run(prepared, built, setup)
    return keep(prepared, built, fit(prepared, built, setup, checkpoint))


def _is_solved(prepared: Prepared, built: Built) -> bool:
    """Whether the head is solved; raises ValueError if that is asked for and impossible."""
    if prepared.request.solver == "gradient":
        return False
    reason = why_not_solved(prepared, built)
    if reason and prepared.request.solver == "solved":
        raise ValueError(f"train.solver = 'solved' is not possible: {reason}. Bind 'auto' or 'gradient'")
    return not reason


def _print_summary(prepared: Prepared, built: Built) -> None:
    """Prints what will be trained on what."""
    features, batch_size, model = prepared.features, prepared.request.batch_size, built.model
    logging.info(f"{prepared.steps * batch_size:,} training examples an epoch, {prepared.steps} steps of {batch_size}")
    logging.info(f"{len(features.labels)} labels, {'multi-label' if features.multi_label else 'multi-class'}")
    for name, (shape, dtype) in features.inputs().items():
        logging.info(f"  {name:<28} {dtype:<8} {[batch_size, *shape]}")
    for text in features.texts:
        if text.key != text.field:
            logging.info(f"  {text.key} is the text field {text.field!r}")
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    replicas = prepared.strategy.num_replicas_in_sync
    logging.info(f"{model.count_params():,} parameters, {trainable:,} trainable; {replicas} replica(s)")
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            logging.info(f"  {layer.name:<28} {layer.count_params():>12,}")
    if built.cached:
        logging.info(f"frozen encoders run once an example, and once a text: {', '.join(built.cached)}")


def _try_one_batch(prepared: Prepared, built: Built) -> keras.Model:
    with naming_damage(prepared.train):
        inputs, labels, weights = next(iter(make_uncached_batches(prepared)().dataset))
    loss = built.loss(labels, built.model(inputs), weights)
    logging.info(f"one batch: loss {float(loss):.4f}; dry run: stopping here")
    return built.model


def _describe_setup(prepared: Prepared, built: Built) -> dict[str, object]:
    """All that a resumed training must share with this one."""
    request = prepared.request
    settings = {
        "features": describe_features(prepared.features),
        "epochs": request.epochs,
        "batch_size": request.batch_size,
        "augment": request.augment,
        "seed": request.seed,
        "patience": request.patience,
    }
    if request.sampling:
        settings["sampling"] = request.sampling.describe(prepared.train.name)
    splits = (prepared.train, prepared.val) if prepared.val else (prepared.train,)
    return describe_training(built.model, built.trained, splits, **settings)
