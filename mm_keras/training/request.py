"""What a training was asked for, and the checks of it that need no data and no model."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mm_keras.data.augment import Augmentation
from mm_keras.data.sampling import Sampling
from mm_keras.features import FeatureSpec
from mm_keras.runs.run_folder import SavedConfig
from tfrecords_tools.dataset.folder import Dataset, Split


@dataclasses.dataclass(frozen=True)
class Request:
    """The arguments of `train`, which documents them, and when it was called."""

    dataset: str | Path | Dataset
    workdir: str | Path
    make_features: Callable
    build_model: Callable
    make_optimizer: Callable
    make_loss: Callable
    make_metrics: Callable
    embed_classes: Callable | None
    solver: str
    epochs: int
    batch_size: int
    train_split: str
    val_split: str | None
    augment: bool | Augmentation
    sampling: Sampling | None
    cache_frozen: bool | str
    auxiliary_weight: float
    seed: int
    strategy: str
    precision: str
    modalities: Sequence[str] | None
    patience: int | None
    minutes: float | None
    checkpoint_minutes: float
    resume: bool
    overwrite: bool
    dry_run: bool
    later_splits: Sequence[str | tuple[str, str]]
    later_baselines: Sequence[str]
    config: SavedConfig | None
    began: float = dataclasses.field(default_factory=time.monotonic)

    def check(self, replicas: int) -> None:
        """Checks what needs no data.

        Args:
            replicas: the number of replicas that train together.

        Raises:
            ValueError: if two options contradict each other, or a value is out of its range.
        """
        if self.resume and (self.overwrite or self.dry_run):
            other = "overwritten" if self.overwrite else "tried"
            raise ValueError(f"a run is either resumed or {other}; leave one of the two out")
        if self.batch_size % replicas:
            raise ValueError(
                f"batch_size is a multiple of the replicas, {replicas}, that have equal parts of it. Received: "
                f"batch_size={self.batch_size}"
            )
        if self.patience is not None and (self.patience < 1 or not self.val_split):
            raise ValueError(
                "patience is a number of epochs, at least 1, without a better metric on val_split. Received: "
                f"patience={self.patience}, val_split={self.val_split!r}"
            )

    def open_splits(self) -> tuple[Split, Split | None, list[Split]]:
        """Opens the dataset and checks that it has all splits that the training and what follows it will read.

        Returns:
            (training split, validation split if any, the splits that are needed once the model is trained).

        Raises:
            FileNotFoundError: if there is no dataset.
            ValueError: if the dataset lacks one of the splits; the message says which parameter names it.
        """
        dataset = Dataset.open(self.dataset)
        advice = {
            "train_split": "set train.train_split to one of them",
            "val_split": "set train.val_split to one of them, or to None to keep the last epoch",
            "later_splits": "evaluation and export read it after the training: set evaluate.split and export.split to one of "
            "them, or train_and_evaluate.evaluate and train_and_evaluate.export to None",
        }
        later = [(dataset, name) if isinstance(name, str) else (Dataset.open(name[0]), name[1]) for name in self.later_splits]
        required = [("train_split", dataset, self.train_split)]
        required += [("val_split", dataset, self.val_split)] if self.val_split else []
        required += [("later_splits", *split) for split in later]
        for parameter, owner, name in required:
            if name not in owner.info.splits:
                raise ValueError(
                    f"dataset {owner.folder} has no split {name!r}; it has {sorted(owner.info.splits)}: {advice[parameter]}"
                )
        val = dataset.split(self.val_split) if self.val_split else None
        return dataset.split(self.train_split), val, [owner.split(name) for owner, name in later]

    def check_baselines(self, features: FeatureSpec) -> None:
        """Checks that the baselines that follow can be trained.

        Raises:
            ValueError: for a baseline of something that the model does not see, or one that is named twice.
        """
        for name in self.later_baselines:
            if name not in features.modalities or self.later_baselines.count(name) > 1:
                why = "which is named twice" if name in features.modalities else "which is no input of the model"
                raise ValueError(
                    f"train_and_evaluate.baselines has {name!r}, {why}; its inputs are {list(features.modalities)}"
                )
