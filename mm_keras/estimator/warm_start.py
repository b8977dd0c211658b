"""Goes on from a run: with more rows, or with more classes. Its encoders, its vocabulary and its classes are taken over."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from mm_keras.config.load import Config
from mm_keras.data.record_index import read_index
from mm_keras.estimator.columns import Columns
from mm_keras.estimator.data import Inputs
from mm_keras.estimator.labels import LabelCodec
from mm_keras.features import FeatureSpec, input_name
from mm_keras.model.frozen import freeze
from mm_keras.model.head import grow_head
from mm_keras.model.two_tower_parts import TwoTowerParts
from mm_keras.runs.predict import Predictor
from mm_keras.runs.run_folder import RunFolder
from tfrecords_tools.dataset.folder import Dataset
from tfrecords_tools.dataset.schema import decode_example
from tfrecords_tools.dataset.shards import read_record

_EXAMPLES = 16  # of a new class, by the answers to which its nearest classes are found


class WarmStart:
    """A run to go on from.

    Args:
        run: its folder.
        inputs: the columns of the new training, which must be inputs of the run.

    Attributes:
        trains_by_gradient: whether its head was trained by gradient, and not solved.

    Raises:
        ValueError: for another set of inputs, or a late fusion.
    """

    def __init__(self, run: RunFolder, inputs: Inputs):
        self._run, self._features = run, FeatureSpec.load(run.path)
        modalities = [*(["image"] if inputs.image else []), *map(input_name, inputs.texts)]
        if set(modalities) != set(self._features.modalities):
            raise ValueError(f"{run.path} sees {list(self._features.modalities)}, and the classifier {modalities}")
        if run.late_fusion.is_file():
            raise ValueError(f"{run.path} is a late fusion: go on from the runs that it was made of")
        facts = run.facts()
        self.trains_by_gradient = facts.get("solver") != "solved"
        self._frozen = tuple(facts.get("frozen", ()))
        self._new: list[str] = []

    def accept(self, codec: LabelCodec, new_classes: bool) -> tuple[LabelCodec, list[str]]:
        """Maps the classes of the new rows to those of the new run and the order of their names, the old run's first.

        Raises:
            ValueError: if they are not the classes of the run and `new_classes` is False; or if the head is solved, and a
                class of the run has no row.
        """
        if codec.multi_label != self._features.multi_label:
            kinds = {True: "any number of labels", False: "one label"}
            raise ValueError(
                f"an example of {self._run.path} has {kinds[self._features.multi_label]}, and one of the new rows "
                f"{kinds[codec.multi_label]}"
            )
        old = self._features.labels
        self._new = [name for name in codec.names if name not in old]
        absent = [name for name in old if name not in codec.names]
        brought = f"bring the classes {self._new}" if self._new else ""
        lacking = f"lack {absent}" if absent else ""
        if (self._new or absent) and not new_classes:
            raise ValueError(
                f"the rows {' and '.join(filter(None, [brought, lacking]))}, compared with {self._run.path}, which knows "
                f"{list(old)}. If that is meant, pass new_classes=True: the classes of both are then told apart"
            )
        if absent and not self.trains_by_gradient:
            raise ValueError(
                f"the head of {self._run.path} is solved anew from the rows that are given, and {absent} have none: add rows "
                "of them, such as those of the first training"
            )
        return codec.merged(Columns.load(self._run).codec), [*old, *self._new]

    def config(self, dataset: Dataset, val_split: str | None, seed: int) -> str:
        """The config of the run, for the new dataset."""
        text = (self._run.path / "config.gin").read_text("utf-8")
        rebound = r"(table_dataset\.\w+|train\.dataset|train\.val_split|train\.seed)\s*="
        lines = [line for line in text.splitlines() if not re.match(rebound, line)]
        added = [
            f"# goes on from {self._run.path.absolute()}",
            f"train.dataset = {str(dataset.folder)!r}",
            f"train.val_split = {val_split!r}",
            f"train.seed = {seed}",
        ]
        return "\n".join([*lines, *added]) + "\n"

    def options(self, config: Config, dataset: Dataset) -> dict[str, Callable]:
        """What `train` gets in the place of what its config binds."""
        features = dataclasses.replace(self._features, labels=tuple(dataset.info.labels.names))
        model, _ = self._run.load_model()
        freeze(model, self._frozen)
        head = "its weights are trained further" if self.trains_by_gradient else "its head is solved anew"
        logging.info(
            f"going on from {self._run.path}: its encoders, its vocabulary and its {len(self._features.labels)} classes are "
            f"taken over, {head}"
        )
        options = {"make_features": lambda dataset, train_split: features}
        if not self.trains_by_gradient:
            parts, build = TwoTowerParts(model.layers), config.functions["build_two_tower"]
            encoders = {
                "image_tower": lambda spec: parts.encoder("image"),
                "text_encoder": lambda text, name: parts.encoder(text.name),
            }
            if self._new:
                logging.info(f"new classes: {self._new}")
            return options | {"build_model": lambda features: build(features, **encoders)}
        shares = self._nearest(dataset) if self._new else np.zeros((0, len(self._features.labels)))
        return options | {"build_model": lambda features: grow_head(model, shares) if len(shares) else model}

    def _nearest(self, dataset: Dataset) -> np.ndarray:
        """float [K, L]: how the run itself answers the examples of each new class, on average."""
        predictor, split = Predictor(self._run.path), dataset.split("train")
        index, _ = read_index(split, ["shard", "offset", "labels", "label/ids"])
        rows: dict[str, list[tuple[str, int]]] = {name: [] for name in self._new}
        for shard, offset, labels in zip(*(index[name].to_pylist() for name in ("shard", "offset", "labels")), strict=True):
            for name in rows.keys() & set(labels):
                rows[name].append((shard, offset))
        shares = np.stack([self._answers(predictor, dataset, places[:_EXAMPLES]) for places in rows.values()])
        for name, share in zip(self._new, shares, strict=True):
            best = np.argsort(-share)[:3]
            near = ", ".join(f"{self._features.labels[label]!r} ({share[label]:.2f})" for label in best)
            logging.info(f"the new class {name!r} begins between its nearest ones: {near}")
        return shares

    def _answers(self, predictor: Predictor, dataset: Dataset, places: Sequence[tuple[str, int]]) -> np.ndarray:
        raws = []
        for shard, offset in places:
            record = decode_example(read_record(dataset.folder / shard, offset))
            inputs = {input_name(field): texts[0] for field, texts in record.texts.items() if texts}
            inputs |= {"image": record.image} if record.image else {}
            raws.append(predictor.read({name: value for name, value in inputs.items() if name in self._features.modalities}))
        total = predictor.probabilities(raws).sum(axis=0) if raws else np.ones(len(self._features.labels))
        return total / total.sum()
