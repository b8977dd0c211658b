"""The function that is served: it maps raw strings and encoded images to probabilities."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from mm_keras.data.preprocess import Preprocessor
from mm_keras.features import FeatureSpec, safe_name
from mm_keras.keras_internals import all_layers
from mm_keras.tf_text_model.encoder import SavedModelEncoder


class ServingModule(tf.Module):
    """Preprocessing and model as one function of what a client has.

    Its inputs are a string tensor [B] for each modality, by its `safe_name`: `image` holds encoded bytes (JPEG, PNG, GIF, WebP,
    BMP), and a text field UTF-8. An empty string means that the modality is missing, and so does a text of white space. Its
    outputs are

        probabilities        float32 [B, num_labels]   softmax, or sigmoid for multi-label
        top_labels           string  [B, k]            the k = min(5, num_labels) most probable, best first
        top_probabilities    float32 [B, k]
        predicted            bool    [B, num_labels]   only if multi-label: the probability exceeds its label's threshold
        error                string  [B]               why an example is not answered: its picture is damaged, too large or of
                                                       another format. Its probabilities are then 0, its labels empty

    The others of the batch are answered. Of a batch of one, a picture with damaged data fails the call.

    Args:
        model: a model that gives logits.
        features: what the model takes in.
        thresholds: probabilities [num_labels] of a multi-label model; None: 0.5 for each label.
    """

    def __init__(self, model: keras.Model, features: FeatureSpec, thresholds: Sequence[float] | None = None):
        super().__init__()
        self._features = features
        self._thresholds = np.asarray(0.5 if thresholds is None else thresholds, np.float32)
        for layer in all_layers(model):
            if hasattr(layer, "use_cudnn"):
                layer.use_cudnn = False  # its kernels exist for GPUs alone: an export made on one would not run on a CPU
        # Its variables and SavedModels, not itself: saving would trace each nested Keras model anew, for nobody.
        self._resources = [variable.value for variable in model.variables]
        self._resources += [layer.embedder for layer in all_layers(model) if isinstance(layer, SavedModelEncoder)]
        self._preprocessor = Preprocessor(features)
        self._labels = tf.constant(features.labels)
        # In a closure: a tf.function that is an attribute would be traced once more when it is saved.
        self._trace = lambda **specs: tf.function(functools.partial(self._serve, model)).get_concrete_function(**specs)

    def signature(self):
        """The concrete function of any batch size, with named inputs."""
        keys = map(safe_name, self._features.modalities)
        return self._trace(**{key: tf.TensorSpec([None], tf.string, name=key) for key in keys})

    def _serve(self, model: keras.Model, **raw: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs, error = self._preprocessor.checked_raw(raw)
        logits = model(inputs, training=False)
        probabilities = tf.sigmoid(logits) if self._features.multi_label else tf.nn.softmax(logits)
        best, indices = tf.math.top_k(probabilities, min(5, len(self._features.labels)))
        answer = {
            "probabilities": probabilities,
            "top_labels": tf.gather(self._labels, indices),
            "top_probabilities": best,
        }
        answer |= {"predicted": probabilities > self._thresholds} if self._features.multi_label else {}
        answered = error[:, tf.newaxis] == ""
        return {name: tf.where(answered, value, tf.zeros([], value.dtype)) for name, value in answer.items()} | {"error": error}
