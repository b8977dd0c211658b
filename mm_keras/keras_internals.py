"""Every call of a private function of Keras, keras_hub or TensorFlow, each with the public way that was tried instead.

Each call checks that the library's version is the one that it was written for, and `tests/mm_keras/test_keras_internals.py`
says what it expects of the library. TensorFlow and keras_hub are imported inside functions: what `model/` needs of this module
works on any of Keras' backends.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

import keras
from keras import ops

_VERSIONS = {"keras": "3.15", "keras_hub": "0.32", "tensorflow": "2.21"}


def check_version(library: str) -> None:
    """Checks that a library's private functions are those that this module was written for.

    Args:
        library: "keras", "keras_hub" or "tensorflow".

    Raises:
        RuntimeError: if another minor version is installed.
    """
    version, expected = importlib.import_module(library).__version__, _VERSIONS[library]
    if ".".join(version.split(".")[:2]) != expected:
        package = library.replace("_", "-")
        raise RuntimeError(
            f"mm_keras calls private functions of {library} {expected}, and another version may have changed them. Received: "
            f"{library} {version}; install {package}=={expected}.*, or run tests/mm_keras/test_keras_internals.py and "
            f"tests/mm_keras/distribution with {version}, change mm_keras/keras_internals.py accordingly, and the version there"
        )


def all_layers(layer: keras.Layer) -> list[keras.Layer]:
    """The layer itself and all layers inside of it, at any depth."""
    # Public: `model.layers` lists the layers of a model, but not those inside a layer that is no model, for instance the GRUs
    # in a `Bidirectional` or the dense layers of a transformer's block.
    check_version("keras")
    return layer._flatten_layers()


def build_from_shapes(model: keras.Model, batch: object) -> None:
    """Makes all variables of a compiled model, of its metrics and of its loss, without a batch.

    Args:
        model: compiled; what is built already stays.
        batch: (features, labels[, weights]) of objects that have a shape and a dtype, such as a dataset's `element_spec`.
    """
    # Public: `fit`, `train_on_batch` and `evaluate` make the variables of metrics, but compute with a batch; `model.build`
    # makes only those of layers.
    check_version("keras")
    model._symbolic_build(data_batch=batch)


def skip_build_in_fit(model: keras.Model) -> None:
    """Keeps `fit` and `evaluate` from looking at a batch to build the model; `build_from_shapes` has to be called before."""
    # Public: none. `fit` looks at the first batch even where all is built, and on several replicas it averages that batch,
    # which fails for flags, since a bool has no average.
    check_version("keras")
    model._maybe_symbolic_build = lambda **_: None


def track_variables(layer: keras.Layer, variables: Sequence[keras.Variable]) -> None:
    """Makes existing variables weights of a layer, also of one that is built."""
    # Public: `add_weight` makes a variable with a value of its own, while these share theirs with a SavedModel; an attribute
    # with variables is tracked, but a built layer refuses it, and a layer is built before its assets are loaded.
    check_version("keras")
    layer._tracker.unlock()
    for variable in variables:
        layer._track_variable(variable)
    if layer.built:
        layer._tracker.lock()


def preset_class_and_config(source: str) -> tuple[type[keras.Model], dict]:
    """The class of the backbone in a preset of keras_hub or a Hugging Face folder, and the content of its config.json."""
    # Public: `keras_hub.models.Backbone.from_preset(source)` finds the class, but makes the model with that, and dropout is
    # an argument that not all classes have.
    check_version("keras_hub")
    from keras_hub.src.utils.preset_utils import get_preset_loader

    loader = get_preset_loader(source)
    return loader.check_backbone_class(), loader.config


def set_feedforward_activation(block: keras.Layer, activation: Callable) -> None:
    """Makes a built `keras_hub.layers.TransformerEncoder` compute and save another activation."""
    # Public: `block.activation` is what is saved, but a built block computes with that of its dense layer. A block made anew
    # with the other activation would have to be put into the backbone's graph.
    check_version("keras_hub")
    block.activation = activation
    block._feedforward_intermediate_dense.activation = activation


class SummedGradients:
    """Base of an optimizer, before one of Keras' classes, that adds up gradients of all replicas before anything else.

    With `gradient_accumulation_steps`, so many batches make one update, of their mean gradient. Weight decay is not applied:
    `update_step` has to do so. A subclass may use `index_of` and `is_decayed` in it.
    """

    # Public: Keras clips on each replica before gradients are added up, and accumulates inside of a condition, in which most
    # replicas can not exchange anything. `apply` is public, but clips and accumulates itself, and a custom `train_step` that
    # adds up before `apply` would have Keras add up again.

    def __init__(self, *args, **kwargs):
        check_version("keras")
        check_version("tensorflow")
        super().__init__(*args, **kwargs)

    def index_of(self, variable) -> int:
        """The place of a trained weight, or of its value on this replica, among those that the optimizer was built for."""
        # Public: none. The value on a replica is another object than the weight.
        return self._get_variable_index(variable)

    def is_decayed(self, variable) -> bool:
        """Is the weight not among those of `exclude_from_weight_decay`?"""
        # Public: `exclude_from_weight_decay` sets what only this function reads.
        return self._use_weight_decay(variable)

    def ends_update(self):
        """Is this the last of the batches whose gradients make one update? A bool tensor; with accumulation alone."""
        # Public: `iterations` counts updates.
        return (self._iterations + 1) % self.gradient_accumulation_steps == 0

    def _backend_apply_gradients(self, grads, trainable_variables):
        import tensorflow as tf

        variables = [getattr(variable, "value", variable) for variable in trainable_variables]
        grads = [grad for grad, _ in self._all_reduce_sum_gradients(zip(grads, variables, strict=True))]
        sums = []
        if self.gradient_accumulation_steps:
            sums = [self._accumulated_gradients[self._get_variable_index(variable)] for variable in trainable_variables]
            totals = [grad + ops.convert_to_tensor(before) for grad, before in zip(grads, sums, strict=True)]
            sums = list(zip(sums, totals, strict=True))
            grads = [total / self.gradient_accumulation_steps for total in totals]
        updates = list(zip(self._clip_gradients(grads), variables, strict=True))
        # Public: `ReplicaContext.merge_call` cannot be compiled by XLA, and strategies that need none forbid it.
        merge = tf.__internal__.distribute.interim.maybe_merge_call
        merge(self._update_all, self._distribution_strategy, updates, sums, self.learning_rate)

    def _update_all(self, strategy, updates, sums, learning_rate):
        self._distributed_tf_update_step(strategy, updates, learning_rate)
        for variable, total in sums:
            strategy.extended.update(variable.value, self._keep_sum, args=(total,), group=False)

    def _keep_sum(self, variable, total):
        variable.assign(ops.where(self.ends_update(), ops.zeros_like(total), total))

    # Between updates nothing may change. Inside a condition replicas could not exchange anything, so zeros are added instead.

    def assign(self, variable, value):
        super().assign(variable, ops.where(self.ends_update(), value, variable) if self.gradient_accumulation_steps else value)

    def assign_add(self, variable, value):
        super().assign_add(variable, ops.where(self.ends_update(), value, 0) if self.gradient_accumulation_steps else value)

    def assign_sub(self, variable, value):
        super().assign_sub(variable, ops.where(self.ends_update(), value, 0) if self.gradient_accumulation_steps else value)
