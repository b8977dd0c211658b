"""The multi-label caption study (of the kind of COMP5329's assignment): a ResNet-34, two LSTMs, and their late fusion."""

from __future__ import annotations

from pathlib import Path

from mm_keras.runs.evaluate import markdown_table
from mm_keras.runs.run_folder import RunFolder
from mm_keras.studies.drawn import draw_captions
from mm_keras.studies.study import Command, Need, Settings, Step, Study, evaluated, pointed
from tfrecords_tools.dataset.checksums import read_json

NEEDS = (
    Need(
        "table",
        "train.csv with the columns ImageID, Labels (several, separated by spaces) and Caption",
        "the Kaggle competition of COMP5329 (University of Sydney), or a table of your own with these columns",
    ),
    Need("images", "the folder in which the images lie that ImageID names", "the same; without it the text half runs"),
    Need(
        "resnet34", "weights of ResNet-34, of torchvision or timm", "https://download.pytorch.org/models/resnet34-b627a593.pth"
    ),
)
LAMBDAS = (0.4, 0.5, 0.6)  # weights of the texts, which the two LSTMs share; the image has the rest
SWEEPS = ("architecture", "learning_rate", "width", "preprocessing", "optimizer", "epochs", "proposals")
REPORTED = {  # micro-F1 in percent
    "image": 78.99,
    "lstm_0": 81.0,
    "two_lstms": 82.85,
    "fused_0.4": 86.30,
    "fused_0.5": 86.39,
    "fused_0.6": 82.96,
}
_MINIATURE = ("train.batch_size = 32", "train_and_evaluate.export = None", "train_and_evaluate.report = None")
_OF_IMAGES = ("make_features.image_size = (48, 48)", "build_image_tower.architecture = 'resnet10_tiny'")
_OF_TEXTS = ("build_recurrent_encoder.embedding_width = 32", "build_recurrent_encoder.width = 32", "train.epochs = 8")
_OF_TEXTS += ("make_optimizer.learning_rate = 0.01",)


def make_study(settings: Settings) -> Study:
    """The study's steps in a folder."""
    folder, drawn = settings.workdir, settings.workdir / "drawn"
    paths = {need.name: settings.path_of(need) for need in NEEDS}
    with_images = settings.miniature or "images" in settings.data or "table" not in settings.data
    if settings.miniature:
        paths |= {"table": f"{drawn}/train.csv", "images": f"{drawn}"}
    data = [f'TABLE="{paths["table"]}"', 'CAPTION="Caption"', 'LABELS="Labels"', 'table_dataset.id="ImageID"']
    data.append(f'DATASET="{folder / ("data" if with_images else "captions")}"')
    if with_images:
        data += ['IMAGE="ImageID"', f'table_dataset.image_root="{paths["images"]}"']
    data += _MINIATURE if settings.miniature else ["train_and_evaluate.export = None"]
    weights = "None" if settings.miniature else f'"{paths["resnet34"]}"'
    of_images = (*data, f"IMAGE_WEIGHTS={weights}", *(_OF_IMAGES if settings.miniature else ()))
    of_texts = (*data, *(_OF_TEXTS if settings.miniature else ()))

    def train(name: str, what: str, config: str, lines: tuple[str, ...], needs: tuple[str, ...]) -> Step:
        return Step(name, what, (settings.train(config, folder / name, *lines),), (evaluated(folder / name),), needs)

    def lstm(seed: int) -> Step:
        lines = (*of_texts, f"train.seed={seed}")
        return train(f"lstm_{seed}", f"stems and an LSTM, seed {seed}", "captions_lstm.gin", lines, ("table",))

    def fuse(name: str, what: str, parts: tuple[str, ...], option: str) -> Step:
        command = ("mm-keras", "fuse", *(str(folder / part) for part in parts), f"--output={folder / name}", option)
        evaluate = ("mm-keras", "evaluate", str(folder / name))
        return Step(name, what, ((*command, "--overwrite"), evaluate), (evaluated(folder / name),), after=parts)

    pictures = ("table", "images", "resnet34")
    thresholds = ("mm-keras", "thresholds", str(folder / "lstm_0"))
    joint = (*of_images, *(_OF_TEXTS if settings.miniature else ()))
    steps = [
        train("image", "ResNet-34, frozen, with three dense layers", "captions_resnet34.gin", of_images, pictures),
        train("image_trained", "ResNet-34, fully trained", "captions_resnet34_trained.gin", of_images, pictures),
        *(lstm(seed) for seed in (0, 1)),
        fuse("two_lstms", "the mean of the two LSTMs", ("lstm_0", "lstm_1"), "--weights=0.5,0.5"),
        *(
            fuse(
                f"fused_{texts}",
                f"late fusion with the given weight, {texts} for the texts",
                ("lstm_0", "lstm_1", "image"),
                f"--weights={texts / 2:g},{texts / 2:g},{1 - texts:g}",
            )
            for texts in LAMBDAS
        ),
        fuse("stacked", "late fusion, learned", ("lstm_0", "lstm_1", "image"), "--method=stacking"),
        train("joint", "one model of image and caption, trained as a whole", "captions_joint.gin", joint, pictures),
        Step("thresholds", "what thresholds do to one LSTM", (thresholds,), (), after=("lstm_0",)),
        *_sweeps(settings, of_texts, of_images),
    ]
    if settings.miniature:
        draw_it = ("mm-keras", "study", "multilabel-captions", f"--draw={drawn}")
        steps.insert(0, Step("draw", "captions, tags and pictures, drawn", (draw_it,), (drawn / "train.csv",)))
    title = "Multi-label captions and images, late fusion (COMP5329)"
    return Study("multilabel-captions", title, NEEDS, tuple(steps), lambda: format_results(folder))


def _sweeps(settings: Settings, of_texts: tuple[str, ...], of_images: tuple[str, ...]) -> list[Step]:
    """The study's sweeps, a step each; in miniature the shortest, once."""

    def sweep(name: str, lines: tuple[str, ...], needs: tuple[str, ...]) -> Step:
        workdir = settings.workdir / "sweeps" / name
        sets = (f"--set={line}" for line in (*lines, *settings.bindings_of(name)) if not line.startswith("train_and_evaluate."))
        once = ("--repeats=1",) if settings.miniature else ()
        command: Command = ("mm-keras", "sweep", f"captions_{name}.toml", f"--workdir={workdir}", *once, *sets)
        what = f"the sweep of configs/sweeps/captions_{name}.toml"
        return Step(f"sweep_{name}", what, (command,), (workdir / "table.md",), needs)

    image = sweep("image", of_images, ("table", "images", "resnet34"))
    return [image] if settings.miniature else [*(sweep(name, of_texts, ("table",)) for name in SWEEPS), image]


def format_results(folder: Path) -> str:
    """Micro-F1 of all models as far as they were run here, beside the reported ones, with what they cost."""
    names = (
        "image",
        "image_trained",
        "lstm_0",
        "lstm_1",
        "two_lstms",
        *(f"fused_{texts}" for texts in LAMBDAS),
        "stacked",
        "joint",
    )
    cells = [["model", "micro-F1 at 0.5", "at tuned thresholds", "reported", "MB", "training s", "evaluation s"]]
    for name in names:
        line = [name, "", "", f"{REPORTED[name]:.2f}" if name in REPORTED else "", "", "", ""]
        if evaluated(folder / name).is_file():
            report, facts = read_json(evaluated(folder / name)), RunFolder(folder / name).facts()
            row = [row for row in report["rows"] if row["trained"] == report["rows"][0]["trained"]][-1]
            line[1:3] = pointed(row["micro_f1"]), pointed(row.get("tuned_micro_f1"))
            line[4] = f"{facts['weight_bytes'] / 1e6:.1f}" if "weight_bytes" in facts else ""
            line[5] = f"{facts['seconds']['total']:.0f}" if "seconds" in facts else ""
            line[6] = f"{report['seconds']:.1f}"
        cells.append(line)
    return "Micro-F1 on test, in percent. Reported numbers are of the study's own data and split.\n\n" + markdown_table(cells)


def draw(folder: Path) -> None:
    """Draws the data of the miniature."""
    draw_captions(folder)
