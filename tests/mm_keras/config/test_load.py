import inspect
import re

import keras
import pytest

from mm_keras.config.bound import Bound
from mm_keras.config.functions import configurable_functions
from mm_keras.config.load import find_config, load_config
from mm_keras.config.parse import CONFIG_FOLDER, ConfigError
from mm_keras.data.augment import make_augmentation

CONFIGS = sorted(path.name for path in CONFIG_FOLDER.glob("*.gin"))


@pytest.fixture
def write(tmp_path):
    """A function: gin lines, after the ones that every experiment has -> a config file."""

    def make(*lines, base='include "base/experiment.gin"', name="mine.gin"):
        path = tmp_path / name
        path.write_text("\n".join(filter(None, [base, *lines])) + "\n", "utf-8")
        return path

    return make


def _message(path, bindings=()):
    with pytest.raises(ConfigError) as caught:
        load_config(path, bindings)
    return str(caught.value)


def test_bound_values_reach_the_functions(write):
    config = load_config(write("make_optimizer.learning_rate = 0.5", "make_optimizer.clip_norm = None"))
    optimizer = config.functions["make_optimizer"](10)
    assert optimizer.global_clipnorm is None
    assert set(config.functions) == set(configurable_functions())
    assert "make_optimizer.learning_rate = 0.5\n" in config.operative


def test_operative_config_has_the_defaults_and_comes_to_the_same(write, tmp_path):
    config = load_config(find_config("quickstart_classes.gin"), ["train.epochs = 3"])
    for line in ("train.epochs = 3", "train.val_split = 'val'", "classes/make_word_tokenizer.min_count = 1"):
        assert f"{line}\n" in config.operative
    (tmp_path / "operative.gin").write_text(config.operative)
    assert load_config(tmp_path / "operative.gin").operative == config.operative


def test_overrides_are_kept_as_comments_of_the_given_config(write):
    path = write("train.seed = 1")
    assert load_config(path, ["train.epochs = 3"]).given == path.read_text() + "\n# --gin_bindings: train.epochs = 3\n"


def test_arguments_of_a_call_win_over_bound_values(write):
    functions = load_config(write("make_optimizer.clip_norm = 3.0")).functions
    assert functions["make_optimizer"](10, clip_norm=5.0).global_clipnorm == 5


def test_result_of_a_call_is_made_anew_each_time(write):
    functions = load_config(write("train.augment = @make_augmentation()", "make_augmentation.mixup = 0.2")).functions
    call = inspect.signature(functions["train"]).parameters["augment"].default
    bound = Bound(lambda augment: augment, {"augment": call}, {})
    first, second = bound(), bound()
    assert first == second == make_augmentation(mixup=0.2)
    assert first is not second


def test_signature_tells_what_is_bound(write):
    functions = load_config(write("evaluate.split = 'val'")).functions
    assert inspect.signature(functions["evaluate"]).parameters["split"].default == "val"


def test_bindings_override_the_file(write):
    path = write("make_optimizer.clip_norm = 3.0")
    assert load_config(path, ["make_optimizer.clip_norm = 5.0"]).functions["make_optimizer"](10).global_clipnorm == 5


def test_library_functions_know_nothing_of_a_config(write):
    from mm_keras.training.optimizer import make_optimizer

    load_config(write("make_optimizer.clip_norm = 3.0"))
    assert make_optimizer(10).global_clipnorm == 1


def test_one_config_leaves_nothing_behind_for_the_next(write):
    load_config(write("make_optimizer.clip_norm = 3.0"))
    assert load_config(write()).functions["make_optimizer"](10).global_clipnorm == 1


def test_functions_bound_only_by_layers_of_references_are_used(write):
    path = write(
        "train.build_model = @build_two_tower",
        "build_two_tower.head = @build_head",
        "build_head.hidden_units = %UNITS",
        "UNITS = (8, 4)",
    )
    head = load_config(path).functions["build_head"](6, 3)
    assert [layer.units for layer in head.layers if isinstance(layer, keras.layers.Dense)] == [8, 4, 3]


@pytest.mark.parametrize("name", ["make_loss", "make_mse_loss", "make_focal_loss", "make_asymmetric_loss"])
def test_losses_can_be_bound(write, name):
    functions = load_config(write(f"train.make_loss = @{name}", f"{name}.class_balance = 0.9")).functions
    loss = functions[name](True, [1, 10])
    assert loss.label_weights[0] > loss.label_weights[1]


@pytest.mark.parametrize(
    "name", ["make_cosine_schedule", "make_constant_schedule", "make_step_schedule", "make_plateau_schedule"]
)
def test_schedules_can_be_bound(write, name):
    optimizer = load_config(write(f"make_optimizer.schedule = @{name}")).functions["make_optimizer"](1000)
    assert float(optimizer.schedule(50)) == pytest.approx(1e-3)
    if name in ("make_step_schedule", "make_plateau_schedule"):
        load_config(write(f"make_optimizer.schedule = @{name}", f"{name}.factor = 0.2"))


def test_rates_of_parts_can_be_bound(write):
    functions = load_config(write('make_optimizer.layer_rates = {"image_tower": 0.1, "text_encoder": 0.1}')).functions
    with pytest.raises(ValueError, match="layer_rates needs the model"):
        functions["make_optimizer"](10)


def test_metrics_can_be_bound(write):
    functions = load_config(write('make_metrics.names = ("macro_f1", "ece")')).functions
    assert [metric.name for metric in functions["make_metrics"](True, 3)] == ["macro_f1", "ece"]


def test_unknown_function_is_an_error_that_lists_the_functions(write):
    message = _message(write("trian.epochs = 3"))
    assert "mine.gin" in message
    assert "'trian'" in message
    assert re.search(r"functions: build_\w+, .*train, train_and_evaluate", message)


def test_unknown_parameter_is_an_error_that_names_it_and_its_line(write):
    message = _message(write("train.seed = 1", "train.epoch = 3"))
    assert "'epoch'" in message
    assert "train" in message
    assert re.search(r"line 3", message)


def test_unknown_reference_is_an_error(write):
    assert "build_resnet" in _message(write("build_two_tower.image_tower = @build_resnet"))


def test_macro_that_nobody_gives_is_an_error_that_says_how(write):
    message = _message(write("train.epochs = %EPOCHS"))
    assert "%EPOCHS is used and not given; give it with --gin_bindings='EPOCHS=…'" in message
    load_config(write("train.epochs = %EPOCHS"), ["EPOCHS = 3"])


def test_binding_that_nothing_uses_is_an_error(write):
    message = _message(write("build_small_cnn.widths = (4,)", "UNUSED = 3"))
    assert "build_small_cnn.widths is bound, but nothing uses it; refer to @build_small_cnn or delete the line" in message
    assert "UNUSED is bound, but nothing uses it; refer to %UNUSED" in message


def test_bindings_of_a_part_that_is_replaced_may_stay(write):
    path = write("build_two_tower.image_tower = @build_small_cnn", "build_small_cnn.widths = %WIDTHS", "WIDTHS = (4,)")
    other = "build_two_tower.image_tower = @build_image_tower"
    load_config(path, [other])
    assert "UNUSED is bound, but nothing uses it" in _message(path, [other, "UNUSED = 3"])


def test_override_that_nothing_uses_is_an_error(write):
    assert "build_small_cnn.widths is bound, but nothing uses it" in _message(write(), ["build_small_cnn.widths = (4,)"])


def test_everything_required_is_listed_at_once(write):
    message = _message(find_config("products_minilm.gin"))
    for name in ("TABLE", "LABEL", "DATASET", "IMAGE_WEIGHTS", "TEXT_ENCODER"):
        assert f"{name} is required; give it with --gin_bindings='{name}=…'" in message
    assert "train.seed is required" in _message(write("train.seed = %gin.REQUIRED"))


@pytest.mark.parametrize("line", ["train.epochs 5", "train.epochs = three four"])
def test_syntax_error_names_file_and_line(write, line):
    message = _message(write("train.seed = 1", line))
    assert "mine.gin" in message
    assert "line 3" in message


def test_bracket_that_is_never_closed_is_an_error(write):
    message = _message(write("train.seed = 1", "# the epochs", "train.epochs = (3"))
    assert "mine.gin, line 4: `train.epochs = (3`: a bracket or a quote is never closed" in message
    message = _message(write("# the epochs", "train.epochs = (3", "train.seed = 1"))
    assert "mine.gin, line 4: `train.seed = 1` is not understood. It follows line 3, `train.epochs = (3`, where a" in message


@pytest.mark.parametrize(
    ("lines", "circle"),
    [
        (["train.epochs = %A", "A = %B", "B = %A"], "%A -> %B -> %A"),
        (["make_optimizer.schedule = @make_optimizer"], "@make_optimizer -> @make_optimizer"),
        (["train.build_model = @train()"], "@train -> @train"),
    ],
)
def test_reference_that_comes_back_to_itself_is_an_error(write, lines, circle):
    message = _message(write(*lines))
    assert f"it refers back to itself, {circle}" in message
    assert len(message.splitlines()) == 2


def test_inner_scopes_have_the_bindings_of_outer_ones(write):
    path = write(
        "train.make_optimizer = @mine/slow/make_optimizer",
        "make_optimizer.momentum = 0.1",
        "mine/make_optimizer.momentum = 0.5",
        "mine/make_optimizer.clip_norm = 2.0",
        "mine/slow/make_optimizer.clip_norm = 3.0",
    )
    config = load_config(path)
    bound = inspect.signature(config.functions["train"]).parameters["make_optimizer"].default
    values = inspect.signature(bound).parameters
    assert (values["momentum"].default, values["clip_norm"].default) == (0.5, 3.0)


def test_broken_override_is_an_error():
    with pytest.raises(ConfigError, match="--gin_bindings"):
        load_config(find_config("quickstart.gin"), ["train.epochs = "])


@pytest.mark.parametrize("name", CONFIGS)
def test_bare_name_is_found_in_the_config_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == CONFIG_FOLDER / name


def test_file_in_the_working_folder_comes_first(write, monkeypatch):
    path = write(name="quickstart.gin")
    monkeypatch.chdir(path.parent)
    assert find_config("quickstart.gin").resolve() == path


def test_unknown_config_is_an_error_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"no config 'quikstart.gin', here or among \['.*did you mean quickstart\.gin\?"):
        find_config("quikstart.gin")


def test_includes_are_found_from_any_folder(write, monkeypatch, tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "mine.gin").write_text("train.seed = 7\n")
    path = write('include "parts/mine.gin"', 'include "model/small.gin"')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    load_config(path)
    with pytest.raises(ConfigError, match=r"no file 'parts/none\.gin'"):
        load_config(write('include "parts/none.gin"'))


def test_config_that_includes_itself_is_an_error(write):
    assert "includes itself" in _message(write('include "mine.gin"'))


def test_what_a_config_fetches_is_checked_once_and_before_anything_is_packed(monkeypatch):
    fetched = []
    monkeypatch.setattr("mm_keras.downloads.preset_class_and_config", fetched.append)
    given = ["TABLE = 'gone.csv'", "LABEL = 'label'", "DATASET = 'gone'"]
    given += ["IMAGE_WEIGHTS = 'gone.weights.h5'", "TEXT_ENCODER = 'bert_tiny_en_uncased'"]
    raised = []
    for check in load_config(find_config("products_minilm.gin"), given).early_checks:
        try:
            check()
        except FileNotFoundError as error:
            raised.append(str(error))
    assert fetched == ["bert_tiny_en_uncased"]  # of the tokenizer and of the encoder
    assert raised == ["build_image_tower.weights: weights file gone.weights.h5 does not exist"]


def test_what_no_model_will_need_is_not_fetched():
    given = ["TABLE = 'gone.csv'", "LABEL = 'label'", "DATASET = 'gone'", "IMAGE_WEIGHTS = 'gone.weights.h5'"]
    given += ["TEXT_ENCODER = 'encoder'", "make_features.image_size = None"]
    checks = load_config(find_config("products_minilm.gin"), given).early_checks
    assert checks and all("weights" not in check.keywords for check in checks)
