"""Trainings whose numbers end up as none, and what is said of them."""

import functools
import re

import keras
import numpy as np
import pytest

from mm_keras.data.make_features import make_features
from mm_keras.model.image_tower import build_small_cnn
from mm_keras.model.text_encoder import build_small_text_encoder
from mm_keras.model.two_tower import build_two_tower
from mm_keras.training.checkpoint import checkpoints, load
from mm_keras.training.nan_report import NotFiniteError
from mm_keras.training.train import train
from tests.mm_keras.drawn_examples import draw_examples

NUM, BATCH = 48, 8
BAD = "e017"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pack_examples, encode_image):
    """Pictures that are dark but for one, all with titles; in two shards."""

    def describe(index, draw):
        return {
            "image": encode_image(draw() + 210 * (f"e{index:03d}" == BAD), "JPEG"),
            "texts": {"title": [f"word{index % 5}"]},
            "labels": ["abcd"[index % 4]],
        }

    examples = draw_examples(NUM, describe, brightest=40)
    return pack_examples(tmp_path_factory.mktemp("nan") / "rows", examples, examples_per_shard=24)


@keras.saving.register_keras_serializable(package="tests")
class BreaksOnBrightPictures(keras.layers.Layer):
    def call(self, x):
        bright = keras.ops.mean(x, (1, 2, 3), keepdims=True) > 150.0
        return keras.ops.where(bright, float("nan"), x)


def _build_breaking_cnn(spec, trainable=True):
    inputs = keras.Input((*spec.size, 3))
    x = BreaksOnBrightPictures(name="breaks")(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(8, name="dense")(x), name="image_tower")
    model.trainable = trainable
    return model


def _train(folder, workdir, image_tower, **options):
    features = functools.partial(make_features, image_size=(16, 16), image_fit="stretch", text_fields=("title",), max_tokens=4)
    build = functools.partial(
        build_two_tower,
        image_tower=image_tower,
        text_encoder=functools.partial(build_small_text_encoder, width=8),
        modality_dropout=0.0,
        lexical_encoder=None,
        tune_image=False,
    )
    fixed = {
        "solver": "gradient",
        "epochs": 2,
        "batch_size": BATCH,
        "val_split": None,
        "augment": False,
        "checkpoint_minutes": 0,
    }
    return train(folder, workdir, features, build, **(fixed | options))


@pytest.mark.parametrize("cached", [False, True])
def test_layer_and_record_are_named_and_no_checkpoint_has_what_is_not_finite(tmp_path, folder, cached):
    tower = functools.partial(_build_breaking_cnn, trainable=not cached)
    with pytest.raises(NotFiniteError) as caught:
        _train(folder, tmp_path / "run", tower, cache_frozen=cached, modalities=("image",))
    message = str(caught.value)
    step = int(re.match(r"step (\d+) \(batch \d of epoch 1\): the loss is nan", message)[1])
    where = "image_encoded is not finite in the records themselves" if cached else "output is not finite is image_tower/breaks"
    assert where in message
    assert f"in 1 of {BATCH} examples: {BAD}\n" in message
    paths = checkpoints(tmp_path / "run" / "checkpoints")
    assert [load(path).step for path in paths] == list(range(1, step))[-2:]
    assert (f"the last good checkpoint is {paths[-1]}" if paths else "there was no checkpoint yet") in message
    assert all(np.isfinite(array).all() for path in paths for array in load(path).arrays.values())


@pytest.mark.parametrize(
    ("minutes", "said"),
    [
        (0, "step 1 (batch 1 of epoch 1): 13 of 56 numbers of word_embedding/embeddings are not finite\n"),
        (10, "step 2 (batch 2 of epoch 1): the loss is nan\n"),  # nothing was saved: it is taken up from its first weights
    ],
)
def test_step_that_was_too_large_is_told_from_a_bad_batch(tmp_path, folder, minutes, said):
    with pytest.raises(NotFiniteError) as caught:
        _train(
            folder,
            tmp_path / "run",
            functools.partial(build_small_cnn, widths=(8,)),
            checkpoint_minutes=minutes,
            make_optimizer=lambda steps, model: keras.optimizers.SGD(1e38),
        )
    message = str(caught.value)
    assert message.startswith(said)
    assert "with the weights just before it: " in message
    assert "all gradients are finite; the step itself was too large" in message or "the step before was too large" in message
    assert "examples: " not in message
    assert "lower the learning rate" in message
    assert checkpoints(tmp_path / "run" / "checkpoints") == []


def test_gradient_that_is_not_finite_is_told_of(tmp_path, folder):
    def build(spec):
        inputs = keras.Input((*spec.size, 3))
        dark = keras.ops.minimum(keras.ops.mean(inputs, (1, 2)), 0.0)  # zeros, of which the root has no gradient
        scaled = keras.layers.Dense(8, use_bias=False, name="dense")(dark)
        return keras.Model(inputs, keras.ops.sqrt(keras.ops.abs(scaled)), name="image_tower")

    with pytest.raises(NotFiniteError, match="but the gradient of dense/kernel is not finite"):
        _train(folder, tmp_path / "run", build, modalities=("image",))
