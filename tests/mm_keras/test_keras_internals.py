"""What mm_keras expects of private functions of Keras, keras_hub and TensorFlow; and that it calls them in one module alone."""

import ast
import importlib
import json
from pathlib import Path

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

import mm_keras
from mm_keras import keras_internals
from mm_keras.distribution.strategy import make_strategy

PACKAGE = Path(mm_keras.__file__).parent
ROOM = PACKAGE / "keras_internals.py"
OTHERS_ROOMS = {"config": "_CONFIG"}  # module or folder -> the private name of gin that it may read
PUBLIC = {"os._exit"}


@pytest.mark.parametrize("library", ["keras", "keras_hub", "tensorflow"])
def test_another_version_is_refused_with_what_to_do(monkeypatch, library):
    keras_internals.check_version(library)
    monkeypatch.setattr(importlib.import_module(library), "__version__", "9.8.7")
    install = library.replace("_", "-")
    with pytest.raises(RuntimeError, match=rf"Received: {library} 9\.8\.7; install {install}==\d.*test_keras_internals\.py"):
        keras_internals.check_version(library)


def test_all_layers_are_those_at_any_depth_each_once():
    inner = keras.Sequential([keras.Input((2, 3)), keras.layers.Bidirectional(keras.layers.GRU(2), name="both")], name="inner")
    inputs = keras.Input((2, 3))
    model = keras.Model(inputs, keras.layers.Dense(1, name="dense")(inner(inputs)))
    layers = keras_internals.all_layers(model)
    assert layers[0] is model
    assert {"inner", "both", "dense"} <= {layer.name for layer in layers}
    assert sum(isinstance(layer, keras.layers.GRU) for layer in layers) == 2
    assert len({id(layer) for layer in layers}) == len(layers)


def _compiled():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[keras.metrics.MeanSquaredError(name="error")], jit_compile=False)
    return model


def _batches():
    return tf.data.Dataset.from_tensors((tf.ones([4, 3]), tf.ones([4, 1]), tf.ones([4])))


def test_metrics_are_built_from_shapes_without_changing_a_weight():
    model = _compiled()
    before = [weight.numpy() for weight in model.weights]
    assert len(model.metrics_variables) < 4
    keras_internals.build_from_shapes(model, _batches().element_spec)
    assert len(model.metrics_variables) == 4  # total and count, of the loss and of the error
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_fit_and_evaluate_ask_the_function_that_is_replaced_to_build():
    assert callable(keras.Model._maybe_symbolic_build)
    model = _compiled()
    keras_internals.build_from_shapes(model, _batches().element_spec)
    keras_internals.skip_build_in_fit(model)
    calls, skip = [], model._maybe_symbolic_build
    model._maybe_symbolic_build = lambda **arguments: calls.append(list(arguments)) or skip(**arguments)
    model.fit(_batches(), shuffle=False, verbose=0)
    model.evaluate(_batches(), verbose=0)
    assert calls == [["iterator"], ["iterator"]]


def test_variables_become_weights_of_a_built_layer_which_then_refuses_others_again():
    layer = keras.layers.Layer()
    layer.build(())
    value = tf.Variable([1.0, 2.0])
    keras_internals.track_variables(layer, [keras.Variable(value, trainable=True, name="shared")])
    (weight,) = layer.trainable_weights
    weight.assign([3.0, 4.0])
    np.testing.assert_array_equal(value, [3, 4])
    with pytest.raises(ValueError, match="You cannot add new elements of state"):
        layer.another = keras.Variable([1.0])


def _backbone(**options):
    sizes = {"vocabulary_size": 10, "num_layers": 1, "num_heads": 1, "hidden_dim": 4, "intermediate_dim": 8}
    return keras_hub.models.BertBackbone(**sizes, max_sequence_length=6, **options)


def test_preset_tells_class_and_config(tmp_path):
    _backbone().save_to_preset(str(tmp_path))
    backbone_class, config = keras_internals.preset_class_and_config(str(tmp_path))
    assert backbone_class is keras_hub.models.BertBackbone
    assert config == json.loads((tmp_path / "config.json").read_text())


def test_built_transformer_computes_and_saves_the_activation_it_is_given():
    (block,) = (layer for layer in _backbone().layers if isinstance(layer, keras_hub.layers.TransformerEncoder))
    inputs = np.random.default_rng(0).normal(size=(1, 6, 4)).astype("float32")
    before = np.array(block(inputs))
    keras_internals.set_feedforward_activation(block, keras.activations.relu)
    assert block.get_config()["activation"] == keras.activations.serialize(keras.activations.relu)
    copy = keras_hub.layers.TransformerEncoder.from_config(block.get_config())
    copy.build(inputs.shape)
    copy.set_weights(block.get_weights())
    np.testing.assert_allclose(block(inputs), copy(inputs), rtol=1e-6)
    assert np.abs(np.array(block(inputs)) - before).max() > 1e-4


class Descent(keras_internals.SummedGradients, keras.optimizers.SGD):
    def update_step(self, gradient, variable, learning_rate):
        self.seen = (self.index_of(variable), self.is_decayed(variable))
        super().update_step(gradient, variable, learning_rate)


def _weights(*names):
    return [keras.Variable([1.0, 1.0], name=name) for name in names]


def test_gradients_of_replicas_are_added_up_before_they_are_clipped():
    """Each gradient's norm is 0.9 and that of their sum 1.8, which is clipped to 1; in Keras the step would be 1.8."""
    strategy = make_strategy("mirrored")
    with strategy.scope():
        (weight,) = _weights("kernel")
        optimizer = Descent(1.0, global_clipnorm=1.0)
        optimizer.build([weight])
    tf.function(strategy.run)(lambda: optimizer.apply([tf.constant([0.9, 0.0])], [weight]))
    np.testing.assert_allclose(weight.numpy(), [0, 1], atol=1e-6)


def test_accumulated_gradients_change_weights_once_by_their_mean():
    (weight,) = _weights("kernel")
    optimizer = Descent(1.0, gradient_accumulation_steps=2)
    optimizer.build([weight])
    optimizer.apply([tf.constant([0.2, 0.0])], [weight])
    np.testing.assert_array_equal(weight, [1, 1])
    assert bool(optimizer.ends_update())
    optimizer.apply([tf.constant([0.4, 0.0])], [weight])
    np.testing.assert_allclose(weight, [0.7, 1], rtol=1e-6)
    assert not bool(optimizer.ends_update())
    assert int(optimizer.iterations) == 1
    for _ in range(2):
        optimizer.apply([tf.constant([0.1, 0.0])], [weight])
    np.testing.assert_allclose(weight, [0.6, 1], rtol=1e-6)


def test_optimizer_tells_index_and_decay_of_a_weight_and_decays_none_itself():
    kernel, bias = _weights("kernel", "bias")
    optimizer = Descent(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build([kernel, bias])
    assert [optimizer.index_of(weight) for weight in (kernel, bias)] == [0, 1]
    assert [optimizer.is_decayed(weight) for weight in (kernel, bias)] == [True, False]
    optimizer.apply([tf.zeros(2), tf.zeros(2)], [kernel, bias])
    assert optimizer.seen == (1, False)
    np.testing.assert_array_equal(kernel, [1, 1])


def _defined(tree):
    """Private names that a module defines or assigns: its functions and methods, attributes, and names in classes."""
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    return names | {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _private_uses(tree):
    """(line, text) of each use of a private name that the module does not define itself."""
    defined = _defined(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            private = node.attr.startswith("_") and not node.attr.endswith("__") and node.attr not in defined
            stored = (
                isinstance(node.ctx, ast.Store) and node.attr.startswith("_") and ast.unparse(node.value) not in ("self", "cls")
            )
            if private or stored or node.attr == "__internal__":
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and "src" in (node.module or "").split("."):
            yield node.lineno, node.module
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if "src" in alias.name.split("."))
        elif isinstance(node, ast.FunctionDef) and node.name in OVERRIDABLE:
            yield node.lineno, f"def {node.name}"


BASES = (keras.Model, keras.optimizers.Adam, keras.callbacks.Callback, keras.metrics.Metric, keras.losses.Loss)
OVERRIDABLE = {name for base in BASES for name in dir(base) if name.startswith("_") and not name.startswith("__")}


@pytest.mark.parametrize(
    "path", [path for path in sorted(PACKAGE.rglob("*.py")) if path != ROOM], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_private_names_of_libraries_are_used_in_keras_internals_alone(path):
    allowed = OTHERS_ROOMS.get(path.relative_to(PACKAGE).with_suffix("").parts[0])
    uses = [
        f"{path}:{line}: {text}: move this into a function of mm_keras/keras_internals.py, and say which public way fails"
        for line, text in _private_uses(ast.parse(path.read_text("utf-8")))
        if text not in PUBLIC and not (allowed and text.endswith(f".{allowed}"))
    ]
    assert not uses


@pytest.mark.parametrize(
    "code",
    [
        "model._flatten_layers()",
        "model._maybe_symbolic_build = None",
        "tf.__internal__.distribute",
        "from keras_hub.src.utils import x",
        "import keras.src.backend",
        "class A(keras.optimizers.Adam):\n    def _backend_apply_gradients(self): pass",
        "class A(keras.optimizers.Adam):\n    def update(self): return self._iterations",
    ],
)
def test_check_sees_a_private_name(code):
    assert list(_private_uses(ast.parse(code)))


def test_check_lets_private_names_of_the_module_pass():
    code = "class A:\n    def __init__(self):\n        self._x = 1\n\n    def _f(self):\n        return self._x + other._x"
    assert not list(_private_uses(ast.parse(code)))
