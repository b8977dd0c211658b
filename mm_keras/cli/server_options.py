"""The options that `serve` and `demo` share."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mm_keras.serve.options import ServerOptions

_HELP = {
    "host": "the address to listen on; 0.0.0.0 lets other machines in (default: 127.0.0.1)",
    "port": "the port; 0 takes a free one (default: 8501)",
    "max_batch": "examples of several requests that are answered together (default: 32)",
    "batch_wait_ms": "for how long a request waits for others although the model is idle (default: 0)",
    "workers": "batches that a model answers at the same time (default: 2)",
    "max_queue": "examples that may wait; above it requests are refused with 429 (default: 256)",
    "timeout": "seconds after which a request is given up with 504 (default: 30)",
    "max_body_mb": "the largest body of a request, else 413 (default: 32)",
    "max_text": "characters of a text, else 400 (default: 100000)",
    "poll": "seconds between two looks for new versions; 0: never (default: 1)",
    "grace": "seconds in which requests are still answered when the server is asked to end (default: 30)",
}
_NEEDED = ("fastapi", "uvicorn", "multipart", "prometheus_client")


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Adds an option for each attribute of `ServerOptions`."""
    from mm_keras.serve.options import ServerOptions

    for field in dataclasses.fields(ServerOptions):
        kind = type(field.default)
        parser.add_argument(f"--{field.name}", type=kind, metavar="N" if kind is not str else "ADDRESS", help=_HELP[field.name])


def server_options(options: argparse.Namespace) -> ServerOptions:
    """The options that were given, and the defaults of the others."""
    from mm_keras.serve.options import ServerOptions

    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(ServerOptions)}
    return ServerOptions(**{name: value for name, value in values.items() if value is not None})


def check_extra() -> None:
    """Raises ImportError if a package of the extra [serve] is not installed."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"the server needs {', '.join(missing)}: pip install 'mm_keras[serve]'")
