"""Limits on what a request may hold, which are checked while its body arrives."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping

import numpy as np

from mm_keras.features import IMAGE
from mm_keras.serve.errors import RequestError


class LimitedBody:
    """An ASGI application whose requests have bodies of at most so many bytes; others are answered with 413.

    Args:
        app: the application.
        max_bytes: the largest body, also of one that was compressed and is unpacked.
    """

    def __init__(self, app: Callable, max_bytes: int):
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._max_bytes:
            await self._refuse(send)
            return
        size, begun = 0, False
        unpack = zlib.decompressobj(31) if headers.get(b"content-encoding", b"").strip().lower() == b"gzip" else None

        async def receiving():
            nonlocal size
            message = await receive()
            body = message.get("body", b"")
            if message["type"] == "http.request" and unpack is not None:
                try:
                    body = unpack.decompress(body, self._max_bytes + 1 - size)
                except zlib.error as error:
                    raise RequestError(f"the body is no gzip: {error}") from error
                message = message | {"body": body}
            size += len(body)
            if size > self._max_bytes:
                raise RequestError(self._told(), "TOO_LARGE")
            return message

        async def sending(message):
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receiving, sending)
        except RequestError as error:
            if begun:
                raise
            await _send_error(send, error)

    async def _refuse(self, send) -> None:
        await _send_error(send, RequestError(self._told(), "TOO_LARGE"))

    def _told(self) -> str:
        return f"the body has more than {self._max_bytes / 2**20:,.0f} MB: send fewer or smaller examples"


async def _send_error(send, error: RequestError) -> None:
    body = json.dumps({"error": str(error)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def check_texts(inputs: Mapping[str, np.ndarray], max_text: int) -> None:
    """Raises RequestError for a text that is too long; pictures have limits of their own, in the model."""
    for name, values in inputs.items():
        if values.dtype == object and name != IMAGE:
            longest = max(map(len, values.reshape(-1)), default=0)
            if longest > 4 * max_text or (longest > max_text and _most_characters(values) > max_text):
                raise RequestError(f"input {name!r} has a text of more than {max_text:,} characters: shorten it")


def _most_characters(values: np.ndarray) -> int:
    return max(len(value.decode("utf-8", "replace")) for value in values.reshape(-1))
