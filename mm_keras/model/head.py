"""Classification heads: fused embedding -> logits. Pure Keras."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from mm_keras.configurable import PositiveFloat, PositiveInt, Rate, configurable

_MAX_SCALE = 100.0


@configurable
def build_head(input_width: int, num_labels: int, hidden_units: Sequence[PositiveInt] = (), dropout: Rate = 0.1) -> keras.Model:
    """Dense layers, of which the last has one logit a label. The loss chooses softmax (multi-class) or sigmoid (multi-label).

    Args:
        input_width: D, the width of the fused embedding.
        num_labels: how many logits there are.
        hidden_units: the width of each layer before the last; none by default.
        dropout: rate, within [0, 1), of the dropout before each dense layer.

    Returns:
        model "head": [B, input_width] -> logits [B, num_labels], which are float32 under mixed precision, too.
    """
    inputs = x = keras.Input((input_width,), name="fused")
    for index, width in enumerate(hidden_units):
        x = keras.layers.Dropout(dropout, name=f"dropout_{index}")(x)
        x = keras.layers.Dense(width, activation="relu", name=f"dense_{index}")(x)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    logits = keras.layers.Dense(num_labels, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="head")


@configurable
def build_per_label_head(input_width: int, num_labels: int, dropout: Rate = 0.4) -> keras.Model:
    """A dropout and a dense layer of one unit for each label, so that labels share nothing but the fused embedding.

    It differs from `build_head` only in training, where each label drops other inputs. That takes memory for
    B x input_width x num_labels numbers: use it for tens of labels, not for thousands.

    Args:
        input_width: D, the width of the fused embedding.
        num_labels: how many logits there are.
        dropout: rate of the dropout, within [0, 1).

    Returns:
        model "head": [B, input_width] -> logits float32 [B, num_labels].
    """
    inputs = keras.Input((input_width,), name="fused")
    return keras.Model(inputs, PerLabelDense(num_labels, dropout, dtype="float32", name="logits")(inputs), name="head")


@configurable
def build_class_embedding_head(
    input_width: int,
    num_labels: int,
    class_embeddings: np.ndarray | None = None,
    width: PositiveInt | None = None,
    dropout: Rate = 0.1,
    initial_scale: PositiveFloat = 10.0,
    initial_bias: float = 0.0,
) -> keras.Model:
    """Compares the fused embedding with an embedding of each class; the logits are their scaled cosines.

    A learned projection brings the fused embedding into the space of the class embeddings. No learned weight belongs to one
    class, so that a class can be added by its embedding alone: see `add_classes`.

    Args:
        input_width: D, the width of the fused embedding.
        num_labels: how many logits there are.
        class_embeddings: float [num_labels, C], by a text encoder; they are not trained.
        width: the width of the space in which both are compared; the class embeddings then have a learned projection, too.
            None compares them in the text encoder's own space of width C.
        dropout: rate of the dropout of the fused embedding, within [0, 1).
        initial_scale: the factor of the cosines when training begins, above 0 and at most 100. It is learned, up to 100.
        initial_bias: a number that is added to all logits when training begins, and is learned. For sigmoids over many
            labels, of which an example has few, a negative bias such as -5 saves the first steps.

    Returns:
        model "head": [B, input_width] -> logits float32 [B, num_labels].

    Raises:
        ValueError: for class embeddings that are not given, have another shape, or are zero or not finite.

    Reference: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (CLIP), figure 3; the
    bias is that of Zhai et al., "Sigmoid Loss for Language Image Pre-Training".
    """
    if class_embeddings is None:
        raise ValueError("build_class_embedding_head needs class embeddings; bind train.embed_classes = @embed_classes")
    classes = _unit_rows(class_embeddings, num_labels)
    inputs = keras.Input((input_width,), name="fused")
    x = keras.layers.Dropout(dropout, name="dropout")(inputs)
    x = keras.layers.Dense(width or classes.shape[1], name="projection")(x)
    layer = ClassSimilarity(
        num_labels, classes.shape[1], width, initial_scale, initial_bias, dtype="float32", name="class_similarity"
    )
    model = keras.Model(inputs, layer(x), name="head")
    layer.class_embeddings.assign(classes)
    return model


def add_classes(model: keras.Model, class_embeddings: np.ndarray) -> keras.Model:
    """Adds classes to a trained model: new logits behind the old ones, which do not change.

    Args:
        model: a model that `build_two_tower` built with a class-embedding head.
        class_embeddings: float [K, C] of the new classes, by the text encoder that embedded the old ones.

    Returns:
        model: the same inputs -> logits [B, num_labels + K]. It shares all layers but the head's last one with `model`.

    Raises:
        ValueError: for a model with another head, or for embeddings of another width, zero or not finite.
    """
    head, old = model.get_layer("head"), _class_similarity(model)
    new_rows = _unit_rows(class_embeddings, len(class_embeddings), old.class_width)
    new = ClassSimilarity.from_config({**old.get_config(), "num_labels": old.num_labels + len(new_rows)})
    new_head = keras.models.clone_model(head, clone_function=lambda layer: new if layer is old else layer)
    for new_weight, old_weight in zip(new.weights, old.weights, strict=True):
        if new_weight is not new.class_embeddings:
            new_weight.assign(old_weight)
    new.class_embeddings.assign(np.concatenate([ops.convert_to_numpy(old.class_embeddings), new_rows]))
    return keras.models.clone_model(model, clone_function=lambda layer: new_head if layer is head else layer)


def embed_class(model: keras.Model, fused: np.ndarray) -> np.ndarray:
    """Embeds a class by examples instead of a text: the class of this embedding is most like them.

    Args:
        model: a model that `build_two_tower` built with a class-embedding head.
        fused: float [N, D], the fused embeddings of examples of the class.

    Returns:
        float32 [C], for `add_classes`: the mean direction of the projected examples, the prototype of Snell et al.,
        "Prototypical Networks for Few-shot Learning", equation 1. Where classes have a projection of their own, it is what this
        brings to that direction.

    Raises:
        ValueError: for a model with another head.
    """
    head, similarity = model.get_layer("head"), _class_similarity(model)
    project = keras.Model(head.input, similarity.input)
    directions = ops.normalize(project(np.asarray(fused, "float32"), training=False), axis=-1)
    embedding = ops.convert_to_numpy(ops.mean(directions, axis=0))
    if similarity.width:
        embedding = embedding @ np.linalg.pinv(ops.convert_to_numpy(similarity.projection))
    return _unit_rows(embedding[np.newaxis], 1)[0]


def _class_similarity(model: keras.Model) -> ClassSimilarity:
    """The layer that compares with classes; ValueError for a model with another head."""
    layers = model.get_layer("head").layers
    similarity = next((layer for layer in layers if isinstance(layer, ClassSimilarity)), None)
    if similarity is None:
        raise ValueError(
            "only a model with a class-embedding head takes new classes; train one with "
            "build_two_tower.head = @build_class_embedding_head"
        )
    return similarity


def grow_head(model: keras.Model, shares: np.ndarray) -> keras.Model:
    """Adds classes to a trained model whose head has a column of weights a class: new logits behind the old ones.

    Args:
        model: a model that `build_two_tower` built with `build_head` or `build_per_label_head`.
        shares: float [K, num_labels]: each new class begins with the sum of the old columns, weighted by its row.

    Returns:
        model: the same inputs -> logits [B, num_labels + K], of which the old ones do not change. It shares all layers but the
        head's last one with `model`.

    Raises:
        ValueError: for a model with another head.
    """
    head = model.get_layer("head")
    old = head.layers[-1]
    if not isinstance(old, keras.layers.Dense | PerLabelDense):
        raise ValueError(
            f"classes are added to a head of dense layers, not to one that ends in {type(old).__name__}; `mm-keras "
            "add-classes` adds them to a head of class embeddings"
        )
    units = "units" if isinstance(old, keras.layers.Dense) else "num_labels"
    kernel, bias = map(ops.convert_to_numpy, (old.kernel, old.bias))
    new = type(old).from_config({**old.get_config(), units: len(bias) + len(shares)})
    new_head = keras.models.clone_model(head, clone_function=lambda layer: new if layer is old else layer)
    new.kernel.assign(np.concatenate([kernel, kernel @ shares.T], axis=1))
    new.bias.assign(np.concatenate([bias, shares @ bias]))
    return keras.models.clone_model(model, clone_function=lambda layer: new_head if layer is head else layer)


@keras.saving.register_keras_serializable(package="mm_keras")
class PerLabelDense(keras.layers.Layer):
    """[B, D] -> [B, num_labels]: a dense layer of which each unit drops other inputs in training.

    Args:
        num_labels: how many units there are.
        rate: rate of the dropout, within [0, 1).
        seed: the seed of the dropout; None follows Keras' global seed.

    Raises:
        ValueError: for a rate outside [0, 1).
    """

    def __init__(self, num_labels: int, rate: float, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be within [0, 1). Received: {rate}")
        self.num_labels = num_labels
        self.rate = rate
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.num_labels), initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(self.num_labels,), initializer="zeros", name="bias")

    def call(self, fused, training=False):
        if not training or not self.rate:
            return ops.matmul(fused, self.kernel) + self.bias
        products = ops.expand_dims(fused, -1) * self.kernel
        return ops.sum(keras.random.dropout(products, self.rate, seed=self.seed_generator), axis=1) + self.bias

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.num_labels)

    def get_config(self):
        return {**super().get_config(), "num_labels": self.num_labels, "rate": self.rate, "seed": self.seed}


@keras.saving.register_keras_serializable(package="mm_keras")
class ClassSimilarity(keras.layers.Layer):
    """[B, width or class_width] -> [B, num_labels]: scale x cosine to the embedding of each class + bias.

    The class embeddings are a weight of shape [num_labels, class_width] that is not trained. The scale, the bias and, with a
    `width`, the projection of shape [class_width, width] are trained.

    Args:
        num_labels: how many classes there are.
        class_width: the width of their embeddings.
        width: the width that the class embeddings are projected to; None leaves them as they are.
        initial_scale: the scale when training begins, above 0 and at most 100.
        initial_bias: the bias when training begins.

    Raises:
        ValueError: for a scale outside (0, 100].
    """

    def __init__(
        self,
        num_labels: int,
        class_width: int,
        width: int | None = None,
        initial_scale: float = 10.0,
        initial_bias: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not 0 < initial_scale <= _MAX_SCALE:
            raise ValueError(f"initial_scale must be within (0, {_MAX_SCALE:g}]. Received: {initial_scale}")
        self.num_labels = num_labels
        self.class_width = class_width
        self.width = width
        self.initial_scale = initial_scale
        self.initial_bias = initial_bias

    def build(self, input_shape):
        self.class_embeddings = self.add_weight(
            shape=(self.num_labels, self.class_width), initializer="zeros", trainable=False, name="class_embeddings"
        )
        if self.width:
            shape = (self.class_width, self.width)
            self.projection = self.add_weight(shape=shape, initializer="glorot_uniform", name="projection")
        start = keras.initializers.Constant(float(np.log(self.initial_scale)))
        self.log_scale = self.add_weight(shape=(), initializer=start, name="log_scale")
        self.bias = self.add_weight(shape=(), initializer=keras.initializers.Constant(self.initial_bias), name="bias")

    def call(self, embedding):
        classes = self.class_embeddings  # each row has a length of 1 already
        if self.width:
            classes = ops.normalize(ops.matmul(classes, self.projection), axis=-1)
        cosines = ops.matmul(ops.normalize(embedding, axis=-1), ops.transpose(classes))
        return ops.minimum(ops.exp(self.log_scale), _MAX_SCALE) * cosines + self.bias

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.num_labels)

    def get_config(self):
        names = ("num_labels", "class_width", "width", "initial_scale", "initial_bias")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _unit_rows(embeddings: np.ndarray, num_classes: int, width: int | None = None) -> np.ndarray:
    """Checks class embeddings and scales each of them to a length of 1: float32 [num_classes, C]."""
    embeddings = np.asarray(embeddings, "float32")
    if embeddings.ndim != 2 or len(embeddings) != num_classes or (width and embeddings.shape[1] != width):
        raise ValueError(
            f"class embeddings must have shape [{num_classes}, {width or 'C'}], a row a class. Received: {embeddings.shape}"
        )
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)))
    if len(bad):
        raise ValueError(f"the embedding of class {bad[0]} is zero or not finite: its text has no known word, or is empty")
    return embeddings / lengths
