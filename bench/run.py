"""How long `mm-keras train` takes, from packed records to the export. One JSON line per run.

    python bench/run.py products.csv --label=category --split_column=split --image_weights=mobilenet_v2.weights.h5 \\
        --text_encoder=all-MiniLM-L6-v2

It trains `products_minilm.gin` on a table with columns id, image, title and description, on image and title and on all inputs,
with another seed each time; start-up and a cold cache are included. Target: 60 s on 2 idle cores. CPU seconds are of the
processes that train, and tell more than seconds on a machine that does other work too.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import report

from mm_keras.data.encode_once import CACHE_FOLDER

FIELDS = {"title": 32, "description": 128}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--label", required=True, metavar="COLUMN")
    parser.add_argument("--split_column", metavar="COLUMN", help="with train and test (default: packing draws splits)")
    parser.add_argument("--image_weights", required=True, metavar="FILE", help="MobileNetV2 without its head, .weights.h5")
    parser.add_argument("--text_encoder", required=True, metavar="FOLDER", help="Hugging Face folder or keras_hub preset")
    parser.add_argument("--repeats", type=int, default=3)
    with tempfile.TemporaryDirectory() as scratch:
        measure(parser.parse_args(), Path(scratch))


def measure(options: argparse.Namespace, scratch: Path) -> None:
    command = _command(options, scratch)
    subprocess.run([*command, "--dry_run"], check=True, capture_output=True)  # packs
    for fields in (("title",), tuple(FIELDS)):
        what = " + ".join(("run: image", *fields))
        runs = [_run(command, options, scratch, fields, seed) for seed in range(options.repeats)]
        for values in runs:
            report("train", what, label=options.label, **values)
        best, accuracy = min(run["seconds"] for run in runs), statistics.mean(run["accuracy"] for run in runs)
        report("train", what, label=options.label, best_seconds=best, mean_accuracy=round(accuracy, 4))


def _command(options: argparse.Namespace, scratch: Path) -> list[str]:
    bindings = {
        "TABLE": str(options.table.absolute()),
        "LABEL": options.label,
        "DATASET": str(scratch / "records"),
        "TEXT_ENCODER": options.text_encoder,
        "IMAGE_WEIGHTS": options.image_weights,
    } | ({"table_dataset.split": options.split_column} if options.split_column else {})
    command = [sys.executable, "-m", "mm_keras.cli.main", "train", "products_minilm.gin"]
    return [*command, *(f"--set={name} = {value!r}" for name, value in bindings.items())]


def _run(command: list[str], options: argparse.Namespace, scratch: Path, fields: tuple[str, ...], seed: int) -> dict:
    workdir = scratch / f"run_{len(fields)}_{seed}"
    shutil.rmtree(scratch / "records" / CACHE_FOLDER, ignore_errors=True)
    max_tokens = {field: FIELDS[field] for field in fields}
    bindings = {"make_features.text_fields": fields, "make_features.max_tokens": max_tokens, "train.seed": seed}
    flags = [f"--set={name} = {value!r}" for name, value in bindings.items()]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*command, *flags, f"--workdir={workdir}"], check=True, capture_output=True)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    rows = json.loads((workdir / "report" / "evaluation.json").read_text())["rows"]
    accuracy = next(row["top_1"] for row in rows if row["inputs"] == "all inputs")
    return {"seed": seed, "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "accuracy": round(accuracy, 4)}


if __name__ == "__main__":
    main()
