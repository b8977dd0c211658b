"""A trained run, cut behind its encoders, so that a report can ask it about the same examples many times."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from mm_keras.data.damage import naming_damage
from mm_keras.data.encode_once import FrozenEncoder, TextPreprocessor, iter_buckets
from mm_keras.data.feature_cache import FeatureCache
from mm_keras.data.pipeline import make_evaluation_batches
from mm_keras.data.preprocess import Preprocessor
from mm_keras.distribution.preemption import end_if_asked
from mm_keras.features import IMAGE, FeatureSpec, present, safe_name
from mm_keras.model.frozen import freeze, split_at_frozen
from mm_keras.model.late_fusion import fused_models
from mm_keras.model.split_at_embeddings import split_at_embeddings
from mm_keras.model.two_tower_parts import TwoTowerParts, part_name
from mm_keras.objectives.metrics import probabilities_of
from mm_keras.report.examples import Examples
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.thresholds import load_thresholds
from tfrecords_tools.dataset.folder import Split

_BATCH_SIZE = 64
_ANSWERED = 1024  # encoded examples that are answered at once
_WIDEST = 1024  # numbers of an embedding that is kept as it is; wider ones are projected at random
_PROJECTED = 512  # numbers of an embedding that is projected

Inputs = dict[str, np.ndarray]


class LoadedRun:
    """A run folder whose model is loaded and cut in two.

    Args:
        path: the run folder.

    Attributes:
        run: the folder.
        features: what the model takes in.
        modalities: its inputs, in order.
        thresholds: probabilities float64 [L] above which labels are predicted; None where they were not tuned.
        encoders: modality -> its encoder; empty for a late fusion, whose models have encoders of their own.
    """

    def __init__(self, path: str | Path):
        self.run = RunFolder(path)
        self.model, self.features = self.run.load_model()
        self.modalities = self.features.modalities
        tuned = load_thresholds(self.run, self.features)
        self.thresholds = tuned.values if tuned else None
        self._cached = tuple(self.run.facts().get("frozen", ())) == self.modalities
        self.encoders: Mapping[str, keras.Model] = {}
        self._text_encoders: dict[int, FrozenEncoder] = {}
        if fused_models(self.model):
            self._encode, self._behind = split_at_embeddings(self.model, self.modalities)
            self._answer = FrozenEncoder(self._behind)
            return
        freeze(self.model, self.modalities)
        self.encoders, self._behind = split_at_frozen(self.model, self.features, self.modalities)
        self._answer = FrozenEncoder(self._behind)
        parts = TwoTowerParts(self.model.layers)
        encoded = {part_name(modality, "encoded"): parts.encoded(modality).output for modality in self.modalities}
        passed_on = {name: tensor for name, tensor in self.model.input.items() if name in self._behind.input}
        self._encode = keras.Model(self.model.input, encoded | {n: t for n, t in passed_on.items() if n not in encoded})

    @property
    def input_names(self) -> list[str]:
        """The names of the inputs that `logits` takes, presence flags among them."""
        return list(self._behind.input)

    def encode(self, split: Split, limit: int | None = None) -> Inputs:
        """What the encoders make of the labelled examples of a split, in their order, with the presence flags.

        Features that are cached beside the dataset are read from there, if all encoders were frozen in the training.

        Args:
            split: the split; one without labels is taken whole.
            limit: only so many examples, the first ones: records are ordered by a hash.
        """
        if not split.num_labelled:
            return self._encode_batches(self._raw_batches(split), limit)
        if self.is_cached(split):
            cache = FeatureCache(split, self.features, self.encoders, self.input_names)
            return cache.inputs(np.arange(min(len(cache.labels), limit or len(cache.labels))))
        batches = make_evaluation_batches(split, self.features, _BATCH_SIZE)
        with naming_damage(split):
            number = min(batches.num_examples, limit or batches.num_examples)
            steps = -(-number // _BATCH_SIZE)
            return self._encode_batches((inputs for inputs, _, _ in batches.dataset.take(steps)), number)

    def is_cached(self, split: Split) -> bool:
        """Whether what the encoders make of a split is kept beside its dataset, or will be."""
        return self._cached and bool(self.encoders) and os.access(split.dataset.folder, os.W_OK)

    def logits(self, inputs: Inputs, shown: Sequence[bool] | None = None) -> np.ndarray:
        """The answers float32 [N, L] to encoded examples; `shown` bool [M] says which modalities are not hidden."""
        if shown is not None:
            hidden = [name for name, is_shown in zip(self.modalities, shown, strict=True) if not is_shown]
            inputs = inputs | {present(name): np.zeros_like(inputs[present(name)]) for name in hidden}
        parts = []
        for start in range(0, len(inputs[present(self.modalities[0])]), _ANSWERED):
            end_if_asked()
            parts.append(
                self._answer({name: tf.constant(inputs[name][start : start + _ANSWERED]) for name in self.input_names})
            )
        return np.concatenate(parts)

    def probabilities(self, inputs: Inputs, shown: Sequence[bool] | None = None) -> np.ndarray:
        """The probabilities float32 [N, L] of `logits`."""
        return probabilities_of(self.logits(inputs, shown), self.features.multi_label).astype(np.float32)

    def text_encoder(self, modality: str) -> FrozenEncoder:
        """The encoder of a text field, traced once also where fields share it."""
        encoder = self.encoders[modality]
        return self._text_encoders.setdefault(id(encoder), FrozenEncoder(encoder))

    def of_modality(self, modality: str, inputs: Inputs) -> list[str]:
        """The names of those inputs that belong to a modality, its presence flag among them."""
        pattern = re.compile(rf"(model_\d+_)*{safe_name(modality)}_(encoded|embedding|token_ids|padding_mask|text|cut|present)")
        return [name for name in inputs if pattern.fullmatch(name)]

    def embeddings(self, inputs: Inputs) -> Inputs:
        """The embeddings of examples in each space of the model.

        Returns:
            modality -> float32 [N, D], what its encoder gives; "<modality>, tuned" where a tuning DNN changes it; "fused": what
            the head sees. Zeros where an input is missing. Embeddings of more than 1,024 numbers are projected to 512 at
            random, which nearly keeps angles.
        """
        spaces: dict[str, list[np.ndarray]] = {}
        number = len(inputs[present(self.modalities[0])])
        for start in range(0, number, _ANSWERED):
            end_if_asked()
            part = {name: array[start : start + _ANSWERED] for name, array in inputs.items()}
            for name, vectors in self._spaces(part).items():
                spaces.setdefault(name, []).append(_narrow(_pooled(vectors)))
        return {name: np.concatenate(parts) for name, parts in spaces.items()}

    def _spaces(self, inputs: Inputs) -> Inputs:
        spaces = {}
        for modality in self.modalities:
            names = [name for name in self.of_modality(modality, inputs) if name.endswith(("_encoded", "_embedding"))]
            whole = np.concatenate([_pooled(inputs[name]) for name in names], axis=1)
            spaces[modality] = whole * inputs[present(modality)][:, np.newaxis]
        if not self.encoders:
            return spaces | {"fused": np.concatenate([*spaces.values()], axis=1)}
        for name, values in self._stages(inputs).items():
            spaces[name] = values
        return spaces

    def _stages(self, inputs: Inputs) -> Inputs:
        if not hasattr(self, "_stages_model"):
            self._stages_model = _build_stages(self.model, self._behind, self.features)
        answers = self._stages_model.predict_on_batch(inputs)
        tuned = {
            f"{modality}, tuned": _pooled(answers[key]) * inputs[present(modality)][:, np.newaxis]
            for modality in self.modalities
            if (key := f"{safe_name(modality)}_tuned") in answers
        }
        return tuned | {"fused": answers["fused"]}

    def _encode_batches(self, batches, number: int | None) -> Inputs:
        parts: list[Inputs] = []
        for inputs in batches:
            end_if_asked()
            flags = {present(modality): np.asarray(inputs[present(modality)]) for modality in self.modalities}
            feed = {name: inputs[name] for name in self._encode.input}
            parts.append({name: np.asarray(value) for name, value in self._encode.predict_on_batch(feed).items()} | flags)
        return {name: np.concatenate([part[name] for part in parts])[:number] for name in parts[0]}

    def _raw_batches(self, split: Split):
        examples = Examples.of_split(split, self.features)
        preprocessor = Preprocessor(self.features)
        for start in range(0, len(examples), _BATCH_SIZE):
            raw = examples.raw(range(start, min(start + _BATCH_SIZE, len(examples))), self.modalities)
            yield preprocessor.raw({safe_name(name): tf.constant(values) for name, values in raw.items()})


def text_encoder(loaded: LoadedRun, modality: str) -> Callable[[Sequence[str]], Inputs]:
    """A function that maps texts of a field to the inputs of `LoadedRun.logits` that belong to it, without its flag."""
    spec, encoder, preprocess = loaded.features.text(modality), loaded.encoders[modality], TextPreprocessor(loaded.features)
    frozen = loaded.text_encoder(modality)

    def encode(texts: Sequence[str]) -> Inputs:
        batch = preprocess(spec, [text.encode() for text in texts])
        encoder_inputs = {name: batch[batch_name].numpy() for name, batch_name in spec.batch_names().items()}
        outputs = np.zeros((len(texts), *encoder.output.shape[1:]), np.float32)
        for rows, bucket in iter_buckets(encoder_inputs, frozen.has_fixed_length):
            encoded = frozen(bucket)
            outputs[(rows, *map(slice, encoded.shape[1:]))] = encoded
        tokens = {name: value.numpy() for name, value in batch.items() if name in loaded.input_names}
        return {part_name(modality, "encoded"): outputs} | tokens

    return encode


def image_encoder(loaded: LoadedRun) -> Callable[[np.ndarray], Inputs]:
    """A function that maps pixels float32 [B, H, W, 3] within [0, 255] to the input of `LoadedRun.logits` for the image."""
    encoder = FrozenEncoder(loaded.encoders[IMAGE])

    def encode(pixels: np.ndarray) -> Inputs:
        parts = [encoder(tf.constant(pixels[start : start + _BATCH_SIZE])) for start in range(0, len(pixels), _BATCH_SIZE)]
        return {part_name(IMAGE, "encoded"): np.concatenate(parts)}

    return encode


def _build_stages(model: keras.Model, behind: keras.Model, features: FeatureSpec) -> keras.Model:
    """A model from the inputs of `behind` to {"<modality>_tuned" where there is a tuning DNN, "fused"}."""
    parts = TwoTowerParts(model.layers)
    inputs = {name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name) for name, tensor in behind.input.items()}
    tuned = {modality: parts.tune(modality, inputs[part_name(modality, "encoded")]) for modality in features.modalities}
    joined = {modality: parts.join_words(modality, tensor, inputs) for modality, tensor in tuned.items()}
    changed = {f"{safe_name(name)}_tuned": tensor for name, tensor in tuned.items() if _learns(parts.tuning(name))}
    return keras.Model(inputs, changed | {"fused": parts.fuse(joined, inputs)}, name="stages")


def _learns(tuning: keras.Model | None) -> bool:
    """Whether a tuning DNN has weights: that of a solved head only scales."""
    return tuning is not None and bool(tuning.weights)


def _pooled(vectors: np.ndarray) -> np.ndarray:
    """Vectors float32 [N, D]: sequences [N, T, D] become the mean over the positions that are not padding, which is zeros."""
    if vectors.ndim == 2:
        return vectors.astype(np.float32)
    counts = np.maximum(1, (vectors != 0).any(axis=2).sum(axis=1))
    return (vectors.sum(axis=1) / counts[:, np.newaxis]).astype(np.float32)


def _narrow(vectors: np.ndarray) -> np.ndarray:
    """Vectors of at most 1,024 numbers; wider ones are projected to 512 by a fixed random matrix."""
    width = vectors.shape[1]
    if width <= _WIDEST:
        return vectors
    projection = np.random.default_rng(width).standard_normal((width, _PROJECTED), np.float32) / np.sqrt(_PROJECTED)
    return vectors @ projection.astype(np.float32)
