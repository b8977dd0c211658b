"""Loads the weights of vision transformers: presets of keras_hub, and files of Hugging Face's transformers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import keras

from mm_keras.downloads import fetching_preset
from mm_keras.model.vision_transformer import VisionTransformer
from mm_keras.model.weight_targets import Target
from mm_keras.model.weights import load_weights

_HUGGING_FACE_NAMES = [  # older names -> those of newer checkpoints and of the other models
    (r"^(vit|vision_model)\.", ""),
    (r"^encoder\.layers?\.", "layers."),
    (r"\.attention\.attention\.(query|key|value)\.", lambda match: f".attention.{match[1][0]}_proj."),
    (r"\.attention\.output\.dense\.", ".attention.out_proj."),
    (r"\.attention\.o_proj\.", ".attention.out_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
]
_ELSEWHERE = r"text_model|text_projection|visual_projection|logit_scale|logit_bias|classifier|pooler|.*position_ids$"
_ACTIVATIONS = {"gelu": "gelu", "quick_gelu": "quick_gelu", "gelu_pytorch_tanh": "gelu_approximate"}


def load_transformer_weights(model: VisionTransformer, source: str | Path, sha256: str | None = None) -> None:
    """Loads weights into a vision transformer, completely or not at all.

    Args:
        model: a model that `build_vision_transformer` built.
        source: a keras_hub preset, by name or as a folder; a Hugging Face folder or its .safetensors or PyTorch file; or a
            `.weights.h5` of the backbone. Of a whole CLIP or SigLIP, the text half is left out.
        sha256: the hexadecimal sha256 that the file must have.

    Raises:
        FileNotFoundError: if the source is neither a file or folder nor the name of a preset.
        ValueError: if it is of another architecture or size; the message says what differs.
    """
    path = Path(source)
    if (path / "model.weights.h5").is_file() or (not path.exists() and _is_preset(model.backbone, str(source))):
        _load_preset(model, str(source))
        return
    if not path.exists():
        raise FileNotFoundError(
            f"weights {source} do not exist, neither as a file or folder nor as a preset of keras_hub; presets for "
            f"{model.name} are among {sorted(_preset_class(model.backbone).presets)}"
        )
    if (path / "config.json").is_file():
        _check_config(model, path / "config.json")
    load_weights(model.backbone, path, lambda _: dict(hugging_face_variables(model)), hugging_face_name, sha256)


def _preset_class(backbone: keras.Model) -> type:
    import keras_hub

    of_encoders = {"CLIPVisionEncoder": keras_hub.models.CLIPBackbone, "SigLIPVisionEncoder": keras_hub.models.SigLIPBackbone}
    return of_encoders.get(type(backbone).__name__, type(backbone))


def _is_preset(backbone: keras.Model, source: str) -> bool:
    return source in _preset_class(backbone).presets or re.match(r"(kaggle|hf|modelscope)://", source) is not None


def _load_preset(model: VisionTransformer, source: str) -> None:
    with fetching_preset(source):
        whole = _preset_class(model.backbone).from_preset(source)
    preset_backbone, backbone = getattr(whole, "vision_encoder", whole), model.backbone
    keys = {"image_shape", "patch_size", "num_layers", "num_heads", "hidden_dim", "mlp_dim", "intermediate_dim"}
    keys |= {"intermediate_activation", "use_class_token", "use_mha_bias", "use_mlp_bias"}
    found_in_preset, wanted = (_plain(part.get_config()) for part in (preset_backbone, backbone))
    differing = [
        f"{key} {found_in_preset[key]} instead of {wanted[key]}"
        for key in sorted(keys & set(wanted))
        if found_in_preset[key] != wanted[key]
    ]
    if differing:
        raise ValueError(f"preset {source} does not fit {model.name!r}: {', '.join(differing)}")
    backbone.set_weights(preset_backbone.get_weights())


def _plain(config: dict) -> dict:
    """The config with tuples in place of lists, since the sizes of a preset come from JSON."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}


def _check_config(model: VisionTransformer, path: Path) -> None:
    """Checks what the shapes of weights do not tell: the number of heads, the activation, the size of the image.

    Raises:
        ValueError: if a Hugging Face config.json names other values than the model has.
    """
    config = json.loads(path.read_text("utf-8"))
    config = config.get("vision_config", config)
    backbone = model.backbone
    wanted = {
        "num_attention_heads": backbone.num_heads,
        "hidden_act": getattr(backbone, "intermediate_activation", "gelu"),
        "image_size": tuple(backbone.image_shape[:2]),
    }
    named = {key: config.get(key) for key in wanted}
    named["hidden_act"] = _ACTIVATIONS.get(named["hidden_act"], named["hidden_act"])
    named["image_size"] = (named["image_size"],) * 2 if isinstance(named["image_size"], int) else None
    differing = [f"{key} is {named[key]}, not {wanted[key]}" for key in wanted if named[key] not in (None, wanted[key])]
    if differing:
        raise ValueError(f"{path} does not fit {model.name!r}: {', '.join(differing)}")


def hugging_face_name(name: str) -> str | None:
    """A tensor's name as in `hugging_face_variables`; None for a tensor that an image tower has no use for."""
    if re.match(_ELSEWHERE, name.removeprefix("vit.").removeprefix("vision_model.")):
        return None
    for pattern, new in _HUGGING_FACE_NAMES:
        name = re.sub(pattern, new, name)
    return name


def hugging_face_variables(model: VisionTransformer) -> Iterator[tuple[str, Target]]:
    """The target of each tensor of transformers' ViTModel, CLIPVisionModel or SiglipVisionModel, by the tensor's name.

    The names have no prefix for the model: "layers.0.self_attn.q_proj.weight", or "layers.0.attention.q_proj.weight" in ViT.
    """
    backbone, parts = model.backbone, model.parts
    vit = hasattr(backbone, "mlp_dim")
    embedding, *pre_norm = parts["embedding"]
    patch = "embeddings.patch_embeddings.projection" if vit else "embeddings.patch_embedding"
    kernel = embedding.patch_embedding.kernel
    yield f"{patch}.weight", Target(kernel, tuple(kernel.shape[axis] for axis in (3, 2, 0, 1)), (2, 3, 1, 0))
    if embedding.patch_embedding.use_bias:
        yield f"{patch}.bias", Target(embedding.patch_embedding.bias)
    positions = embedding.position_embedding.embeddings
    if vit:
        yield "embeddings.cls_token", Target(embedding.class_token)
        yield "embeddings.position_embeddings", Target(positions, (1, *positions.shape))
    else:
        yield "embeddings.position_embedding.weight", Target(positions)
        if pre_norm:
            yield "embeddings.class_embedding", Target(embedding.class_embedding)
            yield from _norm("pre_layrnorm", pre_norm[0])  # Hugging Face misspells it
    for name, (block, *_) in parts.items():
        if name.startswith("block_"):
            yield from _block(name.replace("block_", "layers."), block, vit)
    norm, *head = parts["norm"]
    yield from _norm("layernorm" if vit else "post_layernorm", norm)
    if head:
        yield from _pooling("head", head[0])


def _block(name: str, block: keras.layers.Layer, vit: bool) -> Iterator[tuple[str, Target]]:
    if vit:
        attention, dense = block.mha, (block.mlp.dense_1, block.mlp.dense_2)
        norms = {"layernorm_before": block.layer_norm_1, "layernorm_after": block.layer_norm_2}
    elif hasattr(block, "self_attn"):  # SigLIP
        attention, dense = block.self_attn, (block.mlp.fc1, block.mlp.fc2)
        norms = {"layer_norm1": block.layer_norm1, "layer_norm2": block.layer_norm2}
    else:
        attention, dense = block.attention, (block.dense_1, block.dense_2)
        norms = {"layer_norm1": block.layer_norm_1, "layer_norm2": block.layer_norm_2}
    for part, norm in norms.items():
        yield from _norm(f"{name}.{part}", norm)
    yield from _attention(f"{name}.attention" if vit else f"{name}.self_attn", attention)
    for index, layer in enumerate(dense, start=1):
        yield from _dense(f"{name}.mlp.fc{index}", layer)


def _pooling(name: str, head: keras.layers.Layer) -> Iterator[tuple[str, Target]]:
    yield f"{name}.probe", Target(head.probe)
    projections = [getattr(head.attention, f"{part}_dense") for part in ("query", "key", "value")]
    width = head.probe.shape[-1]
    yield f"{name}.attention.in_proj_weight", Target(tuple(layer.kernel for layer in projections), (3 * width, width), (1, 0))
    yield f"{name}.attention.in_proj_bias", Target(tuple(layer.bias for layer in projections), (3 * width,))
    yield from _dense(f"{name}.attention.out_proj", head.attention.output_dense, num_in=2)
    yield from _norm(f"{name}.layernorm", head.layer_norm)
    yield from _dense(f"{name}.mlp.fc1", head.mlp.fc1)
    yield from _dense(f"{name}.mlp.fc2", head.mlp.fc2)


def _attention(name: str, attention: keras.layers.MultiHeadAttention) -> Iterator[tuple[str, Target]]:
    for part in ("query", "key", "value"):
        yield from _dense(f"{name}.{part[0]}_proj", getattr(attention, f"{part}_dense"))
    yield from _dense(f"{name}.out_proj", attention.output_dense, num_in=2)


def _dense(name: str, layer: keras.layers.Layer, num_in: int = 1) -> Iterator[tuple[str, Target]]:
    """The targets of a dense layer whose kernel has `num_in` input axes, then output axes; PyTorch's kernel is [out, in]."""
    shape = layer.kernel.shape
    yield f"{name}.weight", Target(layer.kernel, (math.prod(shape[num_in:]), math.prod(shape[:num_in])), (1, 0))
    if layer.bias is not None:
        yield f"{name}.bias", Target(layer.bias, (math.prod(layer.bias.shape),))


def _norm(name: str, layer: keras.layers.LayerNormalization) -> Iterator[tuple[str, Target]]:
    yield f"{name}.weight", Target(layer.gamma)
    yield f"{name}.bias", Target(layer.beta)
