"""Makes torch_reference.json: names and shapes of weights of small networks of PyTorch and transformers, and what they answer.

    python tests/mm_keras/model/torch_reference.py FILE

It needs PyTorch, transformers, Pillow and torchvision, which the tests that read the file do not. The weights are drawn from
their names (`draw`), so that a test can draw the same ones. The ResNets are written down here as torchvision and timm name
their layers ("legacy": as Cadène does).
"""

from __future__ import annotations

import json
import sys
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np

SIZE = (64, 50)  # odd after the first convolution
RESNETS = {
    "basic": {"bottleneck": False},
    "resnext": {"groups": 4, "group_width": 16},
    "seresnext": {"groups": 4, "group_width": 16, "squeeze": "se"},
    "legacy_seresnext": {"groups": 4, "group_width": 16, "squeeze": "se_module"},
}
BLOCKS, WIDTHS = (1, 2, 1, 1), (16, 16, 32, 32)
TRANSFORMER = {"width": 32, "blocks": 2, "heads": 2, "mlp": 48, "patch": 8, "size": 32}
COLOUR = (10, 128, 250)


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight of that name; variances are positive, and kernels of a size that keeps activations alive."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype("float32")
    scale = 1 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.2
    offset = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0
    return np.asarray(offset + rng.normal(0, scale, shape), "float32")


def draw_pictures(size: tuple[int, int]) -> np.ndarray:
    """float32 [2, H, W, 3], normalised."""
    return np.random.default_rng(0).normal(0, 1, (2, *size, 3)).astype("float32")


def _resnet(bottleneck=True, groups=1, group_width=64, squeeze=None):
    from torch import nn

    class Squeeze(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.fc1, self.fc2 = nn.Conv2d(width, width // 16, 1), nn.Conv2d(width // 16, width, 1)

        def forward(self, x):
            return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()

    class Block(nn.Module):
        def __init__(self, into, width, stride):
            super().__init__()
            inner = int(width * group_width / 64) * groups if bottleneck else width
            out = 4 * width if bottleneck else width
            first = (1, 1, 0) if bottleneck else (3, stride, 1)
            self.conv1, self.bn1 = nn.Conv2d(into, inner, *first, bias=False), nn.BatchNorm2d(inner)
            second = stride if bottleneck else 1
            self.conv2 = nn.Conv2d(inner, inner, 3, second, 1, groups=groups, bias=False)
            self.bn2 = nn.BatchNorm2d(inner)
            if bottleneck:
                self.conv3, self.bn3 = nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out)
            if squeeze:
                self.add_module(squeeze, Squeeze(out))
            self.downsample = None
            if stride > 1 or into != out:
                self.downsample = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))

        def forward(self, x):
            shortcut = x if self.downsample is None else self.downsample(x)
            x = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            if bottleneck:
                x = self.bn3(self.conv3(x.relu()))
            if squeeze:
                x = getattr(self, squeeze)(x)
            return (x + shortcut).relu()

    legacy = squeeze == "se_module"
    pool = nn.MaxPool2d(3, 2, ceil_mode=True) if legacy else nn.MaxPool2d(3, 2, 1)
    first = {"conv1": nn.Conv2d(3, WIDTHS[0], 7, 2, 3, bias=False), "bn1": nn.BatchNorm2d(WIDTHS[0]), "relu": nn.ReLU()}
    first["maxpool"] = pool
    parts = OrderedDict(layer0=nn.Sequential(OrderedDict(first))) if legacy else OrderedDict(first)
    into = WIDTHS[0]
    for stage, (number, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True), start=1):
        blocks = []
        for index in range(number):
            blocks.append(Block(into, width, 2 if stage > 1 and index == 0 else 1))
            into = 4 * width if bottleneck else width
        parts[f"layer{stage}"] = nn.Sequential(*blocks)
    parts["avgpool"], parts["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    parts["last_linear" if legacy else "fc"] = nn.Linear(into, 5)
    return nn.Sequential(parts)


def _transformers():
    import transformers

    sizes = {"hidden_size": TRANSFORMER["width"], "num_hidden_layers": TRANSFORMER["blocks"]}
    sizes |= {"num_attention_heads": TRANSFORMER["heads"], "intermediate_size": TRANSFORMER["mlp"]}
    sizes |= {"image_size": TRANSFORMER["size"], "patch_size": TRANSFORMER["patch"]}
    vit = transformers.ViTForImageClassification(transformers.ViTConfig(**sizes))
    text = {**sizes, "vocab_size": 20, "max_position_embeddings": 4, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    clip = transformers.CLIPModel(transformers.CLIPConfig(vision_config=sizes, text_config=text, projection_dim=8))
    siglip = transformers.SiglipModel(transformers.SiglipConfig(vision_config=sizes, text_config=text))
    # As their class token or pooling gives them: (model, pixels -> embedding, what turns pictures into pixels).
    yield "vit", vit, lambda pixels: vit.vit(pixel_values=pixels).last_hidden_state[:, 0], transformers.ViTImageProcessor()
    yield "clip", clip, lambda pixels: clip.vision_model(pixel_values=pixels).pooler_output, transformers.CLIPImageProcessor()
    pooled = lambda pixels: siglip.vision_model(pixel_values=pixels).pooler_output  # noqa: E731
    yield "siglip", siglip, pooled, transformers.SiglipImageProcessor()


def _fill(model, tensors):
    import torch

    with torch.no_grad():
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(draw(name, tuple(tensor.shape))))
    return model.eval()


def main(path: Path) -> None:
    import tempfile

    import torch
    from safetensors import safe_open

    reference = {}
    for name, options in RESNETS.items():
        torch.manual_seed(0)
        model = _resnet(**options)
        state = model.state_dict()
        _fill(model, state)
        with torch.no_grad():
            embedding = model[:-1](torch.from_numpy(draw_pictures(SIZE)).permute(0, 3, 1, 2))
        shapes = {key: list(tensor.shape) for key, tensor in state.items()}
        reference[name] = {"shapes": shapes, "embedding": [round(each, 6) for each in embedding[:, :8].flatten().tolist()]}
    for name, model, embed, processor in _transformers():
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)  # its names are those of published checkpoints, the model's own are newer
            with safe_open(Path(folder) / "model.safetensors", "np") as file:
                shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
            from safetensors.numpy import save_file

            save_file({key: draw(key, tuple(shape)) for key, shape in shapes.items()}, Path(folder) / "model.safetensors")
            model.load_state_dict(type(model).from_pretrained(folder).state_dict())
        with torch.no_grad():
            size = (TRANSFORMER["size"],) * 2
            embedding = embed(torch.from_numpy(draw_pictures(size)).permute(0, 3, 1, 2))
        picture = np.broadcast_to(np.uint8(COLOUR), (*size, 3))
        options = {"do_resize": False, "do_center_crop": False} if name == "clip" else {"do_resize": False}
        pixels = np.asarray(processor([picture], **options, return_tensors="np")["pixel_values"])[0, :, 0, 0]
        reference[name] = {
            "shapes": shapes,
            "embedding": [round(each, 6) for each in embedding[:, :8].flatten().tolist()],
            "pixels": [round(float(each), 6) for each in pixels],
            "preprocessor": {key: value for key, value in processor.to_dict().items() if key in ("image_mean", "image_std")},
        }
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in reference.items())
    path.write_text(f"{{\n{lines}\n}}\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
