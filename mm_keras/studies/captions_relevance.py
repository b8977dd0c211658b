"""The relevance study: a text model finds captions that say nothing of their class, and weighs the others (ImageNet-Captions).

It is run on two things: on ImageNet-Captions, as the paper does, and on a table of products of which a known share of the
descriptions is swapped, so that one can count how many of them are found.
"""

from __future__ import annotations

import csv
from pathlib import Path

from mm_keras.runs.evaluate import markdown_table
from mm_keras.runs.run_folder import RunFolder
from mm_keras.studies.drawn import draw_text_encoders, write_class_texts
from mm_keras.studies.study import Command, Need, Settings, Step, Study, evaluated, pointed
from tfrecords_tools.dataset.checksums import read_json
from tfrecords_tools.sources import sample

NEEDS = (
    Need("imagenet", "ImageNet's training images, in folders by wnid", "https://www.image-net.org (ILSVRC 2012)"),
    Need("captions", "imagenet_captions.json", "https://github.com/mlfoundations/imagenet-captions"),
    Need("class_texts", "texts of the classes by wnid: wnid,description", "tfrecords-tools collect wikipedia"),
    Need(
        "products",
        "a CSV with the columns id, image, description, category and split (train, test)",
        "a catalogue of your own; its training descriptions are swapped in part, those of the test split stay",
    ),
    Need("category_texts", "texts of its categories: label,description", "written, or tfrecords-tools collect wikipedia"),
    Need("roberta", "RoBERTa base: a keras_hub preset, or a Hugging Face folder", "keras_hub downloads it", "roberta_base_en"),
)
SHARE = 0.2  # of the products' descriptions that are swapped
_FOLDS = 2
_SCRATCH = (
    "--preset=scratch",
    "--set=train_and_evaluate.report = None",
    "--set=train.epochs = 8",
    "--set=make_features.image_size = (48, 48)",
)
_MINIATURE = ("make_optimizer.learning_rate = 0.003", "train.epochs = 12", "make_features.max_tokens = 48")


def make_study(settings: Settings) -> Study:
    """The study's steps in a folder."""
    drawn = settings.workdir / "drawn"
    paths = {need.name: settings.path_of(need) for need in NEEDS}
    if settings.miniature:
        paths |= {"products": f"{drawn}/products.csv", "category_texts": f"{drawn}/class_texts.csv", "roberta": f"{drawn}/bert"}
        draw_it = ("mm-keras", "study", "captions-relevance", f"--draw={drawn}")
        first = [Step("draw", "products, class texts and an encoder, drawn", (draw_it,), (drawn / "products.csv",))]
    else:
        first = _imagenet(settings, paths)
    title = "Relevance of captions to their classes, by RoBERTa (ImageNet-Captions)"
    return Study(
        "captions-relevance", title, NEEDS, (*first, *_products(settings, paths)), lambda: format_results(settings.workdir)
    )


def _imagenet(settings: Settings, paths: dict[str, str]) -> list[Step]:
    folder = settings.workdir / "imagenet"
    data = ("imagenet", "captions", "class_texts")
    pack = (
        *("tfrecords-tools", "pack", "imagenet_captions", f"--images={paths['imagenet']}", f"--captions={paths['captions']}"),
        *("--captioned_only", "--fractions=train=0.9,val=0.05,test=0.05", f"--output={folder / 'data'}"),
    )
    fields = ("--fields=title,description",)
    return [
        Step("imagenet_pack", "images with titles and descriptions", (pack,), (folder / "data" / "dataset.json",), data[:2]),
        *_scored("imagenet", settings, folder, (paths["class_texts"], paths["roberta"]), fields, 1, "class_texts", ()),
        *_end_test("imagenet", settings, folder, ()),
    ]


def _products(settings: Settings, paths: dict[str, str]) -> list[Step]:
    folder = settings.workdir / "products"
    corrupted = folder / "corrupted"
    table = corrupted / Path(paths["products"]).name
    corrupt = ("mm-keras", "relevance", "corrupt", paths["products"], "--column=description", "--label=category")
    pack = (
        *("tfrecords-tools", "pack", "table", str(table), "--id=id", "--image=image", "--text=description"),
        *("--label=category", "--split=split", f"--image_root={Path(paths['products']).parent}", f"--output={folder / 'data'}"),
    )
    commands: tuple[Command, ...] = ((*corrupt, f"--share={SHARE}", "--split=train", f"--output={corrupted}"), pack)
    truth = (f"--truth={corrupted / 'swapped.txt'}",)
    return [
        Step(
            "products_pack",
            f"{SHARE:.0%} of the descriptions swapped",
            commands,
            (folder / "data" / "dataset.json",),
            ("products",),
        ),
        *_scored(
            "products",
            settings,
            folder,
            (paths["category_texts"], paths["roberta"]),
            ("--fields=description",),
            _FOLDS,
            "category_texts",
            truth,
        ),
        *_end_test("products", settings, folder, _SCRATCH if settings.miniature else ()),
    ]


def _scored(
    name: str,
    settings: Settings,
    folder: Path,
    texts_and_encoder: tuple[str, str],
    fields: tuple[str, ...],
    folds: int,
    need: str,
    truth: tuple[str, ...],
) -> list[Step]:
    """The steps that write pairs and train a model for each fold, and that score all captions."""
    lines = _MINIATURE if settings.miniature else ()
    texts, encoder = texts_and_encoder
    commands: list[Command] = []
    runs = [folder / f"model_{fold}" for fold in range(folds)]
    for fold, run in enumerate(runs):
        pairs = folder / f"pairs_{fold}"
        split = (f"--folds={folds}", f"--fold={fold}") if folds > 1 else ()
        commands.append(
            ("mm-keras", "relevance", "pairs", str(folder / "data"), f"--texts={texts}", *fields, *split, f"--output={pairs}")
        )
        data = (f'TABLE="{pairs / "pairs.csv"}"', f'DATASET="{pairs / "packed"}"', f'TEXT_ENCODER="{encoder}"')
        commands.append(settings.train("captions_relevance.gin", run, *data, *lines))
    score = ("mm-keras", "relevance", "score", *map(str, runs), f"--dataset={folder / 'data'}", *fields, f"--texts={texts}")
    relevance = folder / "relevance"
    join = (
        *(
            "tfrecords-tools",
            "pack",
            "tfrecords",
            str(folder / "data"),
            f"--join={relevance / 'relevance.csv'}",
            "--join_id=id",
        ),
        *("--weight=weight", f"--without_ids={relevance / 'dropped.txt'}", f"--output={folder / 'weighted'}"),
    )
    model = "model" if folds == 1 else f"{folds} models, each of the captions that the other scores"
    return [
        Step(
            f"{name}_model",
            f"captions with sentences about their classes; {model}",
            tuple(commands),
            tuple(RunFolder(run).best for run in runs),
            (need, "roberta"),
            (f"{name}_pack",),
        ),
        Step(
            f"{name}_score",
            "scores, filter, coefficients; joined into the records as their weight",
            ((*score, *truth, f"--output={relevance}"), join),
            (relevance / "report.md", folder / "weighted" / "dataset.json"),
            (need,),
            (f"{name}_model",),
        ),
    ]


def _end_test(name: str, settings: Settings, folder: Path, options: tuple[str, ...]) -> list[Step]:
    """The steps that train with filter and weights, and without, measured on the same held-out data."""
    steps = []
    for kind, data in (("plain", "data"), ("weighted", "weighted")):
        run = folder / f"trained_{kind}"
        sets = tuple(f"--set={line}" for line in ("train_and_evaluate.export = None", *settings.bindings_of(run.name)))
        command = ("mm-keras", "train", f"--dataset={folder / data}", *options, f"--workdir={run}", *sets, "--resume")
        what = f"a classifier of the {'filtered and weighted' if kind == 'weighted' else 'unfiltered'} examples"
        steps.append(Step(f"{name}_{kind}", what, (command,), (evaluated(run),), after=(f"{name}_score",)))
    return steps


def format_results(workdir: Path) -> str:
    """What the filter found, and what training with it is worth."""
    cells = [["data", "captions", "kept", "precision", "recall", "AUC", "top-1 unfiltered", "top-1 filtered, weighted"]]
    for name in ("imagenet", "products"):
        path = workdir / name / "relevance" / "summary.json"
        if path.is_file():
            summary = read_json(path)
            known_wrong = summary.get("known_wrong", {})
            of_filter = [f"{known_wrong[key]:.3f}" if key in known_wrong else "" for key in ("precision", "recall", "auc")]
            tops = [pointed(_top_1(workdir / name / f"trained_{kind}")) for kind in ("plain", "weighted")]
            cells.append([name, f"{summary['captions']:,}", f"{summary['kept']:,}", *of_filter, *tops])
    return (
        "" if len(cells) == 1 else "The filter at finding swapped descriptions, and the end test.\n\n" + markdown_table(cells)
    )


def _top_1(run: Path) -> float | None:
    if not evaluated(run).is_file():
        return None
    rows = read_json(evaluated(run))["rows"]
    return [row for row in rows if row["trained"] == rows[0]["trained"]][-1]["top_1"]


def draw(folder: Path, num_examples: int = 500) -> None:
    """Draws the data of the miniature: a product's category is its material, which its description names."""
    draw_text_encoders(folder)
    write_class_texts(folder / "class_texts.csv", sample.MATERIALS)
    (folder / "images").mkdir()
    with open(folder / "products.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "image", "description", "category", "split"])
        for index, example in enumerate(sample.iter_examples(num_examples, seed=4, multi_label=True)):
            (folder / "images" / f"{example.id}.jpg").write_bytes(example.image)
            description = example.texts["description"][0] or example.texts["title"][0]
            split = "test" if index // 20 % 5 == 0 else "train"
            rows.writerow([example.id, f"images/{example.id}.jpg", description, example.labels[1], split])
