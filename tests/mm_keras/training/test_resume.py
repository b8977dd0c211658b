"""Trainings that are killed, asked to end, torn or changed, and what becomes of them when they are resumed."""

import contextlib
import functools
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest

from mm_keras.distribution.preemption import Preempted
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.verify import verify
from mm_keras.training.checkpoint import CheckpointError, checkpoints, load, load_latest
from mm_keras.training.checkpoint_callbacks import SaveCheckpoints
from mm_keras.training.optimizer import make_optimizer
from tests.mm_keras.training import tiny_training
from tests.mm_keras.training.tiny_training import EPOCHS, train_tiny
from tfrecords_tools.dataset.atomic_file import atomic_file, write_text
from tfrecords_tools.dataset.checksums import DamagedFileError

REPOSITORY = Path(__file__).parents[3]
STEPS = 13  # an epoch
OFTEN = 0.0001  # minutes: after any few steps

CASES = {
    "image tower trained on augmented pictures": {},
    "on cached features": {"cached": True},
    "last epoch kept": {"cached": True, "val_split": None},
}


@pytest.fixture(scope="module")
def on_cached_features(tmp_path_factory, dataset):
    """A training that nothing broke off, for reading.

    Its `folder`, its `weights`, its `lines` of metrics, what it `printed`, and `after_5_steps`: a copy of the folder as it was
    then, which is what a kill would have left. It was to be resumed where there was nothing to resume.
    """
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    copy = folder.with_name("after_5_steps")
    whole = SaveCheckpoints.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        whole(self, batch, logs)
        if self.step == 5:
            shutil.copytree(folder, copy)

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr(SaveCheckpoints, "on_train_batch_end", on_train_batch_end)
        model = train_tiny(dataset, folder, resume=True, checkpoint_minutes=0, **CASES["on cached features"])
    assert [load(path).step for path in checkpoints(copy / "checkpoints")] == [4, 5]
    return types.SimpleNamespace(
        folder=folder, weights=model.get_weights(), lines=_lines(folder), printed=printed.getvalue(), after_5_steps=copy
    )


@pytest.fixture(scope="module")
def unbroken(request, tmp_path_factory, dataset):
    """A function: a case -> weights and lines of metrics of a training that nothing broke off."""

    @functools.cache
    def get(case):
        if case == "on cached features":
            made = request.getfixturevalue("on_cached_features")
            return made.weights, made.lines
        folder = tmp_path_factory.mktemp("unbroken") / "run"
        return train_tiny(dataset, folder, **CASES[case]).get_weights(), _lines(folder)

    return get


def _lines(folder):
    """All but what depends on the clock."""
    timed = {"examples_per_second", "input_wait"}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


def _process(dataset, folder, options, *kill):
    """Runs a training in a process of its own, which kills itself at a step."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, tiny_training.__file__, dataset, str(folder), json.dumps(options), *map(str, kill)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _assert_same(trained, folder, expected):
    weights, lines = expected
    assert _lines(folder) == lines
    for one, other in zip(trained, weights, strict=True):
        np.testing.assert_array_equal(one, other)


class _CutOffError(Exception):
    pass


@pytest.fixture(scope="module")
def cut_off(dataset):
    """A function: (folder, step, options) -> trains until that step, after which nothing of the process happens any more."""

    def run(folder, step, **options):
        whole = SaveCheckpoints.on_train_batch_end

        def on_train_batch_end(self, batch, logs=None):
            whole(self, batch, logs)
            if self.step == step:
                raise _CutOffError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SaveCheckpoints, "on_train_batch_end", on_train_batch_end)
            with pytest.raises(_CutOffError):
                train_tiny(dataset, folder, **({"checkpoint_minutes": 0} | options))

    return run


@pytest.mark.slow
@pytest.mark.parametrize("case", ["image tower trained on augmented pictures", "on cached features"])
def test_training_that_is_killed_twice_ends_as_an_unbroken_one(tmp_path, dataset, unbroken, case):
    folder = tmp_path / "run"
    options = CASES[case] | {"checkpoint_minutes": OFTEN}
    assert _process(dataset, folder, options, 9).returncode == -signal.SIGKILL
    first = load_latest(folder / "checkpoints").step
    assert 0 < first < 9
    assert _process(dataset, folder, options | {"resume": True}, 11).returncode == -signal.SIGKILL
    assert first < load_latest(folder / "checkpoints").step < first + 11
    model = train_tiny(dataset, folder, resume=True, **options)
    _assert_same(model.get_weights(), folder, unbroken(case))
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["best.keras"]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("number", range(10))
def test_training_that_is_killed_anywhere_ends_as_an_unbroken_one(tmp_path, dataset, unbroken, case, number):
    folder = tmp_path / "run"
    step = random.Random(number).randrange(2, EPOCHS * STEPS)
    options = CASES[case] | {"checkpoint_minutes": OFTEN}
    assert _process(dataset, folder, options, step).returncode == -signal.SIGKILL
    assert _process(dataset, folder, options | {"resume": True}).returncode == 0
    with np.load(folder / "weights.npz") as weights:
        _assert_same([weights[name] for name in weights.files], folder, unbroken(case))


@pytest.mark.slow
@pytest.mark.parametrize("step", [STEPS, EPOCHS * STEPS])
def test_training_goes_on_from_the_last_steps_of_epochs(tmp_path, dataset, unbroken, cut_off, step):
    cut_off(tmp_path / "run", step, **CASES["last epoch kept"])
    model = train_tiny(dataset, tmp_path / "run", resume=True, **CASES["last epoch kept"])
    _assert_same(model.get_weights(), tmp_path / "run", unbroken("last epoch kept"))


@pytest.mark.ci
def test_training_that_lacks_nothing_but_its_end_comes_to_it(tmp_path, dataset, monkeypatch):
    """The broken off run is a copy of the folder just before the last model is saved."""
    run, broken_off, options = tmp_path / "run", tmp_path / "broken_off", CASES["last epoch kept"]

    def copy_and_go_on(path):
        shutil.copytree(run, broken_off)
        return atomic_file(path)

    with monkeypatch.context() as patch:
        patch.setattr("mm_keras.training.keep.atomic_file", copy_and_go_on)
        expected = train_tiny(dataset, run, checkpoint_minutes=0, **options).get_weights(), _lines(run)
    assert load_latest(broken_off / "checkpoints").step == EPOCHS * STEPS
    model = train_tiny(dataset, broken_off, resume=True, **options)
    _assert_same(model.get_weights(), broken_off, expected)
    assert RunFolder(broken_off).best.is_file()


@pytest.mark.slow
def test_averages_of_weights_are_not_mistaken_for_the_weights(tmp_path, dataset, cut_off):
    options = {"cached": True, "make_optimizer": functools.partial(make_optimizer, average=0.9, accumulate=2)}
    expected = train_tiny(dataset, tmp_path / "unbroken", **options).get_weights(), _lines(tmp_path / "unbroken")
    cut_off(tmp_path / "run", STEPS + 3, **options)
    model = train_tiny(dataset, tmp_path / "run", resume=True, **options)
    _assert_same(model.get_weights(), tmp_path / "run", expected)


@pytest.mark.ci
def test_training_that_is_asked_to_end_saves_its_step_and_says_how_to_go_on(tmp_path, dataset, unbroken, monkeypatch):
    folder, case = tmp_path / "run", "on cached features"
    with monkeypatch.context() as patch, pytest.raises(Preempted) as caught:
        patch.setattr(SaveCheckpoints, "on_train_batch_begin", _terminate_at(STEPS + 4), raising=False)
        train_tiny(dataset, folder, **CASES[case])
    (path,) = [path for path in checkpoints(folder / "checkpoints") if load(path).step == STEPS + 4]
    assert f"after step {STEPS + 4}; its last checkpoint is {path}. Run the same command again with" in str(caught.value)
    model = train_tiny(dataset, folder, resume=True, **CASES[case])
    _assert_same(model.get_weights(), folder, unbroken(case))


def _terminate_at(step):
    """A method that asks the process to end when that step, counted from 1, begins."""

    def on_train_batch_begin(self, batch, logs=None):
        if self.step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    return on_train_batch_begin


@pytest.mark.slow
def test_training_that_is_asked_to_end_while_it_validates_stops_there(tmp_path, dataset, unbroken, monkeypatch):
    folder, case = tmp_path / "run", "on cached features"
    with monkeypatch.context() as patch, pytest.raises(Preempted, match=f"after step {STEPS}; its last checkpoint is"):
        patch.setattr(
            SaveCheckpoints, "on_test_begin", lambda self, logs=None: os.kill(os.getpid(), signal.SIGTERM), raising=False
        )
        train_tiny(dataset, folder, checkpoint_minutes=0, **CASES[case])
    assert load_latest(folder / "checkpoints").step == STEPS - 1
    model = train_tiny(dataset, folder, resume=True, **CASES[case])
    _assert_same(model.get_weights(), folder, unbroken(case))


@pytest.fixture
def broken_off(tmp_path, on_cached_features):
    """A run folder with checkpoints of steps 4 and 5."""
    return Path(shutil.copytree(on_cached_features.after_5_steps, tmp_path / "run"))


@pytest.fixture(scope="module")
def moved(tmp_path_factory, dataset):
    """The dataset in another folder."""
    return shutil.copytree(dataset, tmp_path_factory.mktemp("dataset") / "moved")


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, moved, on_cached_features):
    """A function: what its last checkpoint suffered -> (folder, weights, output, its checkpoints) of a run that went on with
    the dataset in another folder."""

    @functools.cache
    def resume(how):
        folder = shutil.copytree(on_cached_features.after_5_steps, tmp_path_factory.mktemp("resumed") / "run")
        _, last = paths = checkpoints(folder / "checkpoints")
        data = bytearray(last.read_bytes())
        data[-3] ^= 1
        last.write_bytes(data[: len(data) // 2] if how == "cut short" else data)
        (last.parent / f"unfinished-{last.name}").write_bytes(b"torn")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            model = train_tiny(moved, folder, cached=True, resume=True)
        return folder, model.get_weights(), printed.getvalue(), paths

    return resume


@pytest.mark.parametrize("how", [pytest.param("cut short", marks=pytest.mark.slow), "a byte changed"])
def test_checkpoint_that_is_not_whole_is_told_of_and_the_one_before_is_taken(resumed, unbroken, how):
    folder, weights, printed, (before, last) = resumed(how)
    assert f"{last} is {'no checkpoint' if how == 'cut short' else 'damaged'}" in printed
    assert f"going on after step 4, from {before}" in printed
    _assert_same(weights, folder, unbroken("on cached features"))


@pytest.mark.parametrize(
    ("changed", "differences"),
    [
        ({"batch_size": 8, "seed": 4}, ["batch_size: 16 in the run, 8 now", "seed: 3 in the run, 4 now"]),
        ({"val_split": None}, ["dataset.val[0]: "]),
        ({"epochs": 4}, ["epochs: 3 in the run, 4 now", "decay_steps"]),
        ({"cached": False}, ["augment: false in the run, true now", "trainable: false in the run, true now"]),
    ],
)
def test_another_training_is_refused_with_what_differs(broken_off, dataset, changed, differences):
    with pytest.raises(CheckpointError, match="another model, configuration or dataset") as caught:
        train_tiny(dataset, broken_off, **({"cached": True} | changed), resume=True)
    for difference in differences:
        assert difference in str(caught.value)
    assert len(checkpoints(broken_off / "checkpoints")) == 2


def test_dataset_may_move_but_not_change(broken_off, moved, resumed, tmp_path):
    assert resumed("a byte changed")  # with the dataset in another folder
    changed = shutil.copytree(moved, tmp_path / "changed")
    shard = next(changed.glob("train-00000*.tfrecord"))
    info = json.loads((changed / "dataset.json").read_text())
    sha = next(entry["sha256"] for entry in info["splits"]["train"]["shards"] if entry["file"] == shard.name)
    write_text(changed / "dataset.json", json.dumps(info).replace(sha, "0" * 64))
    with pytest.raises(CheckpointError, match=rf'dataset.train\[0\]: "{sha}" in the run, "0000'):
        train_tiny(changed, broken_off, cached=True, resume=True)


def test_finished_run_says_so_and_stays_as_it_is(resumed, dataset, capsys):
    folder, weights, _, _ = resumed("a byte changed")
    lines = _lines(folder)
    again = train_tiny(dataset, folder, cached=True, resume=True)
    assert f"the run in {folder} is finished, there is nothing to resume" in capsys.readouterr().out
    assert verify(folder) == []
    assert not list(folder.rglob("unfinished-*"))
    _assert_same(again.get_weights(), folder, (weights, lines))


@pytest.mark.parametrize("name", ["run.json", "training.json", "vocabulary_0.txt"])
def test_damaged_file_of_the_run_stops_the_resumption_before_it_begins(broken_off, dataset, name):
    path = broken_off / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFileError, match=rf"{path} is damaged"):
        train_tiny(dataset, broken_off, cached=True, resume=True)


def test_where_there_is_nothing_to_resume_a_run_begins(on_cached_features):
    assert f"no training was begun in {on_cached_features.folder}" in on_cached_features.printed
    assert RunFolder(on_cached_features.folder).best.is_file()


@pytest.mark.ci
def test_run_that_was_cut_off_before_its_first_checkpoint_begins_anew(broken_off, dataset, unbroken):
    for path in checkpoints(broken_off / "checkpoints"):
        path.unlink()
    model = train_tiny(dataset, broken_off, cached=True, resume=True)
    _assert_same(model.get_weights(), broken_off, unbroken("on cached features"))


@pytest.mark.ci
def test_training_stops_when_patience_is_at_its_end_and_is_not_taken_up_again(tmp_path, dataset, monkeypatch, capsys):
    options = {"cached": True, "epochs": 30, "patience": 2, "make_optimizer": lambda steps, model: keras.optimizers.SGD(0.0)}

    def fail(*_):
        raise _CutOffError

    with monkeypatch.context() as patch, pytest.raises(_CutOffError):
        patch.setattr("mm_keras.training.keep.atomic_file", fail)
        train_tiny(dataset, tmp_path / "run", checkpoint_minutes=0, **options)
    assert len(_lines(tmp_path / "run")) == 3
    assert "val_top_1 was best in epoch 1, and no better in 2 since: stopping" in capsys.readouterr().out
    train_tiny(dataset, tmp_path / "run", resume=True, **options)
    assert len(_lines(tmp_path / "run")) == 3


@pytest.mark.parametrize("wrong", [{"patience": 0}, {"patience": 2, "val_split": None}])
def test_patience_needs_a_validation_split(tmp_path, dataset, wrong):
    with pytest.raises(ValueError, match=r"at least 1, without a better metric on val_split\. Received: patience="):
        train_tiny(dataset, tmp_path / "run", **wrong)
