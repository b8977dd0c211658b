"""Fetches one image over HTTP(S) within limits, and by default only from public addresses."""

from __future__ import annotations

import dataclasses
import socket
import time
from urllib.parse import urljoin, urlsplit

from tfrecords_tools.collect.addresses import is_public
from tfrecords_tools.collect.http_client import HttpClient
from tfrecords_tools.packing.images import BadImageError, ImageOptions, prepare_image

TEMPORARY = ("connection", "rate_limited", "server_error", "timeout", "truncated", "unknown_host")
PERMANENT = (
    "bad_id",
    "bad_url",
    "client_error",
    "forbidden",
    "not_an_image",
    "not_found",
    "private_address",
    "too_large",
    "too_many_redirects",
)
_OUR_MISTAKES = (AssertionError, NameError)  # faults of this program, which are never the outcome of a URL
_SHOWN, _DETAIL = 200, 500  # characters of a URL and of an error in a message


@dataclasses.dataclass(frozen=True)
class FetchOptions:
    """Limits of one request.

    Attributes:
        seconds: the most seconds that a request may take, with its redirects, and however slowly the server answers. Only the
            look-up of a name has a limit of its own, that of the system.
        max_bytes: the largest answer that is read.
        max_redirects: how many redirects are followed.
        allow_private: whether addresses that are not of the public internet are allowed; see `is_public`.
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


def fetch(client: HttpClient, url: str, options: FetchOptions) -> bytes:
    """Fetches the image at `url` and returns its bytes.

    Args:
        client: the client, which other threads may use at the same time.
        url: an http or https URL.
        options: see `FetchOptions`.

    Raises:
        FetchError: if there is no image within the limits; its `kind` is the class of the error.
    """

    deadline = time.monotonic() + options.seconds
    for _ in range(options.max_redirects + 1):
        request = _to_checked_address(url, options)
        try:
            with client.get(*request, max(deadline - time.monotonic(), 0.001), server_name=_host(url)) as response:
                if response.is_redirect:
                    url = _target(url, response.headers.get("Location", ""))
                    continue
                _check_status(response)
                data = _read(response, options)
        except (FetchError, *_OUR_MISTAKES):
            raise
        except Exception as error:  # from httpx and below it: whatever a server does is the outcome of this URL
            raise _classed(error, time.monotonic() >= deadline, options) from error
        try:
            prepare_image(data, ImageOptions(short_side=None))
        except Exception as error:  # from the image decoders
            raise FetchError("not_an_image", describe(error)) from error
        return data
    raise FetchError("too_many_redirects", f"more than {options.max_redirects} redirects, the last one to {url[:_SHOWN]!r}")


def describe(error: Exception) -> str:
    """One line about an error of another package: "InvalidURL: URL too long". A `BadImageError` needs no class name."""
    text = " ".join(str(error).encode("utf-8", "backslashreplace").decode().split())[:_DETAIL]
    return text if isinstance(error, BadImageError) else f"{type(error).__name__}: {text}"


def _classed(error: Exception, is_late: bool, options: FetchOptions) -> FetchError:
    """The `FetchError` for an exception that ended a request. A connection cut at the time limit may raise any of many."""
    import httpx

    if is_late or isinstance(error, httpx.TimeoutException):
        return FetchError("timeout", f"not complete after {options.seconds:g} seconds ({describe(error)})")
    if isinstance(error, httpx.RemoteProtocolError):
        return FetchError("truncated", f"the connection ended early: {describe(error)}")
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError | ValueError):
        return FetchError("bad_url", describe(error))
    return FetchError("connection", describe(error))


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def _target(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise FetchError("bad_url", f"redirected to {location[:_SHOWN]!r}: {error}") from error


def _to_checked_address(url: str, options: FetchOptions) -> tuple[str, dict[str, str]]:
    """The URL with its host replaced by the address that was checked, and the headers that name the host.

    Without the replacement, a second look-up of the host could give another address.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]
        if not host:
            raise ValueError("no host")
    except (ValueError, KeyError) as error:
        raise FetchError("bad_url", f"expected http(s)://host/…: {error}. Received: {url[:_SHOWN]!r}") from error
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        raise FetchError("unknown_host", f"{host[:_SHOWN]}: {describe(error)}") from error
    address = addresses[0][4][0].partition("%")[0]
    if not options.allow_private and not is_public(address):
        raise FetchError("private_address", f"{host} is {address}, which is not public; allow it with --allow_private")
    literal = f"[{address}]" if ":" in address else address
    target = parts._replace(netloc=f"{literal}:{port}", fragment="").geturl()
    return target, {"Host": host if port in (80, 443) else f"{host}:{port}"}


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


def _read(response, options: FetchOptions) -> bytes:
    announced = response.headers.get("Content-Length", "")
    if announced.isdecimal() and float(announced) > options.max_bytes:
        raise FetchError("too_large", f"{float(announced):,.0f} bytes announced; max_bytes is {options.max_bytes:,}")
    data = bytearray()
    for chunk in response.iter_raw():
        data += chunk
        if len(data) > options.max_bytes:
            raise FetchError("too_large", f"more than max_bytes, {options.max_bytes:,}")
    return bytes(data)
