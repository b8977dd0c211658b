"""Requests are joined while the model is busy, and no request suffers from another."""

import asyncio
import threading

import numpy as np
import pytest

from mm_keras.serve.batching import Batcher
from mm_keras.serve.errors import RequestError


class Model:
    """Doubles numbers; it waits while it is held, refuses what is negative, and remembers the sizes of its batches."""

    def __init__(self):
        self.sizes, self.free = [], threading.Event()
        self.free.set()

    def __call__(self, inputs):
        self.free.wait(10)
        self.sizes.append(len(inputs["x"]))
        if (inputs["x"] < 0).any():
            raise RequestError("a negative number")
        return {"y": inputs["x"] * 2}


def _x(*values):
    return {"x": np.array(values)}


@pytest.fixture
def model():
    return Model()


async def _held(model, batcher, requests):
    """Asks one request, on which the model is held, then others, and lets the model go on. The answers, or errors."""
    model.free.clear()
    tasks = [asyncio.create_task(batcher(_x(0)))]
    await asyncio.sleep(0.05)
    for inputs in requests:
        tasks.append(asyncio.create_task(batcher(inputs)))
        await asyncio.sleep(0)
    model.free.set()
    return (await asyncio.gather(*tasks, return_exceptions=True))[1:]


def test_a_lone_request_does_not_wait(model):
    answer = asyncio.run(Batcher(model)(_x(1, 2)))
    assert answer["y"].tolist() == [2, 4]
    assert model.sizes == [2]


def test_requests_that_find_the_model_busy_are_joined_and_told_apart(model):
    batcher = Batcher(model, workers=1)
    answers = asyncio.run(_held(model, batcher, [_x(1), _x(2, 3), _x(4)]))
    assert [answer["y"].tolist() for answer in answers] == [[2], [4, 6], [8]]
    assert model.sizes == [1, 4]


def test_batches_are_no_larger_than_allowed(model):
    asyncio.run(_held(model, Batcher(model, max_batch=2, workers=1), [_x(1), _x(2), _x(3), _x(4, 5, 6)]))
    assert model.sizes == [1, 2, 1, 3]


def test_what_has_another_shape_is_not_joined(model):
    other = {"x": np.ones((1, 2))}
    answers = asyncio.run(_held(model, Batcher(model, workers=1), [_x(1), other, _x(2)]))
    assert answers[1]["y"].tolist() == [[2, 2]]
    assert sorted(model.sizes[1:]) == [1, 2]


def test_a_wrong_request_takes_no_other_along(model):
    answers = asyncio.run(_held(model, Batcher(model, workers=1), [_x(1), _x(-1), _x(2)]))
    assert (answers[0]["y"].tolist(), answers[2]["y"].tolist()) == ([2], [4])
    assert isinstance(answers[1], RequestError)


def test_too_many_waiting_rows_are_refused_at_once(model):
    answers = asyncio.run(_held(model, Batcher(model, max_queue=3, workers=1), [_x(1, 2), _x(3), _x(4)]))
    assert [answer["y"].tolist() for answer in answers[:2]] == [[2, 4], [6]]
    assert (answers[2].code, answers[2].status) == ("RESOURCE_EXHAUSTED", 429)


def test_who_gives_up_leaves_the_queue(model):
    async def ask():
        batcher = Batcher(model, workers=1)
        model.free.clear()
        first = asyncio.create_task(batcher(_x(0)))
        await asyncio.sleep(0.05)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batcher(_x(1)), 0.05)
        assert batcher.rows_waiting == 0
        model.free.set()
        await first
        await batcher.end()

    asyncio.run(ask())
    assert model.sizes == [1]


def test_a_request_waits_for_others_if_that_is_asked_for(model):
    async def ask():
        batcher = Batcher(model, wait=0.2, workers=1)
        first = asyncio.create_task(batcher(_x(1)))
        await asyncio.sleep(0.05)
        await asyncio.gather(first, batcher(_x(2)))

    asyncio.run(ask())
    assert model.sizes == [2]


def test_inputs_of_unequal_numbers_are_an_error(model):
    with pytest.raises(RequestError, match="equal 0th-dimension size"):
        asyncio.run(Batcher(model)({"x": np.ones(2), "z": np.ones(3)}))
