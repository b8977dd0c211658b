"""Every command of the README runs, on data of the same names made here; only sizes are cut by added bindings.

In CI, MobileNetV2 is stood in for, runs/short sees no descriptions, the other runs of the drawn sample see titles alone,
and only runs/short is evaluated and exported: other tests do that with runs of all kinds. The slow test does none of this.
"""

import contextlib
import csv
import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

import mm_keras
from mm_keras.model.architectures import ARCHITECTURES
from tests.mm_keras.drawn_towers import drawn_towers
from tfrecords_tools.sources import sample

REPOSITORY = Path(mm_keras.__file__).parent.parent
README = REPOSITORY / "README.md"

_QUICKSTART = [
    "train.epochs=1",
    "sample_dataset.num_examples=150",
    "make_features.image_size=(32, 32)",
    "build_small_cnn.widths=(8, 8)",
]
SMALLER = {
    "quickstart.gin": _QUICKSTART,
    "quickstart_multilabel.gin": _QUICKSTART,
    "quickstart_classes.gin": _QUICKSTART,
    "--table=products.csv": [
        "make_features.image_size=(32, 32)",
        "make_features.max_tokens={'title': 8, 'description': 12}",
    ],
}
TRAIN_ONLY = ["train_and_evaluate.evaluate=None", "train_and_evaluate.export=None"]
PROGRAMS = {"mm-keras": "mm_keras.cli.main", "tfrecords-tools": "tfrecords_tools.cli.main"}


def readme_commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture(
    scope="module", params=[pytest.param("in short", marks=pytest.mark.ci), pytest.param("in full", marks=pytest.mark.slow)]
)
def in_short(request):
    with drawn_towers() if request.param == "in short" else contextlib.nullcontext():
        yield request.param == "in short"


@pytest.fixture(scope="module")
def folder(in_short, tmp_path_factory, tiny_bert):
    """A folder with all the files that the README names."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "images").mkdir()
    with open(folder / "products.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "image", "title", "description", "category"])
        for example in sample.iter_examples(120, seed=3):
            (folder / "images" / f"{example.id}.jpg").write_bytes(example.image)
            texts = [example.texts[field][0] for field in ("title", "description")]
            rows.writerow([example.id, f"images/{example.id}.jpg", *texts, example.labels[0].split()[0]])
    (folder / "photo.jpg").write_bytes(example.image)
    captions = [f'{i}.jpg,{["1", "2", "5"][i % 3]} 7,"Two dogs, a cat and picture {i}"' for i in range(40)]
    (folder / "captions.csv").write_text("\n".join(["ImageID,Labels,Caption", *captions]) + "\n")
    (folder / "groceries").mkdir()
    (folder / "groceries" / "photo.jpg").write_bytes(example.image)
    groceries = [f"photo.jpg,{('train', 'test')[i % 2]},{('Apple', 'Milk')[i // 2]}" for i in range(4)]
    (folder / "groceries" / "images.csv").write_text("\n".join(["image,split,label", *groceries]) + "\n")
    (folder / "new.jsonl").write_text(json.dumps({"image": "photo.jpg", "title": "Solid oak, classic"}) + "\n")
    (folder / "classes.jsonl").write_text(json.dumps({"label": "oak stool", "text": "oak stool"}) + "\n")
    (folder / "all-MiniLM-L6-v2").symlink_to(tiny_bert)
    tower = ARCHITECTURES["mobilenet_v2"].build(input_shape=(32, 32, 3), name="mobilenet_v2")
    tower.save_weights(folder / "mobilenet_v2.weights.h5")
    return folder


def test_make_commands_of_the_readme_are_what_ci_runs():
    make = {line for line in readme_commands() if line.startswith("make ")}
    ci = (REPOSITORY / ".ci" / "run").read_text().splitlines()
    assert make == {line for line in ci if line.startswith("make ")}


def _shortened(config, words):
    if "--workdir=runs/short" in words:
        return ["train.modalities=('image', 'title')"]
    return [*TRAIN_ONLY, *([] if config == "--table=products.csv" else ["train.modalities=('title',)"])]


def test_readme_commands_run_in_their_order(folder, in_short, monkeypatch, capsys):
    commands = [shlex.split(line) for line in readme_commands() if not line.startswith("make ")]
    assert len(commands) >= 10
    monkeypatch.chdir(folder)
    for program, *words in commands:
        for name in SMALLER.keys() & words:
            bindings = [*SMALLER[name], *(_shortened(name, words) if in_short else [])]
            words += [f"--set={binding}" for binding in bindings]
        status = importlib.import_module(PROGRAMS[program]).main(words)
        assert not status, f"{program} {shlex.join(words)}: {capsys.readouterr().err[-2000:]}"
    answer = json.loads((folder / "new.predictions.jsonl").read_text())
    assert len(answer["labels"]) == 5
    assert (folder / "runs" / "short" / "export" / "2" / "saved_model.pb").is_file()
    assert capsys.readouterr().out.count("equal to the trained model on") >= 2  # by the training and by itself


@pytest.mark.slow
def test_python_of_the_readme_runs(folder, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(folder)
    names = {}
    exec(code, names)  # it is the project's own
    assert set(names["classifier"].predict(names["table"][100:])) <= set(names["table"]["category"])


def test_configs_that_the_readme_names_exist():
    for name in re.findall(r"[a-z_]+\.gin", README.read_text("utf-8")):
        assert (REPOSITORY / "configs" / name).is_file(), name
