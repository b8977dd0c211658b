"""What a server is started with."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """The limits and habits of a server.

    Attributes:
        host, port: where it listens; port 0 takes a free one.
        max_batch: examples of several requests that are answered together.
        batch_wait_ms: for how long a request waits for others although the model is idle.
        workers: batches that a model answers at the same time.
        max_queue: examples that may wait for a model; above it requests are refused with 429.
        timeout: seconds after which a request is given up with 504.
        max_body_mb: the largest body of a request; above it 413.
        max_text: characters of a text; above it 400.
        poll: seconds between two looks for new versions; 0: never.
        grace: seconds in which requests may still be answered when the server is asked to end.
    """

    host: str = "127.0.0.1"
    port: int = 8501
    max_batch: int = 32
    batch_wait_ms: float = 0.0
    workers: int = 2
    max_queue: int = 256
    timeout: float = 30.0
    max_body_mb: float = 32.0
    max_text: int = 100_000
    poll: float = 1.0
    grace: float = 30.0

    def __post_init__(self):
        least = {"port": 0, "max_batch": 1, "batch_wait_ms": 0, "workers": 1, "max_queue": 1, "max_text": 1, "poll": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name} must be at least {value}. Received: {getattr(self, name)}")
        for name in ("timeout", "max_body_mb", "grace"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0. Received: {getattr(self, name)}")
        if self.port > 65535:
            raise ValueError(f"a port is at most 65535. Received: {self.port}")
