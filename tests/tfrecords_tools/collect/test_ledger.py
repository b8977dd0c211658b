import pytest

from tfrecords_tools.collect.ledger import Ledger, Outcome


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def test_waiting_urls_come_in_order_over_many_pages_while_outcomes_are_recorded(ledger):
    ledger.add((f"{number:05d}", f"http://host/{number}") for number in reversed(range(2500)))
    assert ledger.num_waiting() == 2500
    ids = []
    for example_id, url in ledger.waiting():
        assert url == f"http://host/{int(example_id)}"
        ids.append(example_id)
        if len(ids) % 1000 == 1:
            ledger.record(example_id, Outcome("done"))
    assert ids == sorted(ids)
    assert len(ids) == 2500
    assert ledger.counts() == {"done": 3, "waiting": 2497}


def test_outcomes_survive_the_process_and_being_added_again(tmp_path):
    pairs = [("a", "http://host/a"), ("b", "http://host/b"), ("c", "http://host/c")]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.add(pairs)
        ledger.record("a", Outcome("done", attempts=1, file="a.jpg", bytes=3, sha256="00"))
        ledger.record("b", Outcome("failed", "timeout", "30 seconds", attempts=4))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.add(pairs)
        assert ledger.counts() == {"done": 1, "timeout": 1, "waiting": 1}


def test_failed_urls_wait_again_by_their_error(ledger):
    ledger.add([(name, f"http://host/{name}") for name in "abc"])
    for name, error in (("a", "timeout"), ("b", "not_found"), ("c", "timeout")):
        ledger.record(name, Outcome("failed", error))
    assert ledger.retry(["timeout", "connection"]) == 2
    assert [example_id for example_id, _ in ledger.waiting()] == ["a", "c"]
    assert ledger.retry([]) == 0
