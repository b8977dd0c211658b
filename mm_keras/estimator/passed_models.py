"""Encoders that are passed as Keras models: checked, and brought into the form that a two-tower model takes."""

from __future__ import annotations

from pathlib import Path

import keras
import tensorflow as tf


def check_image_model(model: keras.Model) -> None:
    """Raises ValueError unless a model maps pixels [B, H, W, 3] to embeddings [B, D]."""
    input_shape, output_shape = model.input_shape, model.output_shape
    if len(input_shape) != 4 or input_shape[-1] != 3 or None in input_shape[1:] or len(output_shape) != 2:
        raise ValueError(
            f"an image_encoder that is a model maps pixels [B, H, W, 3] to embeddings [B, D]. Received: {input_shape} -> "
            f"{output_shape}"
        )


def check_text_model(model: keras.Model) -> None:
    """Raises ValueError unless a model maps strings [B] or [B, 1] to embeddings [B, D]."""
    inputs, outputs = model.inputs, model.outputs
    strings = len(inputs) == 1 and keras.backend.standardize_dtype(inputs[0].dtype) == "string"
    if not strings or inputs[0].shape[1:] not in ((), (1,)) or len(outputs) != 1 or len(outputs[0].shape) != 2:
        kinds = ", ".join(f"{tensor.dtype} {list(tensor.shape)}" for tensor in inputs)
        raise ValueError(
            "a text_encoder that is a model maps strings [B] or [B, 1] to embeddings [B, D], for example through "
            "keras.layers.TextVectorization; a model of tokens is passed as the folder of its keras_hub preset "
            f"(backbone.save_to_preset) or as a Hugging Face folder. Received: {kinds} -> {[out.shape for out in outputs]}"
        )


def as_image_tower(model: keras.Model) -> keras.Model:
    """A model that was passed, under the name by which a two-tower model finds its image tower; it stays as it is."""
    pixels = keras.Input(model.input_shape[1:], name="image")
    tower = keras.Model(pixels, model(pixels), name="image_tower")
    tower.trainable = False
    return tower


def save_text_model(model: keras.Model, folder: Path) -> None:
    """Writes a model of strings as a SavedModel that maps strings [B] to vectors float32 [B, D]."""
    columns = model.inputs[0].shape[1:] == (1,)

    def embed(texts: tf.Tensor) -> tf.Tensor:
        return tf.cast(model(texts[:, tf.newaxis] if columns else texts, training=False), tf.float32)

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", embed, input_signature=[tf.TensorSpec([None], tf.string, name="texts")])
    archive.write_out(str(folder), verbose=False)
