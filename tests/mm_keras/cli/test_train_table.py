import re

import pytest
from PIL import Image

from mm_keras.cli.main import main
from mm_keras.config.load import load_config
from mm_keras.estimator.classifier import MultimodalClassifier


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    lines = ["photo,product title,sort,part"]
    for number in range(60):
        colour = ("red", "green", "blue")[number % 3]
        Image.new("RGB", (30, 20), colour).save(folder / f"{number}.png")
        lines.append(f"{number}.png,number {number} {colour},{colour},{'val' if number < 12 else 'train'}")
    (folder / "shop.csv").write_text("\n".join(lines))
    return folder / "shop.csv"


@pytest.mark.ci
def test_table_is_packed_trained_and_kept_with_its_config(table, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    columns = [f"--table={table}", "--image=photo", "--text=product title", "--label=sort", "--split=part"]
    short = ["--preset=scratch", "--set=train.epochs = 1", "--set=make_features.image_size = (16, 16)", "--train_only"]
    assert main(["train", *columns, *short]) == 0
    assert "there is no split 'test' (there are train, val): the model is evaluated on 'val'" in capsys.readouterr().out
    run = tmp_path / "runs" / "shop"
    config = load_config(run / "config.gin")
    assert config.bound["table_dataset.text"] == ("product title",)
    assert config.bound["evaluate.split"] == "val" and config.bound["train.epochs"] > 1
    loaded = MultimodalClassifier.load(run)
    assert loaded.classes_.tolist() == ["blue", "green", "red"]
    assert (loaded.image, loaded.text) == ("photo", ("product title",))  # the columns, not the inputs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table=shop.csv"], "--table needs --label=COLUMN .*and --image=COLUMN, --text=COLUMN"),
        (["quickstart.gin", "--table=shop.csv"], "takes a config or a table, and --table is of a table"),
        (["quickstart.gin", "--preset=scratch"], "takes a config or a table, and --preset is of a table"),
        (["--label=sort"], "--label says how a table is read: name it with --table=FILE"),
        ([], "train takes one config, for example .* or a table"),
        (["--dataset=nowhere"], "nowhere"),
    ],
)
def test_half_a_request_is_an_error(arguments, message, capsys):
    assert main(["train", *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
