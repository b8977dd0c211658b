"""Sizes and forward speeds of the image towers, with random weights. One JSON line a tower.

    python bench/models.py [ARCHITECTURE ...]

Each tower sees pictures of the size that its weights were trained at, in batches, in graph mode; the best of several rounds
counts. On a machine that does other work too, images per CPU second (of all threads) say more than images per second.
Without arguments all of them are measured, one after another, each in a process of its own.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys

import keras
import numpy as np
from measure import best_times, report

from mm_keras.features import ImageSpec
from mm_keras.model.architectures import ARCHITECTURES
from mm_keras.model.image_tower import build_image_tower


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("architectures", nargs="*", help="of mm_keras.model.architectures (default: all)")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    unknown = sorted(set(options.architectures) - set(ARCHITECTURES))
    if unknown:
        parser.error(f"no architecture {unknown[0]!r}; there are {sorted(ARCHITECTURES)}")
    names = options.architectures or sorted(ARCHITECTURES)
    if len(names) == 1:
        measure(names[0], options.batch_size, options.rounds)
        return
    for name in names:  # memory that one took is not there for the next
        command = [sys.executable, __file__, name, f"--batch_size={options.batch_size}", f"--rounds={options.rounds}"]
        subprocess.run(command, check=True)


def measure(name: str, batch_size: int, rounds: int) -> None:
    size = ARCHITECTURES[name].size
    tower = build_image_tower(ImageSpec((size, size)), name, weights=None, freeze_fraction=1)
    pictures = np.random.default_rng(0).uniform(0, 255, (batch_size, size, size, 3)).astype("float32")
    seconds, cpu_seconds = best_times(functools.partial(tower.predict_on_batch, pictures), rounds)
    report(
        "models",
        name,
        parameters=tower.count_params(),
        image_size=size,
        embedding=tower.output.shape[-1],
        images_per_second=round(batch_size / seconds, 1),
        images_per_cpu_second=round(batch_size / cpu_seconds, 1),
        batch_size=batch_size,
        backend=keras.backend.backend(),
    )


if __name__ == "__main__":
    main()
