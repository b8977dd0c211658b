"""Starts the server, and ends it when the process is asked to end, after open requests are answered."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import re
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn
from absl import logging as absl_logging

from mm_keras.runs.export import export
from mm_keras.runs.run_folder import RUN_FILE
from mm_keras.runs.serving_files import model_name
from mm_keras.serve.app import Server, make_app, make_batcher_of
from mm_keras.serve.models import Models, ModelSource
from mm_keras.serve.observing import Metrics
from mm_keras.serve.options import ServerOptions

_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def find_source(given: str, labels: Sequence[str] = ()) -> ModelSource:
    """What an argument of the command means: a run folder, a folder of versions, or one version.

    Args:
        given: the folder, or NAME=FOLDER.
        labels: those of this model: "LABEL=VERSION".

    Raises:
        FileNotFoundError: if there is nothing to serve.
        ValueError: for a malformed name or label, or a version whose folder is not called by a number.
    """
    name, equals, path = given.partition("=")
    named = bool(equals) and "/" not in name and not Path(given).exists()
    folder = Path(path if named else given)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist: give a run folder, or the folder of an export")
    if named and not _NAME.fullmatch(name):
        raise ValueError(f"a model's name has letters, digits and '._-' alone. Received: {name!r}")
    run, versions = None, ()
    if (folder / "saved_model.pb").is_file():
        if not folder.resolve().name.isdecimal():
            raise ValueError(f"{folder} must be called by its version, a number, in a folder of versions")
        base, versions = folder.resolve().parent, (int(folder.resolve().name),)
        run = base.parent if (base.parent / RUN_FILE).is_file() else None
    elif (folder / RUN_FILE).is_file():
        base, run = folder / "export", folder
    else:
        base = folder
        run = folder.resolve().parent if (folder.resolve().parent / RUN_FILE).is_file() else None
    served_name = name if named else model_name(run or base)
    source = ModelSource(served_name, base, versions, _labels(labels), run)
    if run is folder and not (base.is_dir() and source.wanted()):
        absl_logging.info(f"{folder} has no export yet: it is exported now")
        export(folder)
    if not source.wanted():
        raise FileNotFoundError(f"{folder} is no run folder, and holds no versions of an exported model, such as {folder}/1")
    if source.labels:  # each labelled version is served, too
        source = ModelSource(served_name, base, tuple(sorted({*source.wanted(), *source.labels.values()})), source.labels, run)
    return source


def _labels(arguments: Sequence[str]) -> dict[str, int]:
    labels = {}
    for argument in arguments:
        label, _, version = argument.partition("=")
        if not (label and version.isdecimal()):
            raise ValueError(f"a label is given as LABEL=VERSION, such as stable=3. Received: {argument!r}")
        labels[label] = int(version)
    return labels


def run_server(
    sources: Sequence[ModelSource],
    options: ServerOptions = ServerOptions(),
    add_pages: Callable | None = None,
    began: Callable[[str], None] = functools.partial(print),
) -> None:
    """Serves models until the process is asked to end (SIGINT, SIGTERM).

    Args:
        sources: the models.
        options: address and limits.
        add_pages: `(app, server)`: adds further routes.
        began: is told the server's address once it accepts requests.

    Raises:
        ValueError: if two models have one name.
        OSError: if the port is taken.

    Example:
        >>> run_server([find_source("runs/products")], ServerOptions(port=8501))
    """
    names = [source.name for source in sources]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"two models are called {repeated[0]!r}: name them, as in {repeated[0]}-2=FOLDER")
    _log_to_stderr()
    metrics = Metrics()
    server = Server(Models(sources, make_batcher_of(options, metrics)), options, metrics)
    config = uvicorn.Config(
        make_app(server, add_pages),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=int(options.grace) or 1,
        timeout_keep_alive=30,
        lifespan="on",
    )
    listening = listen(options.host, options.port)
    with contextlib.closing(listening):
        address, port = listening.getsockname()[:2]
        host = f"[{address}]" if ":" in address else address
        began(f"serving {', '.join(names)} on http://{host}:{port}")
        asyncio.run(_Ended(config).serve([listening]))


def listen(host: str, port: int) -> socket.socket:
    """Opens the server's socket.

    The protocol is named: of a socket without one, asyncio does not know that its connections are TCP, and leaves Nagle's
    algorithm on, with which the second packet of each answer waits 40 ms for the client to acknowledge the first.

    Raises:
        OSError: if the port is taken or not allowed.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise OSError(error.errno, f"{error.strerror}: give another --port", f"{host}:{port}") from error
    listening.listen(1024)
    return listening


class _Ended(uvicorn.Server):
    """uvicorn's server, but it does not raise the signal once more after it has ended: being asked to end is no error."""

    @contextlib.contextmanager
    def capture_signals(self):
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _log_to_stderr() -> None:
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # the server's answer tells of a broken form
    logger = logging.getLogger("mm_keras.serve")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
