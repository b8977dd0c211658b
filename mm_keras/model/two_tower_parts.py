"""The parts of a two-tower model: what they are called, and how those behind the encoders are connected.

Building a model and cutting it in two both go through `TwoTowerParts`, so that no other module knows a part's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import keras

from mm_keras.features import IMAGE, present, safe_name

SHARED_TEXT_ENCODER = "text_encoder"
MODALITY_DROPOUT = "modality_dropout"


def part_name(modality: str, part: str) -> str:
    """The name of a part that each modality has for itself.

    Args:
        modality: "image" or a text field.
        part: one of the batch's tensors, such as "token_ids"; or "encoder" (of a text field; the image's is the "image_tower"),
            "encoded" (the identity that marks where the encoder ends), "cut" (where a tower is cut in two), "tuning", "norm",
            "words" (the lexical encoder), "and_words" (which joins its bag of words to the tuned embedding), "embedding" (the
            tuned embedding), "missing" or "auxiliary_head".

    Example:
        >>> part_name("title", "tuning")
        'title_tuning'
    """
    return f"{safe_name(modality)}_{part}"


class TwoTowerParts:
    """The layers of a two-tower model, found by what they do.

    A part that not every model has (`tuning`, `norm`, `words`) is None where the model lacks it.

    Args:
        layers: the model's layers; more can be added while a model is being built.
    """

    def __init__(self, layers: Iterable[keras.Layer] = ()):
        self._layers = {layer.name: layer for layer in layers}

    def add(self, layer: keras.Layer) -> keras.Layer:
        """Adds a layer under its name, and returns it."""
        self._layers[layer.name] = layer
        return layer

    def encoder(self, modality: str) -> keras.Model:
        """The image tower, or the text encoder of a field, which may be the one that all fields share."""
        name = "image_tower" if modality == IMAGE else part_name(modality, "encoder")
        return self._layers.get(name) or self._layers[SHARED_TEXT_ENCODER]

    def takes_any_length(self, modality: str) -> bool:
        """Whether a text field may be padded to less than its `max_tokens` without changing its embedding [B, D]."""
        encoder = self.encoder(modality)
        inputs = encoder.input if isinstance(encoder, keras.Model) and isinstance(encoder.input, dict) else {}
        tokens = inputs.get("token_ids")
        return tokens is not None and tokens.shape[1] is None and len(self.tuned_tensor(modality).shape) == 2

    def encoded(self, modality: str) -> keras.Layer:
        """The identity layer whose output is what the modality's encoder gives: [B, D], or [B, T, D] of a sequence."""
        return self._layers[part_name(modality, "encoded")]

    def tuning(self, modality: str) -> keras.Model | None:
        """The tuning DNN: [B, D] -> [B, units]."""
        return self._layers.get(part_name(modality, "tuning"))

    def norm(self, modality: str) -> keras.Layer | None:
        """The normalisation of the tuned embedding, of the same shape."""
        return self._layers.get(part_name(modality, "norm"))

    def words(self, modality: str) -> keras.Model | None:
        """The lexical encoder of a text field: its tokens -> [B, buckets]."""
        return self._layers.get(part_name(modality, "words"))

    def missing(self, modality: str) -> keras.Layer:
        """The layer that puts a learned embedding in the place of a missing modality."""
        return self._layers[part_name(modality, "missing")]

    @property
    def modality_dropout(self) -> keras.Layer:
        """Presence flags bool [B, M] -> [B, M], some of them hidden in training."""
        return self._layers[MODALITY_DROPOUT]

    @property
    def fusion(self) -> keras.Model:
        """The embeddings by modality -> one embedding [B, D]."""
        return self._layers["fusion"]

    @property
    def head(self) -> keras.Model:
        """The fused embedding [B, D] -> logits [B, num_labels]."""
        return self._layers["head"]

    def tuned_tensor(self, modality: str) -> keras.KerasTensor:
        """The output of `tune` within the model that the layers come from."""
        concatenation = self._layers.get(part_name(modality, "and_words"))
        return (concatenation or self.missing(modality)).input[0]

    def tune(self, modality: str, embedding: keras.KerasTensor) -> keras.KerasTensor:
        """Applies the tuning DNN and the normalisation, where the model has them, to what an encoder gives."""
        for layer in (self.tuning(modality), self.norm(modality)):
            embedding = layer(embedding) if layer else embedding
        return embedding

    def join_words(
        self, modality: str, embedding: keras.KerasTensor, inputs: Mapping[str, keras.KerasTensor]
    ) -> keras.KerasTensor:
        """Joins the bag of words of a text field to its tuned embedding; without a lexical encoder the embedding stays.

        Args:
            modality: the image or a text field.
            embedding: [B, D], by `tune`.
            inputs: the model's inputs by name; of a field with a lexical encoder, its tokens are read.
        """
        words = self.words(modality)
        if words is None:
            return embedding
        bag = words({name: inputs[part_name(modality, name)] for name in words.input})
        return self._layers[part_name(modality, "and_words")]([embedding, bag])

    def classify(
        self, embeddings: Mapping[str, keras.KerasTensor], inputs: Mapping[str, keras.KerasTensor]
    ) -> keras.KerasTensor:
        """Connects the end of the model: what `fuse` does, and the head.

        Returns:
            logits [B, num_labels].
        """
        return self.head(self.fuse(embeddings, inputs))

    def fuse(self, embeddings: Mapping[str, keras.KerasTensor], inputs: Mapping[str, keras.KerasTensor]) -> keras.KerasTensor:
        """Connects modality dropout, the embeddings of missing modalities, and the fusion.

        Args:
            embeddings: modality -> [B, D], or [B, T, D] of a sequence, by `join_words`; all modalities in their order.
            inputs: the model's inputs by name; the presence flags bool [B] are read.

        Returns:
            the fused embedding [B, D].
        """
        flags = self.modality_dropout(keras.ops.stack([inputs[present(modality)] for modality in embeddings], axis=-1))
        flag_of = {modality: flags[:, index] for index, modality in enumerate(embeddings)}
        fusion_inputs = {
            safe_name(modality): self.missing(modality)(embedding, flag_of[modality])
            for modality, embedding in embeddings.items()
        }
        read_by_fusion = {tensor.name for tensor in self.fusion.inputs}
        fusion_inputs |= {present(modality): flag for modality, flag in flag_of.items() if present(modality) in read_by_fusion}
        return self.fusion(fusion_inputs)
