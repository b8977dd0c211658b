"""ResNets as torchvision and timm define them, with the names of their layers; also ResNeXt and squeeze-and-excitation.

They differ from those of keras.applications in details that trained weights depend on: the stride is on the 3x3 convolution,
padding is symmetric, and batch normalisation's epsilon is 1e-5. Pure Keras.
"""

from __future__ import annotations

import functools
import re

import keras
from keras import layers

from mm_keras.model.weights import Target, load_weights


def build_resnet(
    input_shape: tuple[int, int, int],
    name: str,
    blocks: tuple[int, ...],
    bottleneck: bool = True,
    groups: int = 1,
    group_width: int = 64,
    squeeze: bool = False,
    padded_pool: bool = True,
    widths: tuple[int, ...] = (64, 128, 256, 512),
) -> keras.Model:
    """A ResNet without its head.

    On a CPU, TensorFlow computes the gradient of a grouped convolution about a hundred times slower than the convolution
    itself: a ResNeXt (groups > 1) is trained on a GPU, and frozen on a CPU.

    Args:
        input_shape: (height, width, 3).
        name: the model's name.
        blocks: how many blocks each stage has.
        bottleneck: whether a block has three convolutions (1x1, 3x3, 1x1) and is four times as wide at its end, or else two
            convolutions of 3x3.
        groups: into how many groups the 3x3 convolution of a bottleneck is divided: 32 in "32x4d".
        group_width: how many channels a group has in the first stage: 4 in "32x4d".
        squeeze: whether every block has squeeze-and-excitation, through a sixteenth of its channels.
        padded_pool: whether the first pooling pads both sides. Cadène's SE networks (legacy_seresnext in timm) do not: their
            last window reaches over the edge.
        widths: the width of each stage.

    Returns:
        model: float32 [B, H, W, 3], normalised -> [B, H / 32, W / 32, C]. Its layers are named as in the state dict, with "_"
        in place of ".", such as layer2_0_conv1. The name of the last layer of a block ends in "_out".

    Reference: He et al., "Deep Residual Learning for Image Recognition", table 1; Xie et al., "Aggregated Residual
    Transformations for Deep Neural Networks", table 1; Hu et al., "Squeeze-and-Excitation Networks", figure 3.
    """
    pixels = keras.Input(input_shape, name="pixels")
    x = _convolve(pixels, widths[0], 7, 2, "conv1")
    x = layers.ReLU(name="relu1")(_normalise(x, "bn1"))
    # After a ReLU, padding by zeros is as good as PyTorch's by minus infinity.
    padding = 1 if padded_pool else ((0, 1), (0, 1))
    x = layers.MaxPooling2D(3, 2, name="pool1")(layers.ZeroPadding2D(padding, name="pool1_pad")(x))
    for stage, (number, width) in enumerate(zip(blocks, widths, strict=True), start=1):
        for index in range(number):
            stride = 2 if stage > 1 and index == 0 else 1
            block = f"layer{stage}_{index}"
            shortcut = x
            if bottleneck:
                inner, width_out = width * group_width // 64 * groups, 4 * width
                x = layers.ReLU(name=f"{block}_relu1")(_normalise(_convolve(x, inner, 1, 1, f"{block}_conv1"), f"{block}_bn1"))
                x = _convolve(x, inner, 3, stride, f"{block}_conv2", groups)
                x = layers.ReLU(name=f"{block}_relu2")(_normalise(x, f"{block}_bn2"))
                x = _normalise(_convolve(x, width_out, 1, 1, f"{block}_conv3"), f"{block}_bn3")
            else:
                width_out = width
                x = _normalise(_convolve(x, width, 3, stride, f"{block}_conv1"), f"{block}_bn1")
                x = _convolve(layers.ReLU(name=f"{block}_relu1")(x), width, 3, 1, f"{block}_conv2")
                x = _normalise(x, f"{block}_bn2")
            if squeeze:
                x = _squeeze(x, f"{block}_se")
            if stride > 1 or shortcut.shape[-1] != width_out:
                shortcut = _convolve(shortcut, width_out, 1, stride, f"{block}_downsample_0")
                shortcut = _normalise(shortcut, f"{block}_downsample_1")
            x = layers.ReLU(name=f"{block}_out")(layers.Add(name=f"{block}_add")([x, shortcut]))
    return keras.Model(pixels, x, name=name)


def _convolve(x, width: int, kernel: int, stride: int, name: str, groups: int = 1):
    """A convolution that pads both sides alike, as PyTorch does. Keras' "same" pads only the right side at a stride of 2."""
    padding = "same"
    if stride > 1:
        padding = "valid"
        if kernel > 1:
            x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    start = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    return layers.Conv2D(width, kernel, stride, padding, groups=groups, use_bias=False, kernel_initializer=start, name=name)(x)


def _normalise(x, name: str):
    return layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=name)(x)


def _squeeze(x, name: str):
    """Squeeze-and-excitation: scales each channel by a factor that depends on the means of all channels."""
    channels = x.shape[-1]
    scale = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    scale = layers.Conv2D(channels // 16, 1, activation="relu", name=f"{name}_fc1")(scale)
    scale = layers.Conv2D(channels, 1, activation="sigmoid", name=f"{name}_fc2")(scale)
    return layers.Multiply(name=f"{name}_scale")([x, scale])


def torch_variables(model: keras.Model) -> dict[str, Target]:
    """The target of each tensor of a torchvision or timm state dict, by the tensor's name."""
    targets = {}
    for layer in model.layers:
        name = layer.name.replace("_", ".")
        if isinstance(layer, layers.Conv2D):
            out, into = layer.kernel.shape[3], layer.kernel.shape[2]
            targets[f"{name}.weight"] = Target(layer.kernel, (out, into, *layer.kernel.shape[:2]), (2, 3, 1, 0))
            if layer.use_bias:
                targets[f"{name}.bias"] = Target(layer.bias)
        elif isinstance(layer, layers.BatchNormalization):
            parts = {"weight": layer.gamma, "bias": layer.beta}
            parts |= {"running_mean": layer.moving_mean, "running_var": layer.moving_variance}
            targets |= {f"{name}.{part}": Target(variable) for part, variable in parts.items()}
    return targets


def torch_name(name: str) -> str | None:
    """The name that a tensor has in torchvision and timm; None for one that a tower does not need (of the head, or a counter).

    "layer0.conv1.weight" -> "conv1.weight", "layer1.0.se_module.fc1.weight" -> "layer1.0.se.fc1.weight" (Cadène's names).
    """
    if re.match(r"(fc|last_linear)\.", name) or name.endswith(".num_batches_tracked"):
        return None
    return name.removeprefix("layer0.").replace(".se_module.", ".se.")


load_resnet_weights = functools.partial(load_weights, torch_variables=torch_variables, rename=torch_name)


def keras_resnet50_name(name: str) -> str:
    """A layer's name in ResNet50 files of Keras before 2.3 as keras.applications names it since.

    "res2a_branch2b" -> "conv2_block1_2_conv", "bn2a_branch1" -> "conv2_block1_0_bn", "bn_conv1" -> "conv1_bn".
    """
    match = re.fullmatch(r"(res|bn)(\d)([a-z])_branch(1|2[abc])", name)
    if not match:
        return {"conv1": "conv1_conv", "bn_conv1": "conv1_bn"}.get(name, name)
    kind, stage, block, branch = match.groups()
    part = {"1": 0, "2a": 1, "2b": 2, "2c": 3}[branch]
    return f"conv{stage}_block{ord(block) - ord('a') + 1}_{part}_{'conv' if kind == 'res' else 'bn'}"
