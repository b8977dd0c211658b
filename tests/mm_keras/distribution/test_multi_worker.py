"""What several workers do when one of them dies, is asked to end, or trains something else."""

import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from mm_keras.distribution import multi_worker
from mm_keras.distribution.local_workers import run_local_workers
from mm_keras.distribution.preemption import EXIT_CODE
from mm_keras.training.checkpoint import checkpoints, load

ASKED_TO_END = """
import os, signal, sys, time
from mm_keras.distribution import multi_worker
from mm_keras.distribution.preemption import EXIT_CODE, Preempted, end_if_asked, noticing_sigterm

try:
    with noticing_sigterm():
        multi_worker.start()
        if multi_worker.this_worker().index == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(600):
            end_if_asked()
            time.sleep(0.1)
except Preempted as stop:
    print(stop, file=sys.stderr)
    sys.exit(EXIT_CODE)
"""
STEPS = 13  # an epoch
OFTEN = {"checkpoint_minutes": 0.0005}  # at any step


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, run_topology, one_file):
    folder = tmp_path_factory.mktemp("unbroken")
    assert run_topology(one_file, folder, {"run": {}}, workers=2) == 0
    return folder


def _assert_resumes(folder, unbroken, run_topology, dataset, workers=2):
    assert run_topology(dataset, folder, {"run": OFTEN | {"resume": True}}, workers=workers) == 0
    with np.load(folder / "run-0.npz") as resumed, np.load(unbroken / "run-0.npz") as expected:
        for name in expected.files:
            np.testing.assert_allclose(resumed[name], expected[name], atol=1e-6 if workers == 2 else 1e-5)
    lines = [(each / "run" / "metrics.jsonl").read_text().splitlines() for each in (folder, unbroken)]
    for line, expected in zip(*(map(json.loads, each) for each in lines), strict=True):
        metrics = [name for name in expected if name not in ("examples_per_second", "input_wait")]
        assert {name: line[name] for name in metrics} == pytest.approx(
            {name: expected[name] for name in metrics}, rel=1e-5 if workers == 2 else 1e-4
        )


@pytest.mark.slow
@pytest.mark.parametrize("worker", [0, 1])
def test_killed_worker_ends_all_and_the_training_is_resumed(
    tmp_path, run_topology, one_file, unbroken, capfd, monkeypatch, worker
):
    """Each survivor by itself, as on a cluster, where nobody ends them."""

    def wait_for_all(workers):
        for each in workers:
            each.wait(timeout=120)
        assert workers[1 - worker].returncode == EXIT_CODE
        return worker

    kill = {"worker": worker, "step": STEPS + 5, "signal": signal.SIGKILL}
    with monkeypatch.context() as patch:
        patch.setattr("mm_keras.distribution.local_workers.wait_for_workers", wait_for_all)
        assert run_topology(one_file, tmp_path, {"run": OFTEN}, kill, workers=2) == EXIT_CODE
    err = capfd.readouterr().err
    assert f"worker {worker} of 2 was ended by SIGKILL, so all are ended" in err
    if worker == 1:
        assert "worker 0 of 2 stops, because another one is gone: see the end of the others' output. Run the same" in err
        assert "/job:worker/" in err
    assert 0 < load(checkpoints(tmp_path / "run" / "checkpoints")[-1]).step <= STEPS + 5
    _assert_resumes(tmp_path, unbroken, run_topology, one_file)


@pytest.mark.slow
def test_worker_that_is_asked_to_end_stops_all_at_one_step_from_which_one_process_goes_on(
    tmp_path, run_topology, one_file, unbroken, capfd
):
    kill = {"worker": 1, "step": STEPS + 5, "signal": signal.SIGTERM}
    assert run_topology(one_file, tmp_path, {"run": {}}, kill, workers=2) == EXIT_CODE
    assert f"asked to end (SIGTERM) after step {STEPS + 6}; its last checkpoint is {tmp_path}" in capfd.readouterr().err
    assert load(checkpoints(tmp_path / "run" / "checkpoints")[-1]).step == STEPS + 6
    _assert_resumes(tmp_path, unbroken, run_topology, one_file, workers=1)


@pytest.mark.slow
def test_workers_that_do_not_train_the_same_are_told_so(tmp_path, run_topology, one_file, capfd):
    assert run_topology(one_file, tmp_path, {"run": {"seed": "of the worker"}}, workers=2) == 1
    assert "the workers do not train the same: training is " in capfd.readouterr().err


@pytest.mark.slow
def test_worker_outside_of_its_steps_can_be_asked_to_end(capfd):
    assert run_local_workers([sys.executable, "-c", ASKED_TO_END], 2) == EXIT_CODE
    assert "asked to end (SIGTERM); run the same command again" in capfd.readouterr().err


@pytest.mark.slow
def test_worker_that_waits_in_vain_ends(capfd):
    script = (
        "from mm_keras.distribution import multi_worker; from tfrecords_tools.progress import showing\n"
        "multi_worker.LONGEST_WAIT = 5\n"
        "with showing(): multi_worker.start()"
    )
    cluster = {"cluster": {"worker": ["127.0.0.1:29871", "127.0.0.1:29872"]}, "task": {"type": "worker", "index": 0}}
    environment = os.environ | {"TF_CONFIG": json.dumps(cluster), "CUDA_VISIBLE_DEVICES": ""}
    assert subprocess.run([sys.executable, "-c", script], env=environment, timeout=120, check=False).returncode == 1
    out, err = capfd.readouterr()
    assert "worker 0 of 2 waits for the others of TF_CONFIG" in out
    assert "Timeout (0:00:05)!" in err


def test_another_keras_is_refused(monkeypatch):
    monkeypatch.setattr(keras, "__version__", "3.16.0")
    with pytest.raises(RuntimeError, match=r"functions of keras 3\.15.* Received: keras 3\.16\.0; install keras==3\.15"):
        multi_worker.start()


def test_workers_without_a_cluster_are_refused(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match=r"addresses of two or more workers in TF_CONFIG; .*--local_workers=2"):
        multi_worker.start()
