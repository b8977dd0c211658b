import functools
import re

import keras
import numpy as np
import pytest

from mm_keras.training.optimizer import make_optimizer
from mm_keras.training.optimizer_callbacks import AveragedWeights, ReduceOnPlateau, make_optimizer_callbacks
from mm_keras.training.part_optimizers import Adam
from mm_keras.training.schedules import make_constant_schedule, make_plateau_schedule, make_step_schedule

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 3)).astype("float32")
Y = (X @ [[1.0], [-2.0], [0.5]] + 1).astype("float32")
constant = functools.partial(make_optimizer, schedule=make_constant_schedule, warmup_fraction=0)


@pytest.fixture
def build():
    """A function: a model of two parts, "tower" and "head", of the same weights every time."""

    def make() -> keras.Model:
        keras.utils.set_random_seed(1)
        tower = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh")], name="tower")
        inputs = keras.Input((3,))
        return keras.Model(inputs, keras.layers.Dense(1, name="head")(tower(inputs)))

    return make


def _fit(model, optimizer, batch_size=8, epochs=1, **options):
    model.compile(optimizer, "mse", jit_compile=False)
    model.fit(X, Y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0, **options)
    return model.get_weights()


def _assert_same(one, other, **tolerance):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


KERAS = {
    "adamw": functools.partial(keras.optimizers.AdamW, weight_decay=0.1),
    "adam": keras.optimizers.Adam,
    "sgd": functools.partial(keras.optimizers.SGD, momentum=0.9, nesterov=True, weight_decay=0.1),
}


@pytest.mark.parametrize("algorithm", ["adamw", pytest.param("adam", marks=pytest.mark.slow), "sgd"])
def test_algorithm_is_that_of_keras(build, algorithm):
    theirs = KERAS[algorithm](0.01, global_clipnorm=1.0)
    theirs.exclude_from_weight_decay(var_names=["bias"])
    decay = None if algorithm == "adam" else 0.1
    ours = constant(18, algorithm=algorithm, learning_rate=0.01, weight_decay=decay)
    _assert_same(_fit(build(), ours, epochs=3), _fit(build(), theirs, epochs=3), rtol=1e-6)


@pytest.mark.parametrize("algorithm", ["adamw", pytest.param("sgd", marks=pytest.mark.slow)])
def test_accumulated_batches_make_the_update_of_one_large_batch(build, algorithm):
    options = {"algorithm": algorithm, "learning_rate": 0.05, "warmup_fraction": 0.3, "clip_norm": 0.5, "average": 0.5}
    small, large = build(), build()
    parts = make_optimizer(24, small, accumulate=4, unfreeze_at={"tower": 0.4}, **options)
    whole = make_optimizer(6, large, unfreeze_at={"tower": 0.4}, **options)
    _assert_same(_fit(small, parts, 4, epochs=2), _fit(large, whole, 16, epochs=2), rtol=1e-4, atol=1e-6)
    assert int(parts.iterations) == int(whole.iterations) == 6
    assert float(parts.learning_rate) == pytest.approx(float(whole.learning_rate))


def test_part_of_half_the_rate_makes_half_the_step_though_adam_scales_gradients_away(build):
    def steps(rates):
        model = build()
        before = model.get_weights()
        _fit(model, constant(1, model, layer_rates=rates, learning_rate=0.01, weight_decay=0.1), batch_size=48)
        return [after - b for after, b in zip(model.get_weights(), before, strict=True)]

    plain, slow = steps(None), steps({"tower": 0.5})
    _assert_same(slow[:2], [step / 2 for step in plain[:2]], rtol=1e-3)
    _assert_same(slow[2:], plain[2:], rtol=1e-6)


@pytest.mark.parametrize("algorithm", ["adamw", "sgd"])
def test_part_that_is_unfrozen_later_does_not_change_a_bit_before(build, algorithm):
    model = build()
    before = model.get_weights()
    optimizer = constant(12, model, algorithm=algorithm, unfreeze_at={"tower": 0.5})
    first = _fit(model, optimizer)
    for weight, old in zip(first[:2], before[:2], strict=True):
        np.testing.assert_array_equal(weight, old)
    assert not np.array_equal(first[2], before[2])
    model.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    assert not np.array_equal(model.get_weights()[0], before[0])


@pytest.mark.parametrize("argument", ["layer_rates", "unfreeze_at"])
def test_part_that_is_not_there_or_frozen_is_an_error_that_lists_the_parts(build, argument):
    model = build()
    with pytest.raises(ValueError, match=rf"{argument} names 'towr', .* those are \['head', 'tower'\]"):
        make_optimizer(10, model, **{argument: {"towr": 0.1}})
    model.get_layer("tower").trainable = False
    with pytest.raises(ValueError, match=rf"{argument} names 'tower', .* those are \['head'\]"):
        make_optimizer(10, model, **{argument: {"tower": 0.1}})
    with pytest.raises(ValueError, match=f"{argument} needs the model"):
        make_optimizer(10, **{argument: {"tower": 0.1}})


@pytest.mark.parametrize(
    "wrong",
    [
        {"algorithm": "adamax"},
        {"learning_rate": 0.0},
        {"warmup_fraction": 1.0},
        {"momentum": 1.0},
        {"weight_decay": -1.0},
        {"clip_norm": 0.0},
        {"accumulate": 11},
        {"accumulate": 0},
        {"average": 1.0},
        {"layer_rates": {"tower": -0.1}},
        {"unfreeze_at": {"tower": 3}},
    ],
    ids=str,
)
def test_value_out_of_range_is_an_error_that_names_it(build, wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} must be .*Received: {name}={re.escape(repr(value))}"):
        make_optimizer(10, build(), **wrong)


def test_adam_with_decay_is_an_error_that_names_adamw():
    with pytest.raises(ValueError, match="algorithm='adamw'"):
        make_optimizer(10, algorithm="adam", weight_decay=0.1)


def _rates(optimizer, updates):
    return [float(optimizer.schedule(update)) for update in updates]


def test_cosine_rises_and_falls():
    optimizer = make_optimizer(100, learning_rate=2.0, warmup_fraction=0.1)
    assert _rates(optimizer, [0, 5, 10, 55, 100]) == pytest.approx([0, 1, 2, 1, 0], abs=1e-6)
    assert _rates(make_optimizer(100, learning_rate=2.0, warmup_fraction=0), [0]) == pytest.approx([2])


def test_steps_drop_where_they_should():
    schedule = functools.partial(make_step_schedule, drops=(0.5, 0.8), factor=0.1)
    optimizer = make_optimizer(100, learning_rate=1.0, warmup_fraction=0.1, schedule=schedule)
    assert _rates(optimizer, [0, 5, 10, 49, 50, 79, 80, 99]) == pytest.approx([0, 0.5, 1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("drops", [(0.8, 0.5), (0.5, 1.0), (0.0,), (0.5, 0.5)])
def test_drops_that_are_no_rising_parts_are_an_error(drops):
    with pytest.raises(ValueError, match=re.escape(f"drops={drops}")):
        make_step_schedule(1.0, 100, 0, drops=drops)


@pytest.mark.parametrize("make", [make_step_schedule, make_plateau_schedule])
def test_factor_that_does_not_lower_the_rate_is_an_error(make):
    with pytest.raises(ValueError, match=r"factor must be within \(0, 1\). Received: factor=2"):
        make(1.0, 100, 0, factor=2)


def _plateau(build, mode, **options):
    schedule = functools.partial(make_plateau_schedule, factor=0.1, patience=2, min_delta=0.01)
    optimizer = make_optimizer(100, learning_rate=1.0, warmup_fraction=0, schedule=schedule, **options)
    optimizer.build(build().trainable_variables)
    return optimizer, ReduceOnPlateau(optimizer, "value", mode)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_rate_falls_once_the_metric_stays(build, mode):
    optimizer, callback = _plateau(build, mode)
    rates = []
    for epoch, value in enumerate([0.1, 0.5, 0.505, 0.505, 0.505, 0.6, 0.1, 0.1]):
        callback.on_epoch_end(epoch, {"value": value if mode == "max" else -value})
        rates.append(float(optimizer.learning_rate))
    assert rates == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01])


def test_plateau_is_remembered_by_the_optimizers_variables(build):
    optimizer, callback = _plateau(build, "max")
    for epoch in range(2):
        callback.on_epoch_end(epoch, {"value": 0.5})
    resumed, callback = _plateau(build, "max")
    for variable, saved in zip(resumed.variables, optimizer.variables, strict=True):
        variable.assign(saved)
    callback.on_epoch_end(2, {"value": 0.5})
    assert float(resumed.learning_rate) == pytest.approx(0.1)


def test_average_is_of_the_weights_after_each_update(build):
    model = build()
    optimizer = constant(6, model, average=0.15, learning_rate=0.1)
    average = build().get_weights()
    model.compile(optimizer, "mse", jit_compile=False)
    for update in range(6):
        model.train_on_batch(X[update * 8 :][:8], Y[update * 8 :][:8])
        momentum = min(0.15, update / (update + 10))
        average = [(1 - momentum) * w + momentum * a for w, a in zip(model.get_weights(), average, strict=True)]
    optimizer.finalize_variable_values(model.trainable_variables)
    _assert_same(model.get_weights(), average, rtol=1e-5)


class _Watch(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.trained, self.saved, self.validated = [], [], []

    def on_train_batch_end(self, batch, logs=None):
        self.trained.append(self.model.get_weights())

    def on_test_batch_begin(self, batch, logs=None):
        self.validated.append(self.model.get_weights())


class _Checkpoint(_Watch):
    def on_epoch_end(self, epoch, logs=None):
        self.saved.append(self.model.get_weights())


def test_validation_and_the_saved_model_have_the_averages_and_training_goes_on_without_them(build):
    plain = build()
    weights = _fit(plain, constant(12, learning_rate=0.1), epochs=2)
    model, watch, checkpoint = build(), _Watch(), _Checkpoint()
    optimizer = constant(12, model, average=0.9, learning_rate=0.1)
    callbacks = make_optimizer_callbacks(optimizer, "val_loss", "min", checkpoint)
    assert isinstance(callbacks[0], AveragedWeights)
    final = _fit(model, optimizer, epochs=2, validation_data=(X, Y), callbacks=[watch, *callbacks])
    for trained, expected in zip(watch.trained[-1], weights, strict=True):
        np.testing.assert_array_equal(trained, expected)
    for averaged in (watch.validated[-1], checkpoint.saved[-1]):
        _assert_same(averaged, final, rtol=0)
    assert np.abs(final[0] - weights[0]).max() > 1e-3


def test_optimizer_of_keras_needs_no_callback():
    checkpoint = keras.callbacks.Callback()
    assert make_optimizer_callbacks(keras.optimizers.SGD(), "loss", "min", checkpoint) == [checkpoint]


def test_optimizer_is_saved_and_loaded_with_the_model(build, tmp_path):
    model = build()
    optimizer = make_optimizer(
        20, model, average=0.9, accumulate=2, layer_rates={"tower": 0.1}, unfreeze_at={"head": 0.2},
        schedule=make_plateau_schedule,
    )  # fmt: skip
    _fit(model, optimizer)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == optimizer.get_config()
    for one, other in zip(loaded.optimizer.variables, optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    _assert_same(_fit_on(loaded), _fit_on(model), rtol=0)


def _fit_on(model):
    model.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    return model.get_weights()


def test_optimizer_of_another_model_is_an_error(build):
    model = build()
    optimizer = Adam.from_config(make_optimizer(20, model, layer_rates={"tower": 0.1}).get_config())
    with pytest.raises(ValueError, match=r"made for a model of 4 trained weights\. Received: 2"):
        optimizer.build(model.get_layer("head").trainable_variables)


def test_weight_without_a_gradient_keeps_its_value(build):
    inputs = keras.Input((3,))
    unused = keras.layers.Dense(1, name="unused")
    outputs = keras.layers.Dense(1, name="head")(inputs) + keras.ops.stop_gradient(unused(inputs))
    model = keras.Model(inputs, outputs)
    before = unused.get_weights()
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        _fit(model, constant(6, model, average=0.9))
    _assert_same(unused.get_weights(), before, rtol=0)


def _everything(model, **options):
    return make_optimizer(
        12, model, average=0.9, layer_rates={"tower": 0.5}, unfreeze_at={"tower": 0.3}, learning_rate=0.05, **options
    )


@pytest.mark.parametrize(
    ("algorithm", "accumulate"),
    [("adamw", 2), *(pytest.param(*case, marks=pytest.mark.slow) for case in (("sgd", 1), ("adamw", 1), ("sgd", 2)))],
)
def test_step_compiled_by_xla_equals_the_plain_one(build, algorithm, accumulate):
    weights = []
    for jit_compile in (False, True):
        model = build()
        model.compile(_everything(model, algorithm=algorithm, accumulate=accumulate), "mse", jit_compile=jit_compile)
        model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    _assert_same(weights[1], weights[0], rtol=1e-4, atol=1e-6)


def test_training_in_half_precision_scales_the_loss_and_averages():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((3,))
    tower = keras.layers.Dense(4, "tanh", name="tower", dtype="mixed_float16")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, name="head", dtype="float32")(tower))
    optimizer = _everything(model)
    scaled = keras.optimizers.LossScaleOptimizer(optimizer)  # as `compile` does under the policy mixed_float16
    checkpoint = _Checkpoint()
    callbacks = make_optimizer_callbacks(optimizer, "val_loss", "min", checkpoint)
    weights = _fit(model, scaled, epochs=2, validation_data=(X, Y), callbacks=callbacks)
    assert all(np.isfinite(weight).all() for weight in weights)
    _assert_same(checkpoint.saved[-1], weights, rtol=0)
