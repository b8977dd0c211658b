"""Metrics in Prometheus' format, and a log line of JSON about each request, which holds nothing of the request's content."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

log = logging.getLogger("mm_keras.serve.access")
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one server."""

    def __init__(self):
        self.registry = CollectorRegistry()
        options = {"registry": self.registry}
        self.requests = Counter("mm_keras_requests", "Requests by method and status.", ["method", "status"], **options)
        self.seconds = Histogram("mm_keras_request_seconds", "Seconds to answer.", ["method"], buckets=_SECONDS, **options)
        self.batch_rows = Histogram("mm_keras_batch_rows", "Examples that are answered together.", buckets=_ROWS, **options)
        self.in_flight = Gauge("mm_keras_requests_in_flight", "Requests that are being answered.", **options)
        self.rows_waiting = Gauge("mm_keras_rows_waiting", "Examples that wait for a model.", ["model"], **options)
        self.versions = Gauge("mm_keras_model_version", "The newest version that is served.", ["model"], **options)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)


class Observed:
    """An ASGI application whose requests are counted, timed and logged.

    Args:
        app: the application.
        metrics: the counters.
    """

    def __init__(self, app: Callable, metrics: Metrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, seen = time.perf_counter(), {"status": 500, "bytes_in": 0, "bytes_out": 0}
        facts = scope.setdefault("state", {}).setdefault("facts", {})

        async def receiving():
            message = await receive()
            seen["bytes_in"] += len(message.get("body", b""))
            return message

        async def sending(message):
            seen["status"] = message.get("status", seen["status"])
            seen["bytes_out"] += len(message.get("body", b""))
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receiving, sending)
        finally:
            seconds = time.perf_counter() - began
            method = facts.get("method", "other")
            self._metrics.in_flight.dec()
            self._metrics.requests.labels(method, seen["status"]).inc()
            self._metrics.seconds.labels(method).observe(seconds)
            line = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "client": (scope.get("client") or ("",))[0],
                "request": f"{scope['method']} {scope['path'][:200]}",
                "ms": round(1000 * seconds, 1),
                **seen,
                **facts,
            }
            log.info(json.dumps(line))
