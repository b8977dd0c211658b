"""A client of the server, and of any server that speaks TensorFlow Serving's REST. It needs Python alone.

>>> client = Client("http://127.0.0.1:8501")
>>> client.classify(image="photo.jpg", title="Solid oak")["labels"][0]
{'label': 'oak mug', 'probability': 0.91}
"""

from __future__ import annotations

import base64
import http.client
import json
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_RETRIED = (429, 503)


class ServerError(Exception):
    """The server refused a request.

    Attributes:
        status: the status of HTTP; 0: there was no answer.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message if not status else f"{message} (HTTP {status})")
        self.status = status


class Client:
    """Asks one server. Connections are kept open; a client is for one thread.

    Args:
        url: the server's address, "http://127.0.0.1:8501".
        model: the model asked where a call names none; None: the server's first, which only `classify` knows.
        timeout: seconds to wait for an answer.
        tries: how often a request is sent while the server is busy (429), starts (503), or cannot be reached.

    Example:
        >>> client = Client("http://127.0.0.1:8501", model="products")
        >>> client.predict([{"image": Path("photo.jpg"), "title": "Solid oak"}])[0]["labels"][0]
        'Furniture'
    """

    def __init__(self, url: str, model: str | None = None, timeout: float = 60.0, tries: int = 4):
        parts = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"an address is http://HOST:PORT. Received: {url!r}")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=timeout)
        self._prefix = parts.path.rstrip("/")
        self._tries = max(1, tries)
        self.model = model

    def classify(self, model: str | None = None, top: int = 5, **inputs: str | bytes | Path) -> dict[str, Any]:
        """The labels of one example, by `POST /classify`.

        Args:
            model: the model's name.
            top: how many labels are wanted.
            inputs: texts by the names of the fields, and `image`: a path or encoded bytes. Fields whose names are no
                identifiers are passed as `**{"Review Text": "…"}`.

        Raises:
            ServerError: if the server refuses it.
            FileNotFoundError: if there is no such picture.
        """
        if isinstance(inputs.get("image"), str):
            inputs["image"] = Path(inputs["image"])
        query = urllib.parse.urlencode({"top": top} | ({"model": model or self.model} if model or self.model else {}))
        return self._send("POST", f"/classify?{query}", {name: _encode(value) for name, value in inputs.items()})

    def predict(
        self,
        instances: Sequence[Mapping[str, Any]],
        model: str | None = None,
        signature: str | None = None,
        version: int | None = None,
    ) -> list[dict[str, Any]]:
        """The outputs of a signature for each example, by TensorFlow Serving's `:predict`.

        Args:
            instances: every input of the signature for each example: texts, and for pictures bytes or paths.
            model, version: which model; its newest version by default.
            signature: the signature; "serving_default" by default.
        """
        body: dict[str, Any] = {"instances": [{name: _encode(value) for name, value in row.items()} for row in instances]}
        body |= {"signature_name": signature} if signature else {}
        return self._send("POST", f"{self._path(model, version)}:predict", body)["predictions"]

    def metadata(self, model: str | None = None, version: int | None = None) -> dict[str, Any]:
        """What the signatures of a model take and give."""
        return self._send("GET", f"{self._path(model, version)}/metadata")["metadata"]["signature_def"]["signature_def"]

    def status(self, model: str | None = None) -> list[dict[str, Any]]:
        """The states of the versions of a model."""
        return self._send("GET", self._path(model, None))["model_version_status"]

    def is_ready(self) -> bool:
        """Whether all models of the server answer."""
        try:
            return self._once("GET", "/v2/health/ready", None)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def wait(self, seconds: float = 60.0) -> None:
        """Waits until the server is ready; TimeoutError if it is not by then."""
        ends = time.monotonic() + seconds
        while not self.is_ready():
            if time.monotonic() > ends:
                raise TimeoutError(f"the server was not ready within {seconds:g} s")
            time.sleep(0.1)

    def close(self) -> None:
        """Closes the connection; a later call opens it again."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _path(self, model: str | None, version: int | None) -> str:
        name = model or self.model
        if not name:
            raise ValueError("name a model: Client(url, model=…), or model=… of the call")
        return f"/v1/models/{urllib.parse.quote(name, safe='')}" + (f"/versions/{version}" if version is not None else "")

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        for attempt in range(self._tries):
            last = attempt == self._tries - 1
            try:
                status, content = self._once(method, path, body)
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if last:
                    raise ServerError(0, f"{self._connection.host}:{self._connection.port}: {error}") from error
            else:
                if status == 200:
                    return content
                if status not in _RETRIED or last:
                    message = content.get("error") if isinstance(content, dict) else None
                    raise ServerError(status, message or str(content))
            time.sleep(0.2 * 2**attempt)
        raise AssertionError("not reached")

    def _once(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        self._connection.request(method, self._prefix + path, data, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        text = answer.read()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text.decode("utf-8", "replace")


def _encode(value: Any) -> Any:
    value = value.read_bytes() if isinstance(value, Path) else value
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes | bytearray) else value
