"""Fetches one image over HTTP(S) within limits, and by default only from public addresses."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import socket
import time
from urllib.parse import urljoin, urlsplit

from tfrecords_tools.packing.images import BadImageError, ImageOptions, prepare_image

TEMPORARY = ("connection", "rate_limited", "server_error", "timeout", "truncated", "unknown_host")
PERMANENT = (
    "bad_url",
    "client_error",
    "forbidden",
    "not_an_image",
    "not_found",
    "private_address",
    "too_large",
    "too_many_redirects",
)


@dataclasses.dataclass(frozen=True)
class FetchOptions:
    """Limits of one request.

    Attributes:
        seconds: the most seconds that a request may take, including its redirects.
        max_bytes: the largest answer that is read.
        max_redirects: how many redirects are followed.
        allow_private: whether loopback, private and link-local addresses are allowed.
        user_agent: tells servers who asks. It should name a contact.
    """

    seconds: float = 30.0
    max_bytes: int = 50_000_000
    max_redirects: int = 5
    allow_private: bool = False
    user_agent: str = "mm_keras tfrecords-tools/0.1"


class FetchError(Exception):
    """A request that returned no image.

    Attributes:
        kind: one of `TEMPORARY` or `PERMANENT`.
        retry_after: seconds for which the server asks to wait, or None.
    """

    def __init__(self, kind: str, detail: str, retry_after: float | None = None):
        super().__init__(detail)
        self.kind = kind
        self.retry_after = retry_after


def make_client(options: FetchOptions):
    """An HTTP client for `fetch`; it may be shared between threads.

    Raises:
        ImportError: if httpx is not installed.
    """
    try:
        import httpx
    except ImportError as error:
        raise ImportError("collecting needs httpx: pip install 'mm_keras[collect]'") from error
    timeout = httpx.Timeout(min(10.0, options.seconds))
    headers = {"User-Agent": options.user_agent, "Accept-Encoding": "identity"}  # images are compressed already
    return httpx.Client(timeout=timeout, headers=headers, follow_redirects=False, trust_env=False)


def fetch(client, url: str, options: FetchOptions) -> bytes:
    """Fetches the image at `url` and returns its bytes.

    Args:
        client: the client that `make_client` made.
        url: an http or https URL.
        options: see `FetchOptions`.

    Raises:
        FetchError: if there is no image within the limits; its `kind` is the class of the error.
    """
    import httpx

    deadline = time.monotonic() + options.seconds
    for _ in range(options.max_redirects + 1):
        request = _to_checked_address(client, url, options)
        try:
            with contextlib.closing(client.send(request, stream=True)) as response:
                if response.is_redirect:
                    url = urljoin(url, response.headers.get("Location", ""))
                    continue
                _check_status(response)
                data = _read(response, options, deadline)
        except httpx.TimeoutException as error:
            raise FetchError("timeout", f"{type(error).__name__}: {error}") from error
        except httpx.RemoteProtocolError as error:
            raise FetchError("truncated", f"the connection ended early: {error}") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise FetchError("connection", f"{type(error).__name__}: {error}") from error
        try:
            prepare_image(data, ImageOptions(short_side=None))
        except BadImageError as error:
            raise FetchError("not_an_image", str(error)) from error
        return data
    raise FetchError("too_many_redirects", f"more than {options.max_redirects} redirects, the last one to {url}")


def _to_checked_address(client, url: str, options: FetchOptions):
    """A request to the address that was checked, since a second look-up of the host's name could return another address."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]
        if not host:
            raise ValueError("no host")
    except (ValueError, KeyError) as error:
        raise FetchError("bad_url", f"expected http(s)://host/…: {error}. Received: {url[:200]!r}") from error
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchError("unknown_host", f"{host}: {error}") from error
    address = addresses[0][4][0].partition("%")[0]
    if not options.allow_private and not ipaddress.ip_address(address).is_global:
        raise FetchError("private_address", f"{host} is {address}, which is not public; allow it with --allow_private")
    literal = f"[{address}]" if ":" in address else address
    target = parts._replace(netloc=f"{literal}:{port}", fragment="").geturl()
    host_header = host if port in (80, 443) else f"{host}:{port}"
    return client.build_request("GET", target, headers={"Host": host_header}, extensions={"sni_hostname": host})


def _check_status(response) -> None:
    status = response.status_code
    detail = f"HTTP {status} {response.reason_phrase}"
    if status == 200:
        return
    if status in (404, 410):
        raise FetchError("not_found", detail)
    if status in (401, 403, 451):
        raise FetchError("forbidden", detail)
    if status == 429 or status >= 500:
        seconds = response.headers.get("Retry-After", "")
        kind = "rate_limited" if status == 429 else "server_error"
        raise FetchError(kind, detail, float(seconds) if seconds.isdecimal() else None)
    raise FetchError("client_error", detail)


def _read(response, options: FetchOptions, deadline: float) -> bytes:
    announced = response.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced) > options.max_bytes:
        raise FetchError("too_large", f"{int(announced):,} bytes announced; max_bytes is {options.max_bytes:,}")
    data = bytearray()
    for chunk in response.iter_raw():
        data += chunk
        if len(data) > options.max_bytes:
            raise FetchError("too_large", f"more than max_bytes, {options.max_bytes:,}")
        if time.monotonic() > deadline:
            raise FetchError("timeout", f"not complete after {options.seconds:g} seconds ({len(data):,} bytes)")
    return bytes(data)
