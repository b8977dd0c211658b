"""Image towers: pixels [B, H, W, 3] within [0, 255] -> embedding [B, D]. Pure Keras."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras

from mm_keras.features import ImageSpec
from mm_keras.model.weights import load_weights


class _Architecture(NamedTuple):
    """Builds the layers without a head, and the range of pixels that its ImageNet weights expect."""

    build: Callable[..., keras.Model]
    pixel_range: tuple[float, float]
    min_size: int


ARCHITECTURES = {
    "inception_v3": _Architecture(keras.applications.InceptionV3, (-1, 1), 75),
    "mobilenet_v2": _Architecture(keras.applications.MobileNetV2, (-1, 1), 32),
    "resnet50_v2": _Architecture(keras.applications.ResNet50V2, (-1, 1), 32),
}


def build_image_tower(
    spec: ImageSpec, architecture: str = "resnet50_v2", weights: str | None = "imagenet", freeze_fraction: float = 0.5
) -> keras.Model:
    """An ImageNet architecture without its head, globally average-pooled.

    Args:
        spec: the size of the image.
        architecture: a key of `ARCHITECTURES`.
        weights: "imagenet" (downloaded by Keras), a `.weights.h5` file of the architecture with `include_top=False`, or
            None: random.
        freeze_fraction: the first fraction of the layers, 0–1, that is not trained (the WebVision and ImageD papers: 0.5);
            their batch normalisation uses its moving statistics.

    Returns:
        model "image_tower": float32 [B, H, W, 3] within [0, 255] -> [B, D].

    Raises:
        ValueError: for an unknown architecture, a fraction outside 0–1, an image too small, or weights that do not fit.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"image architectures are {sorted(ARCHITECTURES)}. Received: {architecture!r}")
    if not 0 <= freeze_fraction <= 1:
        raise ValueError(f"freeze_fraction must be within [0, 1]. Received: {freeze_fraction}")
    build, (low, high), min_size = ARCHITECTURES[architecture]
    if min(spec.size) < min_size:
        raise ValueError(f"{architecture} needs images of at least {min_size} pixels a side. Received: {spec.size}")
    backbone = build(
        include_top=False, weights="imagenet" if weights == "imagenet" else None, input_shape=(*spec.size, 3), name=architecture
    )
    if weights not in (None, "imagenet"):
        load_weights(backbone, weights)
    for layer in backbone.layers[: round(freeze_fraction * len(backbone.layers))]:
        layer.trainable = False
    pixels = keras.Input((*spec.size, 3), name="image")
    scaled = keras.layers.Rescaling((high - low) / 255, offset=low, name="rescale")(pixels)
    embedding = keras.layers.GlobalAveragePooling2D(name="pool")(backbone(scaled))
    return keras.Model(pixels, embedding, name="image_tower")


def build_small_cnn(spec: ImageSpec, widths: tuple[int, ...] = (24, 48, 64, 96)) -> keras.Model:
    """A small convolutional tower that learns from scratch, for small pictures and quick trials.

    Args:
        spec: the size of the image.
        widths: channels of each block; every block halves height and width.

    Returns:
        model "image_tower": float32 [B, H, W, 3] within [0, 255] -> [B, widths[-1]].

    Raises:
        ValueError: for an image too small to be halved so often.
    """
    if min(spec.size) < 2 ** len(widths):
        raise ValueError(
            f"{len(widths)} blocks need images of at least {2 ** len(widths)} pixels a side. Received: {spec.size}"
        )
    pixels = keras.Input((*spec.size, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(pixels)
    for index, width in enumerate(widths):
        stride = 2 if index == 0 else 1  # the first convolution halves at once: it is the one at full size
        x = keras.layers.Conv2D(width, 3, strides=stride, padding="same", use_bias=False, name=f"conv_{index}")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"norm_{index}")(x)
        x = keras.layers.ReLU(name=f"relu_{index}")(x)
        if index:
            x = keras.layers.MaxPooling2D(name=f"halve_{index}")(x)
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D(name="pool")(x), name="image_tower")
