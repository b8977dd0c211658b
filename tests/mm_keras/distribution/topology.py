"""Trainings that come to the same on any topology, for processes that tests start.

python topology.py <dataset> <folder> <{name of a run: options of train_same} as JSON> [<{"worker", "step", "signal"} as JSON>]
"""

import functools
import json
import os
import sys

import keras
import numpy as np

from mm_keras.data.make_features import make_features
from mm_keras.distribution.preemption import EXIT_CODE, Preempted
from mm_keras.distribution.workers import worker_of_environment
from mm_keras.model.head import build_head
from mm_keras.model.text_encoder import build_small_text_encoder
from mm_keras.model.tuning_dnn import build_tuning_dnn
from mm_keras.model.two_tower import build_two_tower
from mm_keras.training.checkpoint_callbacks import SaveCheckpoints
from mm_keras.training.optimizer import make_optimizer
from mm_keras.training.train import train


def build_normalised_tower(spec, frozen=False):
    pixels = keras.Input((*spec.size, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    x = keras.layers.Conv2D(4, 3, strides=2, use_bias=False)(x)
    x = keras.layers.BatchNormalization(momentum=0.8)(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    model = keras.Model(pixels, x, name="image_tower")
    model.trainable = not frozen
    return model


def train_same(dataset, workdir, frozen=False, optimizer=None, **options):
    """No dropout, which each replica draws by itself."""
    features = functools.partial(make_features, image_size=(16, 16), text_fields=("title",), max_tokens=8)
    build = functools.partial(
        build_two_tower,
        image_tower=functools.partial(build_normalised_tower, frozen=frozen),
        text_encoder=functools.partial(build_small_text_encoder, width=6),
        tuning_dnn=functools.partial(build_tuning_dnn, units=(6,), dropout=0),
        head=functools.partial(build_head, dropout=0),
        modality_dropout=0,
    )
    make = functools.partial(
        make_optimizer, **({"clip_norm": None, "algorithm": "sgd", "learning_rate": 0.01} | (optimizer or {}))
    )
    fixed = {"solver": "gradient", "epochs": 2, "batch_size": 16, "augment": False}
    return train(dataset, workdir, features, build, make, **(fixed | options))


def _interrupt(step, number):
    whole = SaveCheckpoints.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        whole(self, batch, logs)
        if self.step == step:
            os.kill(os.getpid(), number)

    SaveCheckpoints.on_train_batch_end = on_train_batch_end


if __name__ == "__main__":
    given_dataset, folder, runs, *kill = sys.argv[1:]
    worker = worker_of_environment()
    runs = json.loads(runs)
    if kill and json.loads(kill[0])["worker"] == worker.index:
        _interrupt(json.loads(kill[0])["step"], json.loads(kill[0])["signal"])
    for name, run_options in runs.items():
        if "seed" in run_options:
            run_options["seed"] = worker.index
        try:
            trained = train_same(given_dataset, f"{folder}/{name}", **run_options)
        except Preempted as stop:
            print(stop, file=sys.stderr, flush=True)
            sys.exit(EXIT_CODE)
        np.savez(f"{folder}/{name}-{worker.index}.npz", *trained.get_weights())
