import pytest

from mm_keras.sweep.sweep_file import Range, SweepError, read_sweep


@pytest.fixture
def write(tmp_path):
    def apply(text, config='config = "quickstart.gin"\n'):
        (tmp_path / "sweep.toml").write_text(config + text, "utf-8")
        return tmp_path / "sweep.toml"

    return apply


def _lines(setting):
    """Without the lines that turn export and report off."""
    assert setting.bindings[:2] == ("train_and_evaluate.export = None", "train_and_evaluate.report = None")
    return setting.bindings[2:]


def test_settings_are_all_combinations_in_the_order_of_the_file(write):
    sweep = read_sweep(
        write(
            """
            repeats = 3
            bindings = ["train.epochs = 8"]
            [sweep]
            "make_optimizer.learning_rate" = [1e-3, 3e-3]
            "build_two_tower.fusion" = ["@build_concatenation", "@build_gated_fusion"]
            """
        )
    )
    settings = list(sweep.settings())
    assert sweep.repeats == 3
    assert [setting.name for setting in settings] == [
        "learning_rate=0.001, fusion=build_concatenation",
        "learning_rate=0.001, fusion=build_gated_fusion",
        "learning_rate=0.003, fusion=build_concatenation",
        "learning_rate=0.003, fusion=build_gated_fusion",
    ]
    assert _lines(settings[1]) == (
        "train.epochs = 8",
        "make_optimizer.learning_rate = 0.001",
        "build_two_tower.fusion = @build_gated_fusion",
    )


def test_configs_and_variants_are_axes_too(write):
    sweep = read_sweep(
        write(
            """
            config = ["a.gin", "b.gin"]
            [variants]
            small = ["build_tuning_dnn.units = (8,)"]
            large = ["build_tuning_dnn.units = (64,)", "train.batch_size = 16"]
            """,
            config="",
        )
    )
    settings = list(sweep.settings())
    assert [(setting.config, setting.shown) for setting in settings] == [
        (f"{config}.gin", {"config": config, "variant": variant}) for config in "ab" for variant in ("small", "large")
    ]
    assert _lines(settings[1]) == ("build_tuning_dnn.units = (64,)", "train.batch_size = 16")


@pytest.mark.parametrize(
    ("value", "gin"),
    [
        ("1e-3", "0.001"),
        ("64", "64"),
        ("true", "True"),
        ('"sgd"', "'sgd'"),
        ('"None"', "None"),
        ('"%rate"', "%rate"),
        ('"@sample_dataset()"', "@sample_dataset()"),
        ('["image", "title"]', "('image', 'title',)"),
        ("[128]", "(128,)"),
        ('{image_tower = 0.1, text = "@f"}', "{'image_tower': 0.1, 'text': @f}"),
    ],
)
def test_values_become_gin(write, value, gin):
    (setting,) = read_sweep(write(f'[sweep]\n"f.x" = [{value}]')).settings()
    assert _lines(setting) == (f"f.x = {gin}",)


def test_names_need_no_quotes_and_are_long_only_where_two_end_alike(write):
    (setting,) = read_sweep(write("[sweep]\nf.x = [1]\ng.x = [2]\ng.y = [3]")).settings()
    assert setting.shown == {"f.x": "1", "g.x": "2", "y": "3"}


def test_sweep_without_axes_is_the_config_repeated(write):
    (setting,) = read_sweep(write("repeats = 5")).settings()
    assert (setting.name, setting.shown) == ("quickstart", {})


def test_search_reads_ranges_and_choices(write):
    sweep = read_sweep(
        write(
            """
            [search]
            trials = 20
            make_optimizer.learning_rate = {low = 1e-4, high = 1e-2, log = true}
            build_tuning_dnn.units = [[64], [128]]
            train.batch_size = {low = 16, high = 64}
            """
        )
    )
    assert sweep.search.trials == 20
    assert sweep.search.space == {
        "make_optimizer.learning_rate": Range(1e-4, 1e-2, True),
        "build_tuning_dnn.units": ("(64,)", "(128,)"),
        "train.batch_size": Range(16, 64, False),
    }
    drawn = {"make_optimizer.learning_rate": 0.0020001, "build_tuning_dnn.units": "(64,)", "train.batch_size": 20}
    setting = sweep.search.setting(sweep, drawn)
    assert setting.name == "learning_rate=0.002, units=(64,), batch_size=20"
    assert "build_tuning_dnn.units = (64,)" in setting.bindings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("repeats = 0", r"repeats is a number of trainings a setting, at least 1\. Received: 0"),
        ("repeat = 3", "a key 'repeat'; known are config, repeats"),
        ("repeats = ", "is not TOML"),
        ('bindings = "train.epochs = 3"', "bindings is a list of gin lines"),
        ('bindings = ["train.seed = 3"]', "train.seed is the number of the repeat"),
        ('[sweep]\n"train.seed" = [1, 2]', "train.seed is the number of the repeat"),
        ('[sweep]\n"f.x" = 3', r'\[sweep\] "f.x" is a list of values. Received: 3'),
        ('[sweep]\n"f.x" = [1, 1]', r'\[sweep\] "f.x" is a list of different values'),
        ('[sweep]\n"f.x" = []', "list of different values"),
        ('[sweep]\n"f.x" = [2026-01-01]', "a value that gin does not know"),
        ('[sweep]\n"f.x" = [inf]', "a value that gin does not know"),
        ("[variants]\nsmall = 3", "variants.small is a list of gin lines"),
        ('[search]\n"f.x" = [1, 2]', "trials is how many settings are tried, at least 1. Received: None"),
        ("[search]\ntrials = 3", "names no parameter"),
        ("[search]\ntrials = 3\nf.x = {low = 2, high = 1}", "low < high"),
        ("[search]\ntrials = 3\nf.x = {low = 0, high = 1, log = true}", "above 0"),
        ("[search]\ntrials = 3\nf.x = {low = 0, hihg = 1}", "hihg"),
        ("repeats = 2\n[search]\ntrials = 3\nf.x = [1, 2]", "without repeats"),
    ],
)
def test_what_is_wrong_is_named(write, text, message):
    with pytest.raises(SweepError, match=message):
        read_sweep(write(text))


def test_config_and_file_must_be_there(write, tmp_path):
    with pytest.raises(SweepError, match=r"config names a gin config.*Received: None"):
        read_sweep(write("repeats = 1", config=""))
    with pytest.raises(FileNotFoundError, match=r"there is no sweep file .*none\.toml"):
        read_sweep(tmp_path / "none.toml")
