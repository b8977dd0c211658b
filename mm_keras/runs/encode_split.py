"""Runs the encoders of a trained run once on a split, so that evaluation can vary the inputs that are shown."""

from __future__ import annotations

import os

import keras
import numpy as np

from mm_keras.data.damage import naming_damage
from mm_keras.data.feature_cache import FeatureCache
from mm_keras.data.pipeline import Batches, count_labelled, make_evaluation_batches
from mm_keras.distribution.preemption import end_if_asked
from mm_keras.features import FeatureSpec, present
from mm_keras.model.frozen import freeze, split_at_frozen
from mm_keras.model.split_at_embeddings import split_at_embeddings
from mm_keras.runs.run_folder import RunFolder
from tfrecords_tools.dataset.folder import Split


def encode_split(
    run: RunFolder,
    model: keras.Model,
    features: FeatureSpec,
    split: Split,
    batch_size: int = 64,
    texts_per_field: int = 1,
) -> tuple[list[dict[str, np.ndarray]], np.ndarray, keras.Model]:
    """Cuts a model behind its encoders, and runs the encoders on a split.

    If all of them were frozen in training, their outputs are kept beside the dataset, as training does. Another evaluation, or
    another run with the same encoders, finds them there.

    Args:
        run: the run folder.
        model, features: what `run.load_model()` returned.
        split: the split to encode.
        batch_size: examples in a batch; only the memory depends on it.
        texts_per_field: number of texts of a field that are used, the first ones.

    Returns:
        (for each of these texts the inputs of `behind`, with presence flags bool [N]; labels int32 [N] or float32
        [N, num_labels]; `behind`, a model that maps these inputs to logits [B, num_labels]).

    Raises:
        ValueError: if the dataset does not have what the model takes in, has other labels, or no labelled example in the split.
    """
    count_labelled(split, features)
    frozen = tuple(run.facts().get("frozen", ()))
    if frozen == features.modalities and texts_per_field == 1 and os.access(split.dataset.folder, os.W_OK):
        freeze(model, frozen)
        encoders, behind = split_at_frozen(model, features, frozen)
        cache = FeatureCache(split, features, encoders, list(behind.input))
        return [cache.inputs(np.arange(len(cache.labels)))], cache.labels, behind
    encoders, behind = split_at_embeddings(model, features.modalities)
    with naming_damage(split):
        encoded = [
            _encode(encoders, features, make_evaluation_batches(split, features, batch_size, text_index))
            for text_index in range(texts_per_field if features.texts else 1)
        ]
    return [inputs for inputs, _ in encoded], encoded[0][1], behind


def _encode(encoders: keras.Model, features: FeatureSpec, batches: Batches) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The embeddings and presence flags, and the labels, of all examples of a split."""
    parts: list[dict[str, np.ndarray]] = []
    labels: list[np.ndarray] = []
    for inputs, batch_labels, _ in batches.dataset:
        end_if_asked()
        flags = {present(modality): inputs[present(modality)].numpy() for modality in features.modalities}
        parts.append(encoders.predict_on_batch(inputs) | flags)
        labels.append(batch_labels.numpy())
    arrays = {name: np.concatenate([part[name] for part in parts])[: batches.num_examples] for name in parts[0]}
    return arrays, np.concatenate(labels)[: batches.num_examples]
