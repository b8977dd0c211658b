import re

import keras
import pytest

from mm_keras.cli.main import main
from mm_keras.config import CONFIG_FOLDER, ConfigError, configurable_functions, find_config, load_config, operative_config
from mm_keras.data.augment import make_augmentation
from tfrecords_tools.sources import sample

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
    functions = load_config(write("make_optimizer.learning_rate = 0.5", "make_optimizer.clip_norm = None"))
    optimizer = functions["make_optimizer"](10)
    assert optimizer.global_clipnorm is None
    assert set(functions) == {function.__name__ for function in configurable_functions()}
    assert "make_optimizer.learning_rate = 0.5" in operative_config()


def test_bindings_override_the_file(write):
    path = write("make_optimizer.clip_norm = 3.0")
    assert load_config(path, ["make_optimizer.clip_norm = 5.0"])["make_optimizer"](10).global_clipnorm == 5


def test_library_functions_know_nothing_of_a_config(write):
    from mm_keras.training.optimizer import make_optimizer

    load_config(write("make_optimizer.clip_norm = 3.0"))
    assert make_optimizer(10).global_clipnorm == 1


def test_one_config_leaves_nothing_behind_for_the_next(write):
    load_config(write("make_optimizer.clip_norm = 3.0"))
    assert load_config(write())["make_optimizer"](10).global_clipnorm == 1


def test_functions_bound_only_by_layers_of_references_are_used(write):
    path = write(
        "train.build_model = @build_two_tower",
        "build_two_tower.head = @build_head",
        "build_head.hidden_units = %UNITS",
        "UNITS = (8, 4)",
    )
    head = load_config(path)["build_head"](6, 3)
    assert [layer.units for layer in head.layers if isinstance(layer, keras.layers.Dense)] == [8, 4, 3]


@pytest.mark.parametrize("name", ["make_loss", "make_mse_loss", "make_focal_loss", "make_asymmetric_loss"])
def test_losses_can_be_bound(write, name):
    functions = load_config(write(f"train.make_loss = @{name}", f"{name}.class_balance = 0.9"))
    loss = functions[name](True, [1, 10])
    assert loss.label_weights[0] > loss.label_weights[1]


def test_augmentation_can_be_bound(write):
    augmentation = make_augmentation(mixup=0.2, token_dropout=0.1)
    functions = load_config(
        write(
            "train.augment = @make_augmentation()",
            "make_augmentation.mixup = 0.2",
            "make_augmentation.token_dropout = 0.1",
            "train.make_features = None",
        )
    )
    with pytest.raises(TypeError, match="'NoneType' object is not callable") as caught:
        functions["train"]("dataset", "nowhere")
    frame = next(entry.frame for entry in caught.traceback if entry.name == "train")
    assert frame.f_locals["augment"] == augmentation


@pytest.mark.parametrize(
    "name", ["make_cosine_schedule", "make_constant_schedule", "make_step_schedule", "make_plateau_schedule"]
)
def test_schedules_can_be_bound(write, name):
    optimizer = load_config(write(f"make_optimizer.schedule = @{name}"))["make_optimizer"](1000)
    assert float(optimizer.schedule(50)) == pytest.approx(1e-3)
    if name in ("make_step_schedule", "make_plateau_schedule"):
        load_config(write(f"make_optimizer.schedule = @{name}", f"{name}.factor = 0.2"))


def test_rates_of_parts_can_be_bound(write):
    functions = load_config(write('make_optimizer.layer_rates = {"image_tower": 0.1, "text_encoder": 0.1}'))
    with pytest.raises(ValueError, match="layer_rates needs the model"):
        functions["make_optimizer"](10)


def test_metrics_can_be_bound(write):
    functions = load_config(write('make_metrics.names = ("macro_f1", "ece")'))
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
    assert "mine.gin: a bracket or a quote is never closed" in _message(write("train.seed = 1", "train.epochs = (3"))


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


@pytest.fixture(scope="module")
def bindings(tmp_path_factory, tiny_bert, save_use, webvision):
    """Config -> the bindings with which it runs on sample data, in small."""
    folder = tmp_path_factory.mktemp("config_data")
    rows = ["id,image,title,description,category,tags"]
    for example in sample.iter_examples(80, seed=0):
        (folder / f"{example.id}.jpg").write_bytes(example.image)
        title, description = (example.texts[field][0] for field in ("title", "description"))
        tags = example.labels[0].split()
        rows.append(f'{example.id},{example.id}.jpg,"{title}","{description}",{tags[0]},{" ".join(tags)}')
    (folder / "products.csv").write_text("\n".join(rows) + "\n")
    backbone = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3))
    backbone.save_weights(folder / "mobilenet_v2.weights.h5")
    few = ["sample_dataset.num_examples = 100", "train.batch_size = 16"]
    of_webvision = [
        f"WEBVISION = '{webvision}'",
        f"DATASET = '{folder}/webvision'",
        "webvision_dataset.sources = 'google'",
        "webvision_dataset.holdout = 0.5",
        "make_features.image_size = (75, 75)",
        "IMAGE_WEIGHTS = None",
        "train.batch_size = 8",
    ]
    use = [*of_webvision, f"USE = '{save_use()}'"]
    bert = [*of_webvision, f"TEXT_ENCODER = '{tiny_bert}'", "make_features.max_tokens = {'title': 8, 'description': 12}"]
    return {
        "webvision_image.gin": of_webvision,
        **{f"webvision_use{kind}.gin": use for kind in ("", "_inception", "_mobilenet", "_texts")},
        **{f"webvision_bert{kind}.gin": bert for kind in ("", "_inception", "_mobilenet", "_texts")},
        "quickstart.gin": [*few, f"sample_dataset.folder = '{folder}/sample'"],
        "quickstart_multilabel.gin": [*few, f"sample_dataset.folder = '{folder}/tags'"],
        "quickstart_classes.gin": [*few, f"sample_dataset.folder = '{folder}/sample'"],
        "captions_image.gin": [
            f"TABLE = '{folder}/products.csv'",
            "IMAGE = 'image'",
            "CAPTION = 'title'",
            "LABELS = 'tags'",
            f"DATASET = '{folder}/captions_with_images'",
            "IMAGE_WEIGHTS = None",
            "make_features.image_size = (32, 32)",
            "train.batch_size = 16",
        ],
        "captions_lstm.gin": [
            f"TABLE = '{folder}/products.csv'",
            "CAPTION = 'title'",
            "LABELS = 'tags'",
            f"DATASET = '{folder}/captions'",
            "train.batch_size = 16",
        ],
        "products_minilm.gin": [
            f"TABLE = '{folder}/products.csv'",
            "LABEL = 'category'",
            f"DATASET = '{folder}/products'",
            f"IMAGE_WEIGHTS = '{folder}/mobilenet_v2.weights.h5'",
            f"TEXT_ENCODER = '{tiny_bert}'",
            "make_features.image_size = (32, 32)",
            "make_features.max_tokens = {'title': 8, 'description': 12}",
            "train.batch_size = 16",
        ],
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_config_passes_a_dry_run(name, bindings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert name in bindings, f"say in the fixture above how {name} gets sample data"
    flags = [f"--gin_bindings={binding}" for binding in bindings[name]]
    status = main(["train", name, "--dry_run", *flags])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    assert "dry run: stopping here" in captured.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["webvision_use.gin", pytest.param("webvision_bert_mobilenet.gin", marks=pytest.mark.slow)])
def test_webvision_goes_from_pack_to_export(name, bindings, tmp_path, capsys):
    few = ["train.epochs = 1", f"DATASET = '{tmp_path}/data'", "make_features.image_size = (32, 32)"]
    flags = [f"--gin_bindings={binding}" for binding in [*bindings[name], *few]]
    status = main(["train", name, f"--workdir={tmp_path / 'run'}", *flags])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    assert "equal to the trained model" in captured.out
    assert (tmp_path / "run" / "export" / "1" / "saved_model.pb").is_file()
    assert (tmp_path / "run" / "report" / "evaluation.json").is_file()
    assert (tmp_path / "run" / "text_model_0").is_dir() == ("use" in name)


def test_caption_study_goes_from_a_table_to_an_exported_late_fusion(bindings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    of_image = [*bindings["captions_image.gin"], "DATASET = 'data'", "train.epochs = 1"]
    of_text = [line for line in of_image if not line.startswith(("IMAGE_WEIGHTS", "make_features"))]
    for name, lines in (("captions_image.gin", of_image), ("captions_lstm.gin", of_text)):
        assert main(["train", name, "--train_only", *(f"--gin_bindings={line}" for line in lines)]) == 0
    runs = ["runs/captions_image", "runs/captions_lstm"]
    assert main(["fuse", *runs, "--output=runs/captions", "--method=weights_per_label"]) == 0
    assert main(["evaluate", "runs/captions"]) == 0
    assert main(["export", "runs/captions"]) == 0
    out = capsys.readouterr().out
    assert "2 runs fused by weights_per_label, fitted on" in out
    assert "| all    | fused " in out
    assert "equal to the trained model" in out
    assert (tmp_path / "runs" / "captions" / "late_fusion.json").is_file()


@pytest.mark.parametrize("name", CONFIGS)
def test_config_says_what_it_reproduces_and_how_to_run_it_in_thirty_lines(name):
    lines = (CONFIG_FOLDER / name).read_text("utf-8").splitlines()
    header = "\n".join(line for line in lines if line.startswith("#"))
    assert "Reproduces" in header
    assert f"--config={name}" in header
    assert len([line for line in lines if line and not line.startswith("#")]) <= 30
