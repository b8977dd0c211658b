"""Vision transformers of keras_hub (ViT, CLIP, SigLIP) as backbones of image towers. Pure Keras."""

from __future__ import annotations

import keras
import numpy as np


@keras.saving.register_keras_serializable(package="mm_keras")
class VisionTransformer(keras.layers.Layer):
    """A vision transformer of keras_hub as a layer: normalised pixels float32 [B, H, W, 3] -> [B, D], or [B, T, D].

    The embedding of ViT and CLIP is the last state of the class token, normalised; in CLIP it is the one before the
    projection, which the paper's linear probes see. The embedding of SigLIP is the output of its attention pooling.

    When a model of keras_hub is saved, it forgets which of its layers were frozen; this layer remembers.

    Args:
        backbone: a ViTBackbone, CLIPVisionEncoder or SigLIPVisionEncoder.
        frozen: how many `parts` are frozen, from the first on.
        places: whether the output is the states of all tokens, [B, T, D], rather than the embedding; of a ViT or CLIP only.
    """

    def __init__(self, backbone: keras.Model, frozen: int = 0, places: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.backbone = backbone
        self.places = places
        self.freeze(frozen)

    @property
    def parts(self) -> dict[str, list[keras.layers.Layer]]:
        """The layers by the part that they belong to: "embedding", "block_0", "block_1", …, "norm", in this order."""
        model = self.backbone
        if hasattr(model, "encoder_layers"):  # CLIP, SigLIP
            clip = hasattr(model, "pre_layer_norm")
            embedding = [model.embedding, model.pre_layer_norm] if clip else [model.embedding]
            blocks, norm = model.encoder_layers, [model.layer_norm] if clip else [model.post_layer_norm, model.head]
        else:
            encoder = model.get_layer("vit_encoder")
            embedding, blocks = [model.get_layer("vit_patching_and_embedding")], encoder.encoder_layers
            norm = [encoder.layer_norm]
        return {"embedding": embedding} | {f"block_{index}": [block] for index, block in enumerate(blocks)} | {"norm": norm}

    def freeze(self, number: int) -> None:
        """Freezes the first `number` of `parts`, and unfreezes the others."""
        self.frozen = number
        for index, layers in enumerate(self.parts.values()):
            for layer in layers:
                layer.trainable = index >= number

    def call(self, pixels):
        states = self.backbone({"images": pixels} if isinstance(self.backbone.input, dict) else pixels)
        return states[:, 0] if len(states.shape) == 3 and not self.places else states

    def compute_output_shape(self, input_shape):
        shape = self.backbone.output.shape
        return (input_shape[0], *(shape[1:] if self.places else shape[-1:]))

    def get_config(self):
        backbone = keras.saving.serialize_keras_object(self.backbone)
        return {**super().get_config(), "backbone": backbone, "frozen": self.frozen, "places": self.places}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["backbone"] = keras.saving.deserialize_keras_object(config["backbone"])
        return cls(**config)


def build_vision_transformer(
    input_shape: tuple[int, int, int],
    name: str,
    kind: str,
    patch: int,
    width: int,
    blocks: int,
    heads: int,
    mlp: int,
    **options,
) -> VisionTransformer:
    """A vision transformer with random weights.

    Args:
        input_shape: (height, width, 3). Height and width are multiples of `patch`, and equal unless `kind` is "vit".
        name: the layer's name.
        kind: "vit", "clip" or "siglip".
        patch: the size of a patch in pixels a side.
        width: D, the width of the states.
        blocks: how many transformer blocks there are.
        heads: how many heads the attention has.
        mlp: the width of the inner dense layer of a block.
        options: further arguments of keras_hub's class.

    Raises:
        ValueError: for a size that is no multiple of the patch, or for one that should be a square and is not.
    """
    import keras_hub

    height, breadth, _ = input_shape
    if height % patch or breadth % patch:
        raise ValueError(
            f"{name} sees patches of {patch}x{patch} pixels: image_size must be a multiple. Received: {input_shape}"
        )
    if kind != "vit" and height != breadth:
        raise ValueError(f"{name} sees square images alone. Received: {input_shape}")
    options |= {"num_layers": blocks, "num_heads": heads, "hidden_dim": width, "image_shape": input_shape, "patch_size": patch}
    if kind == "vit":
        backbone = keras_hub.models.ViTBackbone(mlp_dim=mlp, name=name, **options)
    elif kind == "clip":
        backbone = keras_hub.models.CLIPVisionEncoder(intermediate_dim=mlp, name=name, **options)
        # keras_hub leaves these zero until it loads a preset, which would put all patches at the same position.
        positions = backbone.embedding.position_ids
        positions.assign(np.arange(positions.shape[1])[None])
    else:
        backbone = keras_hub.models.SigLIPVisionEncoder(intermediate_dim=mlp, name=name, **options)
    return VisionTransformer(backbone, name=name)
