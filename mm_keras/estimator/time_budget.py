"""How many rows a model above frozen encoders can learn from in a given time, most of which encoding takes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import keras

from mm_keras.data.pipeline import make_evaluation_batches
from mm_keras.features import FeatureSpec
from mm_keras.model.split_at_embeddings import split_at_embeddings
from tfrecords_tools.dataset.folder import Dataset

SAMPLE = 64  # rows that are packed and encoded to measure how long that takes
_BATCH_SIZE = 16
_SOLVING, _SOLVING_A_ROW = 12.0, 0.004  # seconds: to build the model and solve the head, as bench/recipes.py measured it


def affordable_rows(
    sample: Dataset,
    make_features: Callable[..., FeatureSpec],
    build_model: Callable[[FeatureSpec], keras.Model],
    packing: float,
    seconds: float,
) -> int:
    """How many rows can be packed, encoded and learned from.

    Args:
        sample: a dataset of some of the rows.
        make_features, build_model: as `train` takes them.
        packing: seconds that packing takes a row.
        seconds: how long all of it may take.
    """
    began = time.monotonic()
    encoding = _seconds_a_row(sample, make_features(sample, train_split="train"), build_model)
    seconds_left = seconds - (time.monotonic() - began) - _SOLVING
    return max(0, int(seconds_left / (packing + encoding + _SOLVING_A_ROW)))


def _seconds_a_row(sample: Dataset, features: FeatureSpec, build_model: Callable[[FeatureSpec], keras.Model]) -> float:
    encoders, _ = split_at_embeddings(build_model(features), features.modalities)
    batches = make_evaluation_batches(sample.split("train"), features, _BATCH_SIZE).dataset
    inputs = [inputs for inputs, _, _ in itertools.islice(batches, 3)]
    encoders.predict_on_batch(inputs[0])  # the first call compiles the model
    began = time.monotonic()
    for batch in inputs[1:] or inputs:
        encoders.predict_on_batch(batch)
    return (time.monotonic() - began) / (_BATCH_SIZE * len(inputs[1:] or inputs))
