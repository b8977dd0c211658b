"""The WebVision study: image, title and description, by eleven models of three image towers and two text encoders.

"Multi-Modal Classification Using Images and Text". Its table 2 is this study's result.
"""

from __future__ import annotations

from pathlib import Path

from mm_keras.runs.evaluate import markdown_table
from mm_keras.runs.run_folder import RunFolder
from mm_keras.studies.drawn import draw_text_encoders, draw_webvision
from mm_keras.studies.study import Need, Settings, Step, Study, evaluated, pointed
from tfrecords_tools.dataset.checksums import read_json

NEEDS = (
    Need(
        "webvision",
        "WebVision 1.0 or 2.0 (the study's: 2.0, 5,000 classes, 16 million images): the folder that holds info/ or meta/",
        "https://data.vision.ee.ethz.ch/cvl/webvision/dataset2017.html and …/dataset2018.html",
    ),
    Need("resnet50_v2", "ImageNet weights, or a file of them", "Keras downloads them", "imagenet"),
    Need("inception_v3", "ImageNet weights, or a file of them", "Keras downloads them", "imagenet"),
    Need("mobilenet_v2", "ImageNet weights, or a file of them", "Keras downloads them", "imagenet"),
    Need(
        "use",
        "the Universal Sentence Encoder, a SavedModel of strings (512 wide)",
        "kaggle://google/universal-sentence-encoder/tensorFlow2/universal-sentence-encoder (with tensorflow-hub)",
    ),
    Need(
        "bert",
        "BERT base uncased (768 wide): a keras_hub preset, or a Hugging Face folder",
        "keras_hub downloads the preset bert_base_en_uncased",
    ),
)
_TOWERS = {"ResNet50V2": ("", "resnet50_v2"), "InceptionV3": ("_inception", "inception_v3")}
_TOWERS |= {"MobileNetV2": ("_mobilenet", "mobilenet_v2")}
REPORTED = {  # table 2, top-1 and top-5 in percent; its other cells are empty
    "InceptionV3": (44.50, 67.38),
    "ResNet50V2": (46.60, 70.56),
    "MobileNetV2": (44.39, 68.22),
    "DNN-USE": (50.30, 66.21),
    "ResNet50V2-USE": (53.58, 71.78),
    "MobileNetV2-USE": (50.64, 70.17),
}
_MINIATURE = (
    *("webvision_dataset.sources = 'google'", "webvision_dataset.holdout = 0.3", "train.batch_size = 32", "train.epochs = 6"),
    *("make_features.image_size = (64, 64)", "make_optimizer.learning_rate = 0.004"),
    *("train_and_evaluate.export = None", "train_and_evaluate.report = None"),
)
_TINY_TOWER = ("build_image_tower.architecture = 'resnet10_tiny'", "build_image_tower.freeze_fraction = 0.0")


def rows() -> dict[str, tuple[str, tuple[str, ...]]]:
    """The rows of table 2: name -> (config, the needs of its encoders)."""
    table = {tower: (f"webvision_image{ending}.gin", (need,)) for tower, (ending, need) in _TOWERS.items()}
    for encoder in ("USE", "BERT"):
        kind = encoder.lower()
        table[f"DNN-{encoder}"] = (f"webvision_{kind}_texts.gin", (kind,))
        for tower, (ending, need) in _TOWERS.items():
            table[f"{tower}-{encoder}"] = (f"webvision_{kind}{ending}.gin", (need, kind))
    return table


def make_study(settings: Settings) -> Study:
    """The study's steps in a folder."""
    packed, drawn = settings.workdir / "data", settings.workdir / "drawn"
    paths = {need.name: settings.path_of(need) for need in NEEDS}
    if settings.miniature:
        paths |= {"webvision": f"{drawn}/webvision", "use": f"{drawn}/use", "bert": f"{drawn}/bert"}
    holdout, source = ("0.3", ("--sources=google",)) if settings.miniature else ("0.04", ())
    pack = ("tfrecords-tools", "pack", "webvision", paths["webvision"], *source, "--fields=title,description")
    steps = [
        Step(
            "pack",
            "title, description and image of each record; 4 % of each class's images split off, half val, half test",
            ((*pack, f"--holdout={holdout}", f"--output={packed}"),),
            (packed / "dataset.json",),
            ("webvision",),
        )
    ]
    for name, (config, needs) in rows().items():
        run = settings.workdir / name
        steps.append(
            Step(
                name,
                f"table 2, row {name}",
                (settings.train(config, run, *_bindings(needs, paths, packed, settings.miniature)),),
                (evaluated(run),),
                ("webvision", *needs),
                ("pack",),
            )
        )
    steps += _after_training(settings, settings.workdir / "ResNet50V2-USE")
    if settings.miniature:
        draw = ("mm-keras", "study", "webvision", f"--draw={drawn}")
        steps.insert(
            0, Step("draw", "WebVision's files and text encoders, drawn", (draw,), (drawn / "webvision", drawn / "use"))
        )
    title = "Multi-Modal Classification Using Images and Text (WebVision 2.0)"
    return Study("webvision", title, NEEDS, tuple(steps), lambda: format_table(settings.workdir))


def _bindings(needs: tuple[str, ...], paths: dict[str, str], packed: Path, miniature: bool) -> tuple[str, ...]:
    lines = [f'WEBVISION="{paths["webvision"]}"', f'DATASET="{packed}"']
    towers = [need for need in needs if need not in ("use", "bert")]
    weights = "None" if miniature or not towers else f'"{paths[towers[0]]}"'
    lines.append(f"IMAGE_WEIGHTS={weights}")
    lines += [f'USE="{paths["use"]}"'] if "use" in needs else []
    lines += [f'TEXT_ENCODER="{paths["bert"]}"'] if "bert" in needs else []
    if miniature:
        lines += [*_MINIATURE, *(_TINY_TOWER if towers else ())]
        lines += ["make_features.max_tokens = {'title': 12, 'description': 40}"] if "bert" in needs else []
    return tuple(lines)


def _after_training(settings: Settings, run: Path) -> list[Step]:
    """What the study asks of a trained model."""
    experts = settings.workdir / "experts"
    parts = "inputs,maps" if settings.miniature else "inputs,classes,data,maps"
    return [
        Step(
            "experts",
            "ResNet50V2-USE taken apart, and what five random classes lose without one of the inputs",
            (("mm-keras", "experts", str(run), "--classes=5", f"--output={experts}"),),
            (RunFolder(run).report / "experts.json", experts / "image"),
            after=(run.name,),
        ),
        Step(
            "report",
            "maps of the texts before and after the tuning DNN and of the concatenation; labels with similar texts; noise",
            (("mm-keras", "report", str(run), f"--parts={parts}"),),
            (RunFolder(run).report / "report.html",),
            after=(run.name,),
        ),
        Step(
            "verification",
            "does a trio of image, title and description agree with its claimed class?",
            (("mm-keras", "agree", str(run)),),
            (RunFolder(run).report / "agreement.json",),
            after=(run.name,),
        ),
    ]


def format_table(workdir: Path) -> str:
    """Table 2 as far as it was run here, beside the reported numbers; percent."""
    cells = [["model", "top-1", "top-5", "test examples", "reported top-1", "reported top-5"]]
    for name in rows():
        report = evaluated(workdir / name)
        measured = read_json(report) if report.is_file() else None
        whole = _whole(measured) if measured else {}
        number = f"{measured['num_examples']:,}" if measured else ""
        reported = [f"{value:.2f}" for value in REPORTED.get(name, ())] or ["", ""]
        cells.append([name, pointed(whole.get("top_1")), pointed(whole.get("top_5")), number, *reported])
    return "Table 2, in percent. Reported numbers are of WebVision 2.0's 5,000 classes.\n\n" + markdown_table(cells)


def _whole(report: dict) -> dict:
    """The row of the model with all its inputs."""
    return [row for row in report["rows"] if row["trained"] == report["rows"][0]["trained"]][-1]


def draw(folder: Path) -> None:
    """Draws the data of the miniature."""
    draw_webvision(folder / "webvision")
    draw_text_encoders(folder)
