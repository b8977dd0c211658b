import inspect

import pytest

from mm_keras.config.check import annotations_of, describe, problem_with
from mm_keras.config.functions import configurable_functions
from mm_keras.config.load import load_config
from mm_keras.config.parse import ConfigError
from mm_keras.configurable import Fraction, ImageSize, PositiveInt

_WIRING = """
include "base/experiment.gin"
include "model/small.gin"
train.sampling = @make_sampling()
make_sampling.balance = 0.5
train.augment = @make_augmentation()
"""


@pytest.fixture
def message(tmp_path):
    """A function: a line of a config -> what is wrong with it."""

    def load(line):
        (tmp_path / "mine.gin").write_text(_WIRING + line + "\n")
        with pytest.raises(ConfigError) as caught:
            load_config(tmp_path / "mine.gin")
        return str(caught.value)

    return load


@pytest.mark.parametrize(
    ("line", "expected", "advice"),
    [
        ("make_features.image_size = 64", "a list of 2 whole numbers (each at least 8), or None", "(64, 64)"),
        ("make_features.image_size = (64, 64, 3)", "a list of 2 whole numbers (each at least 8), or None", ""),
        ('train.epochs = "3"', "a whole number, at least 1", "without quotes"),
        ("train.batch_size = 16.0", "a whole number, at least 1", "write 16"),
        ("train.batch_size = 0", "a whole number, at least 1", ""),
        ("train.batch_size = True", "a whole number, at least 1", ""),
        ("train.epochs = None", "a whole number, at least 1", ""),
        ("build_tuning_dnn.units = 128", "a list of whole numbers (each at least 1)", "(128,)"),
        ("build_tuning_dnn.units = (128, 0)", "a list of whole numbers (each at least 1)", ""),
        ("build_tuning_dnn.dropout = 1.5", "a number, at least 0, below 1", ""),
        ('make_optimizer.learning_rate = "1e-3"', "a number, above 0", "without quotes"),
        ("make_optimizer.learning_rate = -1e-3", "a number, above 0", ""),
        ("make_optimizer.learning_rate = 1e999", "a number, above 0", ""),
        ('make_features.text_fields = ("name")', "a list of texts in quotes", "a comma: ('name',)"),
        ("make_features.text_fields = (1,)", "a list of texts in quotes", ""),
        ('make_features.text_fields = "name"', "a list of texts in quotes", "a comma: ('name',)"),
        ('make_features.image_fit = "crops"', "one of 'crop', 'stretch'", "did you mean 'crop'?"),
        ('train.cache_frozen = "cuts"', "True or False, or one of 'towers', 'cut'", "did you mean 'cut'?"),
        ('make_features.max_tokens = {"title": "8"}', "a whole number, at least 1, or a dict from texts in quotes to", ""),
        ('build_two_tower.head = "dense"', "a function, written @name", "@dense"),
        ("train.epochs = @make_loss", "a whole number, at least 1", "write @name()"),
        ("train.augment = @make_sampling()", "True or False, or an Augmentation", ""),
        ("train.make_loss = @make_loss()", "a function, written @name", "write @make_loss to bind"),
        ("make_sampling.balance = 2", "a number, at least 0, at most 1", ""),
        ("train.val_split = 3", "a text in quotes, or None", ""),
        ("train.config = 3", "a SavedConfig, or None", ""),
    ],
)
def test_value_that_does_not_fit_is_told_with_its_line_and_what_is_expected(message, line, expected, advice):
    told = message(line)
    key = line.partition(" =")[0]
    (problem,) = [text for text in told.splitlines() if key in text]
    assert problem.strip().startswith(f"{told.partition(':')[0]}, line 7: {key} = ")
    assert f": expected {expected}" in problem
    assert "Received: " in problem
    assert advice in problem


def test_all_problems_are_told_at_once(message):
    told = message('train.epochs = "3"\ntrain.batch_size = 0\nmake_optimizer.momentum = 2')
    assert [line.split(" = ")[0].rpartition(": ")[2] for line in told.splitlines()[1:]] == [
        "train.epochs",
        "train.batch_size",
        "make_optimizer.momentum",
    ]


def test_value_of_a_macro_is_checked_where_it_is_used(message):
    told = message("EPOCHS = 'three'\ntrain.epochs = %EPOCHS")
    assert "line 8: train.epochs = %EPOCHS: expected a whole number, at least 1. Received: 'three' (EPOCHS is given in " in told
    assert told.endswith("mine.gin, line 7)")


def test_advice_and_calls_are_those_of_the_macro_that_is_used(message):
    fields = message('FIELDS = ("name")\nmake_features.text_fields = %FIELDS')
    assert "a list of one text has a comma: ('name',) (FIELDS is given in " in fields
    assert "Received: the result of @make_sampling(), a Sampling (AUGMENT is given in " in message(
        "AUGMENT = @make_sampling()\ntrain.augment = %AUGMENT"
    )


@pytest.mark.parametrize(
    ("reference", "line", "expected"),
    [
        ("@build_image_tower", 'build_image_tower.architecture = "resnet_50"', "did you mean 'resnet50'?"),
        (
            "@build_image_tower",
            'build_image_tower.pooling = "mean"',
            "one of 'avg', 'max', 'avg_max', 'none'. Received: 'mean'",
        ),
    ],
)
def test_choice_that_there_is_not_is_told_before_anything_is_built(message, reference, line, expected):
    assert expected in message(f"build_two_tower.image_tower = {reference}\n{line}")


def test_override_that_does_not_fit_names_the_command_line(tmp_path):
    (tmp_path / "mine.gin").write_text(_WIRING)
    with pytest.raises(ConfigError, match=r"--gin_bindings: train\.epochs = 0: expected a whole number, at least 1\."):
        load_config(tmp_path / "mine.gin", ["train.epochs = 0"])


@pytest.mark.parametrize("line", ["train.dataset = data/products", "train.epochs = three four", "train.epochs 3", "= 3"])
def test_line_that_is_none_is_shown_with_what_lines_there_are(message, line):
    told = message(line)
    assert f"mine.gin, line 7: `{line}` is not understood. A line is `function.parameter = value`" in told
    assert "a text is written in quotes" in told


def test_error_of_a_function_names_the_binding(tmp_path):
    (tmp_path / "mine.gin").write_text(_WIRING + "make_optimizer.accumulate = 50\n")
    with pytest.raises(ValueError, match="accumulate must be 1 to 10") as caught:
        load_config(tmp_path / "mine.gin").functions["make_optimizer"](10)
    assert caught.value.__notes__ == [f"bound by make_optimizer.accumulate in {tmp_path / 'mine.gin'}, line 7"]


@pytest.mark.parametrize("name", configurable_functions())
def test_defaults_of_every_configurable_function_fit_its_annotations(name):
    function = configurable_functions()[name]
    annotations = annotations_of(function)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is not inspect.Parameter.empty:
            assert problem_with(parameter.default, annotations[parameter.name]) is None, parameter


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (PositiveInt, "a whole number, at least 1"),
        (Fraction | None, "a number, at least 0, at most 1, or None"),
        (ImageSize, "a list of 2 whole numbers (each at least 8)"),
        (bool | str, "True or False, or a text in quotes"),
    ],
)
def test_annotations_are_told_in_plain_words(annotation, words):
    assert describe(annotation) == words
