"""A SavedModel of strings that is trained inside a Keras model, by the only layer that works on TensorFlow alone.

`hub.KerasLayer` does not work in Keras 3. A frozen SavedModel needs no layer, since the input pipeline calls it; see
`mm_keras.tf_text_model.embedder`.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from mm_keras.configurable import configurable
from mm_keras.features import StringText, TextSpec
from mm_keras.keras_internals import track_variables
from mm_keras.tf_text_model.embedder import SavedModelEmbedder


@configurable
def build_saved_model_encoder(spec: TextSpec, name: str = "text_encoder") -> keras.Model:
    """A text encoder that fine-tunes a SavedModel, such as the Universal Sentence Encoder.

    It trains on one device only, since neither mirrored strategies nor TPUs take strings. Saved models hold a copy of it.

    Args:
        spec: the text field, with a trainable embedder.
        name: the name of the model.

    Returns:
        model: {"text" string [B]} -> [B, D]; zeros for an empty text.

    Raises:
        ValueError: for a field without a trainable embedder, a SavedModel with nothing to train, or several replicas.
    """
    if not isinstance(spec, StringText):
        raise ValueError(
            f"field {spec.field!r} has no embedder that is trained: bind make_features.make_embedder = "
            "@make_saved_model_embedder and make_saved_model_embedder.trainable = True"
        )
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas > 1:
        raise ValueError(
            f"a SavedModel that reads strings trains on one replica, not on {replicas}: set train.strategy = 'none', or "
            "make_saved_model_embedder.trainable = False"
        )
    inputs = {"text": keras.Input((), dtype="string", name="text")}
    layer = SavedModelEncoder(spec.embedder.width, spec.embedder.path, name="saved_model")
    return keras.Model(inputs, layer(inputs["text"]), name=name)


@keras.saving.register_keras_serializable(package="mm_keras")
class SavedModelEncoder(keras.layers.Layer):
    """string [B] -> float32 [B, width], zeros for an empty string. A Keras file of the model holds the SavedModel as an asset.

    Args:
        width: width of the vectors.
        path: folder of the SavedModel. None if it comes with the Keras file that is being loaded.

    Raises:
        ValueError: for a SavedModel that has nothing to train.
    """

    def __init__(self, width: int, path: str | None = None, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self._stored = {}
        self.embedder = None
        if path is not None:
            self._load(path)

    def call(self, texts):
        if self.embedder is None:
            raise ValueError(f"layer {self.name!r} has no SavedModel: it comes with a .keras file alone, not with its config")
        missing = tf.equal(texts, "")
        # "." stands in for the empty string, of which a SavedModel may make a gradient that is not finite.
        embedding = self.embedder(tf.where(missing, ".", texts))
        return tf.where(missing[:, tf.newaxis], 0.0, tf.ensure_shape(embedding, [texts.shape[0], self.width]))

    def compute_output_spec(self, texts):
        return keras.KerasTensor((texts.shape[0], self.width), "float32")

    def get_config(self):
        return {**super().get_config(), "width": self.width}

    def save_assets(self, folder):
        shutil.copytree(self._source, folder, dirs_exist_ok=True)

    def load_own_variables(self, store):
        if self.embedder is None:  # variables are read before assets
            self._stored = {name: np.array(store[name]) for name in list(store.keys())}
        else:
            super().load_own_variables(store)

    def load_assets(self, folder):
        copy = tempfile.mkdtemp()  # Keras deletes the folder after loading, but saving needs its files
        weakref.finalize(self, shutil.rmtree, copy, ignore_errors=True)
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        self._load(copy)
        super().load_own_variables(self._stored)
        self._stored = {}

    def _load(self, path):
        self._source = Path(path)
        self.embedder = SavedModelEmbedder(path, device=None)
        variables = self.embedder.trained_variables()
        if not variables:
            raise ValueError(f"{path} has nothing to train: set make_saved_model_embedder.trainable = False")
        names = [variable.name.replace("/", "_").partition(":")[0] for variable in variables]
        # A Keras variable made of a tf.Variable shares its value: training one trains the other.
        weights = [
            keras.Variable(variable, trainable=True, dtype=variable.dtype.name, name=name)
            for variable, name in zip(variables, names, strict=True)
        ]
        track_variables(self, weights)
