"""Stands in for large image towers where a test is about what is around them."""

import contextlib
from collections.abc import Iterator

import keras
import pytest

from mm_keras.model.architectures import ARCHITECTURES


@contextlib.contextmanager
def drawn_towers() -> Iterator[None]:
    """Within it, the towers that configs name are two convolutions with random weights."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("resnet50_v2", "inception_v3", "mobilenet_v2", "resnet34", "resnext101_32x4d"):
            patch.setitem(ARCHITECTURES, name, ARCHITECTURES[name]._replace(build=_build))
        yield


def _build(input_shape: tuple[int, int, int], name: str, weights: None = None) -> keras.Model:
    pixels = keras.Input(input_shape)
    features = keras.layers.Conv2D(8, 3, strides=4, activation="relu", name="first")(pixels)
    features = keras.layers.BatchNormalization(name="scaled")(features)
    return keras.Model(pixels, keras.layers.Conv2D(16, 3, strides=2, activation="relu", name="second")(features), name=name)
