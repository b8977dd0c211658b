"""Errors of requests: a status of gRPC, which is also one of HTTP, and a text."""

from __future__ import annotations

HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "CANCELLED": 499,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    "TOO_LARGE": 413,
}
"""The statuses that this server gives, mapped to HTTP as TensorFlow Serving does, which itself has no limit on bodies (413)."""


class RequestError(Exception):
    """A request that is not answered.

    Args:
        message: the text that the client gets.
        code: a key of `HTTP_STATUS`.
    """

    def __init__(self, message: str, code: str = "INVALID_ARGUMENT"):
        super().__init__(message)
        self.code = code

    @property
    def status(self) -> int:
        """The status of HTTP."""
        return HTTP_STATUS[self.code]
