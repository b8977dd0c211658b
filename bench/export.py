"""What each export of a run weighs, how long it takes for one example, and what it costs in accuracy. One line an export.

    python bench/export.py runs/products

The SavedModel is asked through its signature `tensors`, so that all start from the same pixels and token ids. It is made anew
with the other ones, below the run folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from mm_keras.data.pipeline import make_evaluation_batches
from mm_keras.runs.export import export
from mm_keras.runs.parity import ParityError
from mm_keras.runs.portable import export_portable
from mm_keras.runs.portable_formats import FILES, NotConvertibleError
from mm_keras.runs.run_folder import RunFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="the folder of a trained run, whose dataset is there")
    options = parser.parse_args()
    print("export | MB | ms an example | accuracy | the trained model's | largest difference of a probability")
    folder = export(options.run_folder)
    megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(f"SavedModel, float32 | {megabytes:.1f} | {_milliseconds(options.run_folder, folder):.1f} | | |", flush=True)
    for form, precision in itertools.product(FILES, ("float32", "float16", "int8")):
        name = f"{form}, {precision}"
        try:
            folder = export_portable(options.run_folder, form, precision)
        except (NotConvertibleError, ParityError) as error:
            print(f"{name} | refused: {error}", flush=True)
            continue
        measured = json.loads((folder / "preprocess.json").read_text())["measured"]
        cells = [f"{(folder / FILES[form]).stat().st_size / 1e6:.1f}", f"{measured['milliseconds']:.1f}"]
        cells += [f"{measured[key]:.4f}" for key in ("exported", "trained")]
        print(" | ".join([name, *cells, f"{measured['largest_difference']:.1e}"]), flush=True)


def _milliseconds(run_folder: Path, folder: Path, rounds: int = 30) -> float:
    run = RunFolder(run_folder)
    _, features = run.load_model()
    served = tf.saved_model.load(str(folder)).signatures["tensors"]
    inputs, _, _ = next(iter(make_evaluation_batches(run.dataset(None).split("test"), features, 1).dataset))
    inputs = {name: tf.constant(np.asarray(value)) for name, value in inputs.items()}
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        served(**inputs)
        seconds.append(time.perf_counter() - began)
    return 1e3 * statistics.median(seconds)


if __name__ == "__main__":
    main()
