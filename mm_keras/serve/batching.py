"""Requests that arrive while the model is busy are answered together, in one batch."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mm_keras.serve.errors import RequestError
from mm_keras.serve.tf_serving import rows_of

Inputs = Mapping[str, np.ndarray]


class _Waiting:
    """A request in the queue."""

    def __init__(self, inputs: Inputs, rows: int):
        self.inputs, self.rows = inputs, rows
        self.future: asyncio.Future = asyncio.get_running_loop().create_future()
        # Requests of one kind can be joined: with the same inputs, of the same types and shapes but for the number of rows.
        self.kind = tuple(sorted((name, value.dtype.str, value.shape[1:]) for name, value in inputs.items()))


class Batcher:
    """A function of batches that many callers share; it runs on threads, so that the callers' event loop goes on.

    A request that finds the model idle runs at once, so that nobody waits without need. Those that come while it is busy wait
    in a queue, and are joined.

    Args:
        run: inputs by name -> outputs by name, arrays [B, …] each. It may raise RequestError.
        max_batch: rows that are joined; a request with more runs as it is.
        max_queue: rows that may wait. Above it, requests are refused.
        wait: seconds for which a request waits for others even if the model is idle.
        workers: batches that run at the same time.
        observe: called with the rows of each batch.
    """

    def __init__(
        self,
        run: Callable[[Inputs], dict[str, np.ndarray]],
        max_batch: int = 32,
        max_queue: int = 256,
        wait: float = 0.0,
        workers: int = 2,
        observe: Callable[[int], None] = lambda rows: None,
    ):
        self._run, self._observe = run, observe
        self._max_batch, self._max_queue, self._wait = max_batch, max_queue, wait
        self._queue: collections.deque[_Waiting] = collections.deque()
        self._workers = workers
        self._free = workers
        self._threads = ThreadPoolExecutor(workers, "model")
        self._tasks: set[asyncio.Task] = set()

    @property
    def rows_waiting(self) -> int:
        """How many rows wait."""
        return sum(waiting.rows for waiting in self._queue)

    async def __call__(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Answers a request; a caller that is cancelled while it waits leaves the queue.

        Raises:
            RequestError: RESOURCE_EXHAUSTED if too many rows wait, or what the model says of this request.
        """
        waiting = _Waiting(inputs, rows_of(inputs))
        if self._queue and self.rows_waiting + waiting.rows > self._max_queue:
            raise RequestError(
                f"{self.rows_waiting} examples are waiting, and {self._max_queue} may: try again later", "RESOURCE_EXHAUSTED"
            )
        self._queue.append(waiting)
        self._begin()
        try:
            return await waiting.future
        finally:
            if waiting in self._queue:
                self._queue.remove(waiting)

    async def end(self) -> None:
        """Waits until all requests are answered. The threads end once nothing refers to the batcher any more."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self) -> None:
        if self._free and self._queue:
            self._free -= 1
            task = asyncio.get_running_loop().create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self) -> None:
        try:
            while self._queue:
                if self._wait and self.rows_waiting < self._max_batch:
                    await asyncio.sleep(self._wait)
                if batch := self._take():
                    await self._answer(batch)
        finally:
            self._free += 1

    def _take(self) -> list[_Waiting]:
        """The first request in the queue and those that can be joined to it, in their order."""
        batch: list[_Waiting] = []
        rows = 0
        for waiting in list(self._queue):
            if not batch or (waiting.kind == batch[0].kind and rows + waiting.rows <= self._max_batch):
                batch.append(waiting)
                rows += waiting.rows
                self._queue.remove(waiting)
            if rows >= self._max_batch:
                break
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        first = batch[0].inputs
        inputs = (
            first if len(batch) == 1 else {name: np.concatenate([request.inputs[name] for request in batch]) for name in first}
        )
        self._observe(sum(request.rows for request in batch))
        try:
            outputs = await asyncio.get_running_loop().run_in_executor(self._threads, self._run, inputs)
        except RequestError as error:
            if len(batch) > 1:  # one request is wrong: answered one by one, the others do not fail with it
                for request in batch:
                    await self._answer([request])
                return
            _fail(batch, error)
        except Exception as error:
            _fail(batch, error)
        else:
            start = 0
            for request in batch:
                if not request.future.done():
                    request.future.set_result({name: value[start : start + request.rows] for name, value in outputs.items()})
                start += request.rows


def _fail(batch: list[_Waiting], error: Exception) -> None:
    for request in batch:
        if not request.future.done():
            request.future.set_exception(error)
