"""How many swapped descriptions does the relevance filter find, and is training with it better? On a table of products.

    python bench/relevance.py products.csv --texts=bench/category_texts.csv --text_encoder=all-MiniLM-L6-v2 --output=results

The table has the columns id, description, category and split (train, test). For each seed a share of the training texts is
swapped between categories; then every step is the command of the study (docs/studies/captions_relevance.md). The classifier of
the end test sees the description alone, and is tested on descriptions that nobody touched.
"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

import numpy as np

from mm_keras.cli.main import main as mm_keras
from tfrecords_tools.cli.main import main as tools

KINDS = ("clean", "unfiltered", "filtered", "filtered and weighted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table")
    parser.add_argument("--texts", required=True, help="texts of the categories: label,description")
    parser.add_argument("--text_encoder", required=True, help="a Hugging Face folder")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--least", type=float, default=0.5, help="descriptions are dropped below this probability")
    parser.add_argument("--sentences", type=int, default=10, help="of a class; 0: none")
    parser.add_argument("--folds", type=int, default=2, help="1: the model scores what it has learned from")
    options = parser.parse_args()
    results = [run(options, seed) for seed in range(options.seeds)]
    for name in results[0]:
        values = [result[name] for result in results]
        print(f"{name}: {np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}  {np.round(values, 3)}")


def run(options: argparse.Namespace, seed: int) -> dict[str, float]:
    """The filter's and the end test's numbers of one seed."""
    folder = options.output / f"seed_{seed}"
    corrupted = folder / "corrupted" / Path(options.table).name
    call(
        mm_keras, "relevance", "corrupt", options.table, "--column=description", "--label=category", f"--share={options.share}",
        "--split=train", f"--seed={seed}", f"--output={folder / 'corrupted'}",
    )  # fmt: skip
    roles = ("--id=id", "--text=description", "--label=category", "--split=split")
    call(tools, "pack", "table", corrupted, *roles, f"--output={folder / 'unfiltered'}")
    call(tools, "pack", "table", options.table, *roles, f"--output={folder / 'clean'}")
    runs = [train_model(options, folder, fold, seed) for fold in range(options.folds)]
    relevance = folder / "relevance"
    call(
        mm_keras, "relevance", "score", *runs, f"--dataset={folder / 'unfiltered'}", "--fields=description",
        f"--least={options.least}", f"--truth={folder / 'corrupted' / 'swapped.txt'}", f"--texts={options.texts}",
        f"--output={relevance}",
    )  # fmt: skip
    again = ("pack", "tfrecords", folder / "unfiltered", f"--without_ids={relevance / 'dropped.txt'}")
    call(tools, *again, f"--output={folder / 'filtered'}")
    join = (f"--join={relevance / 'relevance.csv'}", "--join_id=id", "--weight=weight")
    call(tools, *again, *join, f"--output={folder / 'filtered and weighted'}")
    facts = json.loads((relevance / "summary.json").read_text("utf-8"))["known_wrong"]
    found = {key: facts[key] for key in ("precision", "recall", "f1", "auc", "auc_of_text_similarity")}
    result = found | {f"top-1, {kind}": end_test(options, folder / kind, seed) for kind in KINDS}
    print(f"seed {seed}: {json.dumps(result)}", flush=True)
    return result


def train_model(options: argparse.Namespace, folder: Path, fold: int, seed: int) -> Path:
    """A relevance model on the pairs of the other folds; the encoder is frozen, and the dense layer is trained."""
    pairs, run_folder = folder / f"pairs_{fold}", folder / f"model_{fold}"
    call(
        mm_keras, "relevance", "pairs", folder / "unfiltered", f"--texts={options.texts}", "--fields=description",
        f"--folds={options.folds}", f"--fold={fold}", f"--sentences={options.sentences}", f"--output={pairs}",
    )  # fmt: skip
    lines = (
        *(f'TABLE="{pairs / "pairs.csv"}"', f'DATASET="{pairs / "packed"}"', f'TEXT_ENCODER="{options.text_encoder}"'),
        *("build_transformer_encoder.trainable=False", "make_optimizer.learning_rate=3e-3", "train.epochs=20"),
        f"train.seed={seed}",
    )
    call(mm_keras, "train", "captions_relevance.gin", f"--workdir={run_folder}", *(f"--set={line}" for line in lines))
    return run_folder


def end_test(options: argparse.Namespace, data: Path, seed: int) -> float:
    """Top-1, on the test split that nobody touched, of a classifier of these examples."""
    run_folder = data.with_name(f"trained {data.name}")
    call(
        mm_keras, "train", f"--dataset={data}", "--preset=frozen", f"--text_encoder={options.text_encoder}", f"--seed={seed}",
        f"--workdir={run_folder}", "--set=train_and_evaluate.export=None", "--set=train_and_evaluate.report=None",
    )  # fmt: skip
    return json.loads((run_folder / "report" / "evaluation.json").read_text("utf-8"))["rows"][-1]["top_1"]


def call(program, *arguments) -> None:
    """Runs a command and stops if it fails."""
    words = [str(argument) for argument in arguments]
    print(f"$ {'mm-keras' if program is mm_keras else 'tfrecords-tools'} {shlex.join(words)}", flush=True)
    if program(words):
        raise SystemExit(f"failed: {shlex.join(words)}")


if __name__ == "__main__":
    main()
