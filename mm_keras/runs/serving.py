"""The functions that are served: raw strings and encoded images become labels, scores and embeddings."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from mm_keras.data.preprocess import Preprocessor
from mm_keras.features import FeatureSpec, StringText, TokenText, present, safe_name
from mm_keras.keras_internals import all_layers
from mm_keras.model.late_fusion import fused_models
from mm_keras.model.split_at_embeddings import NOT_EMBEDDED, split_in_towers
from mm_keras.model.two_tower_parts import TwoTowerParts
from mm_keras.runs.text_lengths import run_by_length, trim
from mm_keras.tf_text_model.encoder import SavedModelEncoder

DEFAULT, EMBED, TENSORS = "serving_default", "embed", "tensors"
TOP = 5
_MOST_SETS = 4  # up to so many inputs, each set of them has a signature


class ServingModule(tf.Module):
    """Preprocessing and model as functions of what a client has.

    The inputs of `serving_default` are a string tensor [B] for each modality, by its `safe_name`: `image` holds encoded bytes
    (JPEG, PNG, GIF, WebP, BMP), and a text field UTF-8. An empty string means that the modality is missing, and so does a text
    of white space. Its outputs are

        labels           string  [B, k]            the k = min(5, num_labels) most probable, best first
        probabilities    float32 [B, k]            of these labels
        scores           float32 [B, num_labels]   the probabilities of all labels: softmax, or sigmoid for multi-label
        predicted        bool    [B, num_labels]   only if multi-label: the probability exceeds its label's threshold
        error            string  [B]               why an example is not answered: its picture is damaged, too large or of
                                                   another format, or it has no input. Its scores are then 0, its labels empty

    The other examples of the batch are answered nevertheless. In a batch of one, a JPEG that has its end marker but is damaged
    inside may fail the call. A modality that no example of a batch has costs nothing, and texts are padded to the longest one
    of the batch. The other signatures:

        image, title, image_title, …   `serving_default` with the other inputs empty: see `signature_names`
        embed                          the same inputs -> `<modality>_embedding` float32 [B, D], zeros where it is missing, and
                                       `fused`, what the head sees. Late fusions have none
        tensors                        pixels and token ids, as in a batch of `features` -> `scores`. Models that take strings
                                       have none

    Args:
        model: a model that gives logits.
        features: what the model takes in.
        thresholds: probabilities [num_labels] of a multi-label model; None: 0.5 for each label.
        answer_empty: whether an example without any input gets what the model answers to it; otherwise it is an error.
    """

    def __init__(
        self,
        model: keras.Model,
        features: FeatureSpec,
        thresholds: Sequence[float] | None = None,
        answer_empty: bool = False,
        core_ops_only: bool = False,
    ):
        super().__init__()
        for layer in all_layers(model):
            if hasattr(layer, "use_cudnn"):
                layer.use_cudnn = False  # cuDNN is for GPUs alone: an export made on one would not run on a CPU
        # The model's variables and SavedModels, not the model: saving would trace each nested Keras model, which nobody needs.
        self._resources = [variable.value for variable in model.variables]
        self._resources += [layer.embedder for layer in all_layers(model) if isinstance(layer, SavedModelEncoder)]
        self._preprocessor = Preprocessor(features, core_ops_only)
        thresholds = np.asarray(0.5 if thresholds is None else thresholds, np.float32)
        self._served = _Served(_Answer(model, features), self._preprocessor, features, thresholds, answer_empty)

    def signature(self) -> Callable[..., dict[str, tf.Tensor]]:
        """The concrete function `serving_default`, of any batch size, with named inputs."""
        return self._served.default

    def answers_and_embeddings(self) -> Callable[..., dict[str, tf.Tensor]]:
        """A concrete function that gives what `serving_default` and `embed` give, and runs the towers once.

        Raises:
            ValueError: for a late fusion, which has no fused embedding.
        """
        return self._served.answers_and_embeddings

    def signatures(self) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
        """All concrete functions by name. They share their graphs, so that a further one costs little."""
        return self._served.all()


def signature_names(modalities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The signature of each set of inputs, for clients that cannot leave an input out.

    Args:
        modalities: as `FeatureSpec.modalities` names them. Of more than four, the sets of one, two, and all inputs are there.

    Returns:
        signature -> the `safe_name` of its inputs, in their order.

    Example:
        >>> signature_names(("image", "title"))
        {'image': ('image',), 'title': ('title',), 'image_title': ('image', 'title')}
    """
    keys = [safe_name(modality) for modality in modalities]
    sizes = range(1, len(keys) + 1) if len(keys) <= _MOST_SETS else (1, 2, len(keys))
    names: dict[str, tuple[str, ...]] = {}
    for subset in itertools.chain.from_iterable(itertools.combinations(keys, size) for size in sizes):
        name = "_".join(subset)
        while name in names or name in (DEFAULT, EMBED, TENSORS):
            name += "_"
        names[name] = subset
    return names


class _Served:
    """The traced functions. It is no tf.Module, since saving one would trace its functions once more."""

    def __init__(
        self,
        answer: _Answer,
        preprocessor: Preprocessor,
        features: FeatureSpec,
        thresholds: np.ndarray,
        answer_empty: bool,
    ):
        self._answer = answer
        self._preprocessor = preprocessor
        self._features = features
        self._thresholds = thresholds
        self._answer_empty = answer_empty
        self._keys = [safe_name(modality) for modality in features.modalities]

    @functools.cached_property
    def default(self) -> Callable:
        return _trace(self._serve, self._strings(self._keys))

    def all(self) -> dict[str, Callable]:
        signatures = {DEFAULT: self.default}
        for name, keys in signature_names(self._features.modalities).items():
            signatures[name] = _trace(self._serve_some, self._strings(keys))
        if self._answer.embeds:
            signatures[EMBED] = _trace(self._embed, self._strings(self._keys))
        if not any(isinstance(text, StringText) for text in self._features.texts):
            signatures[TENSORS] = _trace(lambda **inputs: {"scores": self._answer(inputs)["scores"]}, self._answer.specs)
        return signatures

    @functools.cached_property
    def _read(self) -> Callable:
        """Raw inputs -> the features of a batch, and why an example is not answered."""

        def read(**raw):
            inputs, error = self._preprocessor.checked_raw(raw)
            if not self._answer_empty:
                has_input = tf.reduce_any(tf.stack([inputs[present(name)] for name in self._features.modalities]), axis=0)
                message = f"the example has none of the inputs {', '.join(self._keys)}"
                error = tf.where(has_input | (error != ""), error, message)
            return inputs | {"error": error}

        return _trace(read, self._strings(self._keys))

    @functools.cached_property
    def answers_and_embeddings(self) -> Callable:
        if not self._answer.embeds:
            raise ValueError(NOT_EMBEDDED)

        def both(**raw: tf.Tensor) -> dict[str, tf.Tensor]:
            inputs, error, answer = self._ask(raw)
            return self._embeddings(inputs, error, answer) | self._answers(error, answer["scores"])

        return _trace(both, self._strings(self._keys))

    def _ask(self, raw: Mapping[str, tf.Tensor]) -> tuple[dict[str, tf.Tensor], tf.Tensor, dict[str, tf.Tensor]]:
        """(the features of a batch, why an example is not answered, what the model says)."""
        inputs = dict(self._read(**raw))
        error = inputs.pop("error")
        return inputs, error, self._answer(inputs)

    def _serve(self, **raw: tf.Tensor) -> dict[str, tf.Tensor]:
        _, error, answer = self._ask(raw)
        return self._answers(error, answer["scores"])

    def _answers(self, error: tf.Tensor, scores: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities, indices = tf.math.top_k(scores, min(TOP, len(self._features.labels)))
        labels = tf.gather(tf.constant(self._features.labels), indices)
        answer = {"labels": labels, "probabilities": probabilities, "scores": scores}
        answer |= {"predicted": scores > self._thresholds} if self._features.multi_label else {}
        answered = error[:, tf.newaxis] == ""
        return {name: tf.where(answered, value, tf.zeros([], value.dtype)) for name, value in answer.items()} | {"error": error}

    def _serve_some(self, **raw: tf.Tensor) -> dict[str, tf.Tensor]:
        empty = tf.fill(tf.shape(next(iter(raw.values()))), "")
        return self.default(**{key: raw.get(key, empty) for key in self._keys})

    def _embed(self, **raw: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._embeddings(*self._ask(raw))

    def _embeddings(
        self, inputs: Mapping[str, tf.Tensor], error: tf.Tensor, answer: Mapping[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        embeddings = {"error": error, "fused": answer["fused"]}
        for modality in self._features.modalities:
            value = answer[f"{safe_name(modality)}_embedding"]
            flag = tf.reshape(inputs[present(modality)], [-1, *[1] * (value.shape.rank - 1)])
            embeddings[f"{safe_name(modality)}_embedding"] = tf.where(flag, value, tf.zeros([], value.dtype))
        return embeddings

    @staticmethod
    def _strings(keys: Sequence[str]) -> dict[str, tf.TensorSpec]:
        return {key: tf.TensorSpec([None], tf.string, name=key) for key in keys}


class _Answer:
    """The model as a function of the features of a batch, traced once: it gives `scores`, and the embeddings of a two-tower."""

    def __init__(self, model: keras.Model, features: FeatureSpec):
        self._model = model
        self._features = features
        self.embeds = fused_models(model) is None
        parts = TwoTowerParts(model.layers)
        self._towers, self._rest = split_in_towers(model, features) if self.embeds else ({}, None)
        self._trimmed = [
            text for text in features.texts if self.embeds and isinstance(text, TokenText) and parts.takes_any_length(text.name)
        ]

    @functools.cached_property
    def specs(self) -> dict[str, tf.TensorSpec]:
        """The model's inputs by name; texts of any length have any number of tokens."""
        free = {name for text in self._trimmed for name in text.batch_names().values()}
        shapes = {name: (None,) if name in free else shape for name, (shape, _) in self._features.inputs().items()}
        return {
            name: tf.TensorSpec([None, *shapes[name]], dtype, name=name) for name, (_, dtype) in self._features.inputs().items()
        }

    def __call__(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return self._traced(**self._trim(inputs))

    @functools.cached_property
    def _traced(self) -> Callable:
        def answer(**inputs):
            outputs = self._run_parts(inputs) if self.embeds else {"logits": self._model(inputs, training=False)}
            logits = outputs.pop("logits")
            return outputs | {"scores": tf.sigmoid(logits) if self._features.multi_label else tf.nn.softmax(logits)}

        return _trace(answer, self.specs)

    def _run_parts(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        embeddings = {
            f"{safe_name(modality)}_embedding": self._run_tower(modality, tower, inputs)
            for modality, tower in self._towers.items()
        }
        rest_inputs = {name: embeddings[name] if name in embeddings else inputs[name] for name in self._rest.input}
        return embeddings | self._rest(rest_inputs, training=False)

    def _run_tower(self, modality: str, tower: keras.Model, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The embeddings of a modality. If no example has it, the tower is skipped: zeros stand in, which nothing uses."""
        tower_inputs, shown = {name: inputs[name] for name in tower.input}, inputs[present(modality)]
        text = next((text for text in self._trimmed if text.name == modality), None)

        def skip() -> tf.Tensor:
            return tf.zeros(tf.stack([tf.size(shown), *tower.output.shape[1:]]), tower.output.dtype)

        def run() -> tf.Tensor:
            return run_by_length(tower, tower_inputs, text) if text else tower(tower_inputs, training=False)

        return tf.cond(tf.reduce_any(shown), run, skip)

    def _trim(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Cuts off the tokens that are padding in all texts of a field."""
        trimmed = dict(inputs)
        for text in self._trimmed:
            trimmed = trim(trimmed, text)
        return trimmed


def _trace(function: Callable, specs: Mapping[str, tf.TensorSpec]) -> Callable:
    return tf.function(function, autograph=False).get_concrete_function(**specs)
