import functools
import json

import numpy as np
import pytest
import tensorflow as tf

from mm_keras.distribution.strategy import make_strategy
from tests.mm_keras.distribution.topology import train_same

# An average, rates and starts of parts, and Adam, whose first steps are the signs of gradients: those near zero may differ.
ADAM = {
    "algorithm": "adamw",
    "learning_rate": 1e-2,
    "average": 0.5,
    "layer_rates": {"image_tower": 0.5},
    "unfreeze_at": {"text_encoder": 0.3},
}
# Three batches make an update; what they sum up to is far above the norm to which it is clipped.
ACCUMULATED = {"algorithm": "sgd", "learning_rate": 0.1, "accumulate": 3, "clip_norm": 0.2}
RUNS = {"accumulated": {"optimizer": ACCUMULATED}}
MORE_RUNS = {"sgd": {}, "adam": {"optimizer": ADAM, "val_split": None}, "cached": {"frozen": True}}
NAMES = [*(pytest.param(name, marks=pytest.mark.ci) for name in RUNS)]
NAMES += [*(pytest.param(name, marks=pytest.mark.slow) for name in MORE_RUNS)]
TOLERANCE = {"sgd": 1e-5, "adam": 1e-3, "accumulated": 1e-5, "cached": 1e-5}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, run_topology, one_file):
    """A function: name of a run -> a folder with it on all topologies, <topology>-<name>, and its weights."""

    @functools.cache
    def train(is_slow):
        folder = tmp_path_factory.mktemp("topologies")
        runs = MORE_RUNS if is_slow else RUNS
        for strategy in ("none", "mirrored"):
            for name, options in runs.items():
                model = train_same(one_file, folder / f"{strategy}-{name}", **options, strategy=strategy)
                np.savez(folder / f"{strategy}-{name}-0.npz", *model.get_weights())
        workers = {f"multi_worker-{name}": options for name, options in runs.items()}
        assert run_topology(one_file, folder, workers, workers=2) == 0
        return folder

    return lambda name: train(name in MORE_RUNS)


def _lines(run):
    """All but what depends on the clock."""
    timed = {"examples_per_second", "input_wait"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


def _weights(path):
    with np.load(path) as file:
        return [file[name] for name in file.files]


def test_names_give_strategies():
    assert make_strategy("none").num_replicas_in_sync == 1
    assert isinstance(make_strategy("mirrored"), tf.distribute.MirroredStrategy)
    assert make_strategy("auto").num_replicas_in_sync == max(1, len(tf.config.list_logical_devices("GPU")))


@pytest.mark.parametrize("name", ["gpu", "tpu:", "none:1"])
def test_unknown_name_is_an_error(name):
    with pytest.raises(ValueError, match=rf"one of auto, none, mirrored, multi_worker, tpu, tpu:<name>\. Received: '{name}'"):
        make_strategy(name)


@pytest.mark.parametrize("topology", ["mirrored", "multi_worker"])
@pytest.mark.parametrize("name", NAMES)
def test_two_replicas_train_what_one_does(trained, name, topology):
    """With batch normalisation, too: its statistics are those of the whole batch. Weights within `TOLERANCE`."""
    one, two = trained(name) / f"none-{name}", trained(name) / f"{topology}-{name}"
    assert json.loads((one / "run.json").read_text())["replicas"] == 1
    assert json.loads((two / "run.json").read_text())["replicas"] == 2
    assert len(_lines(one)) == 2
    assert ("val_top_1" in _lines(one)[0]) == (name != "adam")
    for line, expected in zip(_lines(two), _lines(one), strict=True):
        assert line == pytest.approx(expected, rel=1e-4, abs=1e-6)
    for found, expected in zip(_weights(f"{two}-0.npz"), _weights(f"{one}-0.npz"), strict=True):
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, expected, atol=TOLERANCE[name])


@pytest.mark.parametrize("name", NAMES)
def test_workers_end_with_the_same_weights_and_one_of_them_writes(trained, name):
    run = trained(name) / f"multi_worker-{name}"
    for chief, other in zip(_weights(f"{run}-0.npz"), _weights(f"{run}-1.npz"), strict=True):
        np.testing.assert_array_equal(chief, other)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["best.keras"]
