"""HTTP requests that end when their time is up, whatever the server does: httpx alone limits each wait, not their sum."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

_CONNECT_SECONDS = 10.0


class HttpClient:
    """A client that several threads may share. Each thread has one connection, so that it is known which connection to cut.

    Args:
        user_agent: tells servers who asks.

    Raises:
        ImportError: if httpx is not installed.

    Example:
        >>> with HttpClient("my-project/1.0 (me@example.org)") as client, client.get("https://…", {}, 30.0) as response:
        ...     data = response.read()
    """

    def __init__(self, user_agent: str):
        try:
            import httpx
        except ImportError as error:
            raise ImportError("collecting needs httpx: pip install 'mm_keras[collect]'") from error
        headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}  # images are compressed already
        self._options = {
            "headers": headers,
            "verify": httpx.create_ssl_context(),
            "limits": httpx.Limits(max_connections=1, max_keepalive_connections=1),
            "follow_redirects": False,
            "trust_env": False,
        }
        self._of_thread = threading.local()
        self._clients: list[Any] = []

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(self, *_) -> None:
        for client in self._clients:
            client.close()

    @contextlib.contextmanager
    def get(self, url: str, headers: dict[str, str], seconds: float, server_name: str | None = None) -> Iterator[Any]:
        """Sends a request and gives the response, whose body is not read yet.

        Args:
            url: the URL.
            headers: further headers.
            seconds: the time after which the connection is cut, also while the block runs. Code that waits for the server then
                gets an error of httpx, mostly one that says that the connection ended early.
            server_name: the name that the server's certificate has to be for, if it is not the one in the URL.

        Raises:
            httpx.HTTPError, httpx.InvalidURL: if there is no response.
            TimeoutError: at the end of the block, if the time was up in it.
        """
        of_thread = self._mine()
        extensions = {"trace": of_thread.watch} | ({"sni_hostname": server_name} if server_name else {})
        timeout = (min(_CONNECT_SECONDS, seconds), seconds, seconds, seconds)
        request = of_thread.client.build_request("GET", url, headers=headers, timeout=timeout, extensions=extensions)
        timer = threading.Timer(seconds, of_thread.cut)
        timer.daemon = True
        of_thread.is_late = False
        timer.start()
        try:
            with contextlib.closing(of_thread.client.send(request, stream=True)) as response:
                yield response
                if of_thread.is_late:  # a body of unknown length ends where the connection does
                    raise TimeoutError(f"cut after {seconds:g} seconds")
        finally:
            timer.cancel()

    def _mine(self) -> _OfThread:
        if not hasattr(self._of_thread, "value"):
            import httpx

            self._of_thread.value = _OfThread(httpx.Client(**self._options))
            self._clients.append(self._of_thread.value.client)
        return self._of_thread.value


class _OfThread:
    """The client of one thread, and its connection."""

    def __init__(self, client: Any):
        self.client = client
        self.is_late = False
        self._stream: Any = None

    def watch(self, event: str, info: dict[str, Any]) -> None:
        """Remembers the newest connection; httpx calls it at each step of a request."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._stream = info["return_value"]
            if self.is_late:
                self.cut()

    def cut(self) -> None:
        """Ends the connection, which wakes the thread that waits for it."""
        self.is_late = True
        if self._stream is not None and (connection := self._stream.get_extra_info("socket")):
            with contextlib.suppress(OSError):  # the connection has ended already
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # an SSLSocket's own `shutdown` would wait for its lock
