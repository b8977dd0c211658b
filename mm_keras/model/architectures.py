"""The architectures of image towers, one line for each architecture. docs/models.md compares them. Pure Keras."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras

from mm_keras.model.resnet import build_resnet, keras_resnet50_name, load_resnet_weights
from mm_keras.model.vision_transformer import VisionTransformer, build_vision_transformer
from mm_keras.model.vision_transformer_weights import load_transformer_weights
from mm_keras.model.weights import load_weights


class Pixels(NamedTuple):
    """How RGB pixels within [0, 255] become the pixels that trained weights expect: `pixels * scale + offset`.

    Attributes:
        scale, offset: one number for all channels, or three in the order of the network's channels.
        bgr: whether the network's channels are blue, green, red.
    """

    scale: float | list[float]
    offset: float | list[float]
    bgr: bool = False


def standardise(mean: tuple[float, ...], std: tuple[float, ...]) -> Pixels:
    """The `Pixels` of `(pixels / 255 - mean) / std`, for the mean and standard deviation of three channels."""
    return Pixels([1 / (255 * deviation) for deviation in std], [-m / s for m, s in zip(mean, std, strict=True)])


SYMMETRIC = Pixels(1 / 127.5, -1)  # [-1, 1]
UNIT = Pixels(1 / 255, 0)  # [0, 1]
IMAGENET = standardise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = standardise((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
CAFFE = Pixels(1, [-103.939, -116.779, -123.68], bgr=True)
EFFICIENTNET_V2 = Pixels(1 / 128, -1)  # for S, M and L; B0 to B3 expect IMAGENET


class Architecture(NamedTuple):
    """An architecture of image towers, without its head.

    Attributes:
        build: `(input_shape=, name=) -> model`, whose output is features [B, h, w, D] or embeddings [B, D].
        pixels: the pixels that its trained weights expect.
        size: the size of the images that its weights were trained with, in pixels a side.
        min_size: the size of the smallest image that it works with, in pixels a side.
        cuts: the names of the layers up to which it may be frozen, from the first to the last. All later layers get their input
            through such a layer.
        load: `(model, path, sha256=)`, which loads a file of weights into the model.
        downloads: whether Keras downloads its ImageNet weights, which are called "imagenet".
    """

    build: Callable[..., keras.Model | VisionTransformer]
    pixels: Pixels
    size: int
    min_size: int
    cuts: tuple[str, ...]
    load: Callable[..., None] = load_weights
    downloads: bool = False


def _keras(application: Callable, pixels: Pixels, size: int, cuts: str, min_size: int = 32, load=load_weights, **options):
    """The entry of an architecture of keras.applications; `cuts` is one string of names that are separated by spaces."""

    def build(input_shape: tuple[int, int, int], name: str, weights: str | None = None) -> keras.Model:
        # Keras' EfficientNetV2 chooses its blocks, and whether it standardises pixels, by the model's name. So it gets its own
        # name only once it is built.
        model = application(include_top=False, input_shape=input_shape, weights=weights, **options)
        return keras.Model(model.input, model.output, name=name)

    return Architecture(build, pixels, size, min_size, tuple(cuts.split()), load, downloads=True)


def _torch(blocks: tuple[int, ...], **options) -> Architecture:
    """The entry of a ResNet of `build_resnet`, with the number of blocks of each stage."""
    cuts = tuple(f"layer{stage}_{number - 1}_out" for stage, number in enumerate(blocks, start=1))
    build = functools.partial(build_resnet, blocks=blocks, **options)
    return Architecture(build, IMAGENET, 224, 32, cuts, load_resnet_weights)


def _hub(kind: str, patch: int, width: int, blocks: int, heads: int, pixels: Pixels, size: int = 224, mlp: int = 0, **options):
    """The entry of a vision transformer of keras_hub; an `mlp` of 0 stands for 4 * `width`."""
    sizes = {"patch": patch, "width": width, "blocks": blocks, "heads": heads, "mlp": mlp or 4 * width}
    build = functools.partial(build_vision_transformer, kind=kind, **sizes, **options)
    cuts = ("embedding", *(f"block_{index}" for index in range(blocks)))
    return Architecture(build, pixels, size, patch, cuts, load_transformer_weights)


_apps = keras.applications
_resnet50 = functools.partial(load_weights, rename=keras_resnet50_name)
_STAGES = "conv2_block3_out conv3_block4_out conv4_block6_out conv5_block3_out"
_STAGES_152 = "conv2_block3_out conv3_block8_out conv4_block36_out conv5_block3_out"
_MIXED = " ".join(f"mixed{index}" for index in range(11))
_MOBILE = "block_2_add block_5_add block_9_add block_12_add block_15_add block_16_project_BN"
_B0 = "block1a_project_activation block2b_add block3b_add block4c_add block5e_add block6h_add"
_S = "block1b_add block2d_add block3d_add block4f_add block5i_add block6o_add"
_DOWN = "{0}_stem {0}_downsampling_block_0 {0}_downsampling_block_1 {0}_downsampling_block_2".format
_QUICK, _GELU = {"intermediate_activation": "quick_gelu"}, {"intermediate_activation": "gelu"}

ARCHITECTURES = {
    "clip_base_16": _hub("clip", 16, 768, 12, 12, CLIP, **_QUICK),
    "clip_base_32": _hub("clip", 32, 768, 12, 12, CLIP, **_QUICK),
    "clip_base_32_laion": _hub("clip", 32, 768, 12, 12, CLIP, **_GELU),
    "clip_large_14": _hub("clip", 14, 1024, 24, 16, CLIP, **_QUICK),
    "convnext_base": _keras(_apps.ConvNeXtBase, IMAGENET, 224, _DOWN("convnext_base"), include_preprocessing=False),
    "convnext_tiny": _keras(_apps.ConvNeXtTiny, IMAGENET, 224, _DOWN("convnext_tiny"), include_preprocessing=False),
    "efficientnet_v2_b0": _keras(_apps.EfficientNetV2B0, IMAGENET, 224, _B0, include_preprocessing=False),
    "efficientnet_v2_s": _keras(_apps.EfficientNetV2S, EFFICIENTNET_V2, 384, _S, include_preprocessing=False),
    "inception_v3": _keras(_apps.InceptionV3, SYMMETRIC, 299, _MIXED, min_size=75),
    "legacy_seresnext101_32x4d": _torch((3, 4, 23, 3), groups=32, group_width=4, squeeze=True, padded_pool=False),
    "mobilenet_v2": _keras(_apps.MobileNetV2, SYMMETRIC, 224, _MOBILE),
    "resnet34": _torch((3, 4, 6, 3), bottleneck=False),
    "resnet10_tiny": _torch((1, 1, 1, 1), bottleneck=False, widths=(8, 16, 32, 64)),  # for trying out a whole pipeline quickly
    "resnet50": _keras(_apps.ResNet50, CAFFE, 224, _STAGES, load=_resnet50),
    "resnet50_v2": _keras(_apps.ResNet50V2, SYMMETRIC, 224, _STAGES),
    "resnet152_v2": _keras(_apps.ResNet152V2, SYMMETRIC, 224, _STAGES_152),
    "resnext101_32x4d": _torch((3, 4, 23, 3), groups=32, group_width=4),
    "resnext101_32x8d": _torch((3, 4, 23, 3), groups=32, group_width=8),
    "resnext101_64x4d": _torch((3, 4, 23, 3), groups=64, group_width=4),
    "seresnext101_32x4d": _torch((3, 4, 23, 3), groups=32, group_width=4, squeeze=True),
    "siglip_base_16": _hub("siglip", 16, 768, 12, 12, SYMMETRIC),
    "siglip_large_16": _hub("siglip", 16, 1024, 24, 16, SYMMETRIC, 256),
    "siglip_so400m_14": _hub("siglip", 14, 1152, 27, 16, SYMMETRIC, mlp=4304),
    "vit_base_16": _hub("vit", 16, 768, 12, 12, SYMMETRIC),
    "vit_large_16": _hub("vit", 16, 1024, 24, 16, SYMMETRIC),
}
