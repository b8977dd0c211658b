"""Every command of the README runs, on data of the same names made here; only sizes are cut by added bindings."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import mm_keras
from tfrecords_tools.sources import sample

REPOSITORY = Path(mm_keras.__file__).parent.parent
README = REPOSITORY / "README.md"

SMALLER = {
    "quickstart.gin": ["train.epochs=1", "sample_dataset.num_examples=400"],
    "quickstart_multilabel.gin": ["train.epochs=1", "sample_dataset.num_examples=400"],
    "quickstart_classes.gin": ["train.epochs=1", "sample_dataset.num_examples=400"],
    "products_minilm.gin": [
        "train.epochs=1",
        "make_features.image_size=(32, 32)",
        "make_features.max_tokens={'title': 8, 'description': 12}",
    ],
}


def readme_commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_bert):
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
    import keras

    keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3)).save_weights(
        folder / "mobilenet_v2.weights.h5"
    )
    return folder


def test_make_commands_of_the_readme_are_what_ci_runs():
    make = {line for line in readme_commands() if line.startswith("make ")}
    ci = (REPOSITORY / ".ci" / "run").read_text().splitlines()
    assert make == {line for line in ci if line.startswith("make ")}


ONE_AFTER_THE_OTHER = """
import importlib, json, sys
for module, words in json.load(sys.stdin):
    status = importlib.import_module(module).main(words)
    if status:
        sys.exit(f"{module} {words}: exit status {status}")
"""


def test_readme_commands_run_in_their_order(folder):
    commands = [shlex.split(line) for line in readme_commands() if not line.startswith("make ")]
    assert len(commands) >= 10
    calls = []
    for program, *words in commands:
        for name, bindings in SMALLER.items():
            if name in words:
                words += [f"--set={binding}" for binding in bindings]
        calls.append(({"mm-keras": "mm_keras.cli.main", "tfrecords-tools": "tfrecords_tools.cli.main"}[program], words))
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_THE_OTHER],  # one interpreter: TensorFlow starts once
        input=json.dumps(calls),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    answer = json.loads((folder / "new.predictions.jsonl").read_text())
    assert len(answer["labels"]) == 5
    assert (folder / "runs" / "short" / "export" / "2" / "saved_model.pb").is_file()


def test_configs_that_the_readme_names_exist():
    for name in re.findall(r"[a-z_]+\.gin", README.read_text("utf-8")):
        assert (REPOSITORY / "configs" / name).is_file(), name
