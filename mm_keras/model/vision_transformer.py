"""Vision transformers of keras_hub (ViT, CLIP, SigLIP) as backbones of image towers. Pure Keras."""

from __future__ import annotations

import keras
import numpy as np


@keras.saving.register_keras_serializable(package="mm_keras")
class VisionTransformer(keras.layers.Layer):
    """float32 [B, H, W, 3], normalised -> [B, D], or [B, T, D], by a vision transformer of keras_hub.

    The embedding is the class token's last state, normalised (ViT, and CLIP before its projection: what the paper's linear
    probes see), or what SigLIP's attention pooling gives.

    keras_hub's models forget, when they are saved, which of their layers were frozen; this layer remembers.

    Args:
        backbone: a ViTBackbone, CLIPVisionEncoder or SigLIPVisionEncoder.
        frozen: how many `parts` are frozen, from the first on.
        places: give the states of all tokens instead; of ViT and CLIP.
    """

    def __init__(self, backbone: keras.Model, frozen: int = 0, places: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.backbone = backbone
        self.places = places
        self.freeze(frozen)

    @property
    def parts(self) -> dict[str, list[keras.layers.Layer]]:
        """The layers of "embedding", of "block_0", "block_1", … and of "norm", in order."""
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
        """Freezes the first `number` of `parts`, and no other."""
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
        input_shape: (height, width, 3): multiples of the patch, a square but for "vit".
        name: of the layer.
        kind: "vit", "clip" or "siglip".
        patch: pixels a side.
        width: of the states: D.
        blocks: number of transformer blocks.
        heads: of attention.
        mlp: width of the inner dense layer.
        options: of keras_hub's class.

    Raises:
        ValueError: for a size that the patches do not fill, or that is no square.
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
        # keras_hub leaves these zero until it loads a preset: all patches at the same position.
        positions = backbone.embedding.position_ids
        positions.assign(np.arange(positions.shape[1])[None])
    else:
        backbone = keras_hub.models.SigLIPVisionEncoder(intermediate_dim=mlp, name=name, **options)
    return VisionTransformer(backbone, name=name)
