"""A training that takes seconds, for processes that tests start and kill.

python tiny_training.py <dataset> <run folder> <options as JSON> [<step of this process at which it kills itself>]
"""

import functools
import json
import os
import signal
import sys

import numpy as np

from mm_keras.data.make_features import make_features
from mm_keras.model.image_tower import build_small_cnn
from mm_keras.model.text_encoder import build_small_text_encoder
from mm_keras.model.tuning_dnn import build_tuning_dnn
from mm_keras.model.two_tower import build_two_tower
from mm_keras.training.checkpoint_callbacks import SaveCheckpoints
from mm_keras.training.train import train

EPOCHS = 3


def build_frozen_cnn(spec):
    model = build_small_cnn(spec, widths=(8, 8))
    model.trainable = False
    return model


def train_tiny(dataset, workdir, cached=False, **options):
    """Drops modalities and units; augments images, or else caches what a frozen tower makes of them."""
    features = functools.partial(make_features, image_size=(16, 16), image_fit="stretch", text_fields=("title",), max_tokens=8)
    build = functools.partial(
        build_two_tower,
        image_tower=build_frozen_cnn if cached else functools.partial(build_small_cnn, widths=(8, 8)),
        text_encoder=functools.partial(build_small_text_encoder, width=8),
        tuning_dnn=functools.partial(build_tuning_dnn, units=(8,), dropout=0.3),
        modality_dropout=0.3,
    )
    fixed = {"solver": "gradient", "epochs": EPOCHS, "batch_size": 16, "seed": 3, "augment": not cached, "cache_frozen": cached}
    return train(str(dataset), workdir, features, build, **(fixed | options))


def _kill_at(step):
    whole, steps = SaveCheckpoints.on_train_batch_end, []

    def on_train_batch_end(self, batch, logs=None):
        steps.append(batch)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        whole(self, batch, logs)

    SaveCheckpoints.on_train_batch_end = on_train_batch_end


if __name__ == "__main__":
    given_dataset, folder, given, *kill = sys.argv[1:]
    if kill:
        _kill_at(int(kill[0]))
    trained = train_tiny(given_dataset, folder, **json.loads(given))
    np.savez(f"{folder}/weights.npz", *trained.get_weights())
