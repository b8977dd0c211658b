"""Every config in configs/ runs on sample data of its kind.

The towers of keras.applications are stood in for by small ones; the slow tests build the real ones.
"""

import contextlib

import pytest

from mm_keras.cli.main import main
from mm_keras.config.parse import CONFIG_FOLDER
from mm_keras.model.architectures import ARCHITECTURES
from tests.mm_keras.drawn_towers import drawn_towers
from tfrecords_tools.sources import sample

CONFIGS = sorted(path.name for path in CONFIG_FOLDER.glob("*.gin"))


@pytest.fixture(scope="module", params=["drawn towers", pytest.param("real towers", marks=pytest.mark.slow)])
def towers(request):
    with drawn_towers() if request.param == "drawn towers" else contextlib.nullcontext():
        yield


def _write_data(folder):
    """What the configs are bound to: tables of drawn products, of pairs, and of class texts, pictures, a tower's weights."""
    rows = ["id,image,title,description,category,tags"]
    for example in sample.iter_examples(80, seed=0):
        (folder / f"{example.id}.jpg").write_bytes(example.image)
        title, description = (example.texts[field][0] for field in ("title", "description"))
        tags = example.labels[0].split()
        rows.append(f'{example.id},{example.id}.jpg,"{title}","{description}",{tags[0]},{" ".join(tags)}')
    (folder / "products.csv").write_text("\n".join(rows) + "\n")
    backbone = ARCHITECTURES["mobilenet_v2"].build(input_shape=(32, 32, 3), name="mobilenet_v2")
    backbone.save_weights(folder / "mobilenet_v2.weights.h5")
    pairs = [f"{example},oak {example},{('a', 'b')[example % 2]},{('train', 'val')[example // 40]}" for example in range(60)]
    (folder / "pairs.csv").write_text("\n".join(["id,text,label,split", *pairs]) + "\n")
    classes = [f"{material} {item},a {item} of {material}" for item in sample.ITEMS for material in sample.MATERIALS]
    (folder / "class_texts.csv").write_text("\n".join(["label,description", *classes]) + "\n")


@pytest.fixture(scope="module")
def bindings(towers, tmp_path_factory, tiny_bert, save_use, webvision, dataset, multi_label_dataset):
    """Config -> the bindings with which it runs on sample data, in small."""
    folder = tmp_path_factory.mktemp("config_data")
    _write_data(folder)
    of_imaged = ["IMAGE_WEIGHTS = None", "make_features.image_size = (32, 32)", "train.batch_size = 16"]
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
    captions = [
        f"TABLE = '{folder}/products.csv'",
        "IMAGE = 'image'",
        "CAPTION = 'title'",
        "LABELS = 'tags'",
        f"DATASET = '{folder}/captions_with_images'",
        "IMAGE_WEIGHTS = None",
        "make_features.image_size = (32, 32)",
        "train.batch_size = 16",
    ]
    return {
        **{f"webvision_image{kind}.gin": of_webvision for kind in ("", "_inception", "_mobilenet")},
        **{f"webvision_use{kind}.gin": use for kind in ("", "_inception", "_mobilenet", "_texts")},
        **{f"webvision_bert{kind}.gin": bert for kind in ("", "_inception", "_mobilenet", "_texts")},
        "captions_relevance.gin": [
            f"TABLE = '{folder}/pairs.csv'",
            f"DATASET = '{folder}/pairs'",
            f"TEXT_ENCODER = '{tiny_bert}'",
            "make_features.max_tokens = 12",
            "train.batch_size = 16",
        ],
        "imaged.gin": [f"DATASET = '{multi_label_dataset}'", *of_imaged],
        "imaged_classes.gin": [
            f"DATASET = '{dataset}'",
            f"CLASS_TEXTS = '{folder}/class_texts.csv'",
            f"TEXT_ENCODER = '{tiny_bert}'",
            "embed_classes.max_tokens = 12",
            *of_imaged,
        ],
        "quickstart.gin": [*few, f"sample_dataset.folder = '{folder}/sample'"],
        "quickstart_multilabel.gin": [*few, f"sample_dataset.folder = '{folder}/tags'"],
        "quickstart_classes.gin": [*few, f"sample_dataset.folder = '{folder}/sample'"],
        **{f"captions_{kind}.gin": captions for kind in ("image", "joint", "resnet34", "resnet34_trained")},
        "captions_lstm.gin": [
            f"TABLE = '{folder}/products.csv'",
            "CAPTION = 'title'",
            "LABELS = 'tags'",
            f"DATASET = '{folder}/captions'",
            "train.batch_size = 16",
        ],
        "table.gin": [
            f"TABLE = '{folder}/products.csv'",
            "IMAGE = 'image'",
            "TEXT = ('title', 'description')",
            "LABEL = 'category'",
            f"DATASET = '{folder}/table'",
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


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name.startswith("quickstart") else [pytest.mark.ci]) for name in CONFIGS]
)
def test_config_passes_a_dry_run(name, bindings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert name in bindings, f"say in the fixture above how {name} gets sample data"
    flags = [f"--gin_bindings={binding}" for binding in bindings[name]]
    status = main(["train", name, "--dry_run", *flags])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    assert "dry run: stopping here" in captured.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("webvision_use_texts.gin", marks=pytest.mark.ci),
        pytest.param("webvision_use.gin", marks=pytest.mark.slow),
        pytest.param("webvision_bert_mobilenet.gin", marks=pytest.mark.slow),
    ],
)
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


@pytest.mark.slow
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
    assert "| all inputs | fused " in out
    assert "equal to the trained model" in out
    assert (tmp_path / "runs" / "captions" / "late_fusion.json").is_file()


@pytest.mark.parametrize("name", CONFIGS)
def test_config_says_what_it_reproduces_and_how_to_run_it_in_thirty_lines(name):
    lines = (CONFIG_FOLDER / name).read_text("utf-8").splitlines()
    header = "\n".join(line for line in lines if line.startswith("#"))
    assert "Reproduces" in header
    assert f"train {name}" in header
    assert len([line for line in lines if line and not line.startswith("#")]) <= 30
