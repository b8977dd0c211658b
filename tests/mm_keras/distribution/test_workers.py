import json

import pytest

from mm_keras.distribution.workers import ALONE, Worker, worker_of_environment

TWO = {"worker": ["a:1", "b:1"]}


@pytest.fixture
def place(monkeypatch):
    """A function: the cluster and the task -> this process's place."""

    def find(cluster, kind, index):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}))
        return worker_of_environment()

    return find


@pytest.mark.parametrize("text", [None, "", "  "])
def test_without_a_cluster_a_process_is_alone(monkeypatch, text):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    assert worker_of_environment() == ALONE
    assert ALONE.is_chief


def test_workers_are_counted_after_the_chief(place):
    assert place(TWO, "worker", 1) == Worker(1, 2)
    assert place({"worker": ["a:1"]}, "worker", 0) == ALONE
    assert place(TWO | {"chief": ["c:1"]}, "chief", 0) == Worker(0, 3)
    assert place(TWO | {"chief": ["c:1"]}, "worker", 0) == Worker(1, 3)
    assert not Worker(1, 3).is_chief


@pytest.mark.parametrize("text", ["worker", "[]", '{"cluster": {}}', '{"cluster": {"worker": ["a:1"]}, "task": {}}'])
def test_what_is_no_cluster_is_an_error_that_shows_one(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=r'JSON object such as {"cluster": {"worker": \["10\.0\.0\.1:2222"') as caught:
        worker_of_environment()
    assert repr(text) in str(caught.value)


def test_tasks_that_have_no_part_in_this_are_errors(place):
    with pytest.raises(ValueError, match=r"Received: task 'worker' in a cluster of \['ps', 'worker'\]"):
        place(TWO | {"ps": ["c:1"]}, "worker", 0)
    with pytest.raises(ValueError, match="Received: task 'evaluator'"):
        place(TWO, "evaluator", 0)


@pytest.mark.parametrize("index", [-1, 2])
def test_index_beyond_the_cluster_is_an_error(place, index):
    with pytest.raises(ValueError, match=f"this is worker {index}, of 2 in its cluster"):
        place(TWO, "worker", index)
