"""The models that are served: versions are loaded, replaced when a new one appears, and taken away with their folder."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mm_keras.serve.batching import Batcher
from mm_keras.serve.errors import RequestError
from mm_keras.serve.model_version import ModelVersion
from mm_keras.serve.tf_serving import version_status

_log = logging.getLogger("mm_keras.serve")
_PATIENCE = 30.0  # seconds for which a replaced version may still answer


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """Where a model's versions are.

    Attributes:
        name: what it is called in URLs.
        base: the folder whose subfolders, called by numbers, are its versions.
        versions: the versions to serve; none: the newest one, also when a newer one appears.
        labels: other names of versions: label -> version.
        run: the run folder that the model was exported from, if that is known.
    """

    name: str
    base: Path
    versions: tuple[int, ...] = ()
    labels: Mapping[str, int] = dataclasses.field(default_factory=dict)
    run: Path | None = None

    def wanted(self) -> dict[int, Path]:
        """The versions that are to be served: number -> folder."""
        folders = {int(path.name): path for path in self.base.iterdir() if path.name.isdecimal() and path.is_dir()}
        folders = {number: path for number, path in folders.items() if (path / "saved_model.pb").is_file()}
        if self.versions:
            return {number: folders[number] for number in self.versions if number in folders}
        return {max(folders): folders[max(folders)]} if folders else {}


class Served:
    """A version that answers requests, in batches.

    Args:
        version: the loaded version.
        make_batcher: `(function of batches) -> Batcher`.
    """

    def __init__(self, version: ModelVersion, make_batcher: Callable[[Callable], Batcher]):
        self.version = version
        self._make_batcher = make_batcher
        self._batchers: dict[str, Batcher] = {}

    async def ask(self, signature: str, inputs) -> dict:
        """The outputs of a signature for the rows of one request; RequestError for inputs of other shapes than it takes."""
        self.version.check(signature, inputs)
        if signature not in self._batchers:
            self._batchers[signature] = self._make_batcher(functools.partial(self.version.run, signature))
        return await self._batchers[signature](inputs)

    @property
    def rows_waiting(self) -> int:
        return sum(batcher.rows_waiting for batcher in self._batchers.values())

    async def end(self) -> None:
        """Waits until all that was asked is answered."""
        for batcher in list(self._batchers.values()):
            await batcher.end()


class Models:
    """All models of a server.

    Args:
        sources: where they are; their names are distinct.
        make_batcher: `(function of batches) -> Batcher`.
        load: `(name, number, folder) -> ModelVersion`, warm.
    """

    def __init__(
        self,
        sources: Sequence[ModelSource],
        make_batcher: Callable[[Callable], Batcher],
        load: Callable[[str, int, Path], ModelVersion] | None = None,
    ):
        self.sources = {source.name: source for source in sources}
        self._make_batcher = make_batcher
        self._load = load or load_warm
        self._served: dict[str, dict[int, Served]] = {name: {} for name in self.sources}
        self._states: dict[str, dict[int, tuple[str, str]]] = {name: {} for name in self.sources}
        self._failed: set[tuple[str, int]] = set()
        self._put: set[tuple[str, int]] = set()

    @property
    def ready(self) -> bool:
        """Whether each model has a version that answers."""
        return all(self._served.values())

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Served:
        """The version that a request means: the one given, or the newest.

        Raises:
            RequestError: NOT_FOUND if there is none, UNAVAILABLE while it is loaded, INVALID_ARGUMENT for an unknown label.
        """
        if label is not None:
            labels = self.sources[name].labels if name in self.sources else {}
            if name in self.sources and label not in labels:
                raise RequestError(f"Unrecognized servable version label: {label}")
            version = labels.get(label, version)
        served = self._served.get(name, {})
        if version in served or (version is None and served):
            return served[max(served) if version is None else version]
        states = self._states.get(name, {})
        loading = [number for number, (state, _) in states.items() if state in ("START", "LOADING")]
        if version in loading or (version is None and (loading or (name in self.sources and not states))):
            raise RequestError(f"model {name} is being loaded: try again later", "UNAVAILABLE")
        target = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise RequestError(f"Servable not found for request: {target}", "NOT_FOUND")

    def status(self, name: str, version: int | None = None, label: str | None = None) -> dict:
        """The answer to a GET of a model's status.

        Raises:
            RequestError: as `find`.
        """
        if label is not None:
            version = self.find(name, label=label).version.number
        states = self._states.get(name, {})
        if version is not None and version not in states:
            raise RequestError(f"Could not find version {version} of model {name}", "NOT_FOUND")
        if not states:
            raise RequestError(f"Could not find any versions of model {name}", "NOT_FOUND")
        chosen = [version] if version is not None else sorted(states, reverse=True)
        return {"model_version_status": [version_status(number, *states[number]) for number in chosen]}

    def numbers(self, name: str) -> list[int]:
        """The versions of a model that answer."""
        return sorted(self._served.get(name, {}))

    @property
    def rows_waiting(self) -> dict[str, int]:
        """Model -> rows that wait in its queues."""
        return {name: sum(served.rows_waiting for served in versions.values()) for name, versions in self._served.items()}

    async def refresh(self) -> None:
        """Loads what is new and takes away what is gone; requests go on meanwhile, on the versions that are there."""
        for source in self.sources.values():
            try:
                wanted = await asyncio.to_thread(source.wanted)
            except OSError as error:
                _log.warning("%s: %s", source.base, error)
                continue
            for number, folder in wanted.items():
                if number not in self._served[source.name] and (source.name, number) not in self._failed:
                    await self._add(source.name, number, folder)
            if self._served[source.name].keys() & wanted.keys():
                for number in [number for number in self._served[source.name] if number not in wanted]:
                    if (source.name, number) not in self._put:
                        await self._remove(source.name, number)

    def put(self, name: str, version: ModelVersion) -> None:
        """Serves a version that does not come from the model's folder, until the server ends."""
        self._put.add((name, version.number))
        self._serve(name, version)

    def _serve(self, name: str, version: ModelVersion) -> None:
        self._served[name][version.number] = Served(version, self._make_batcher)
        self._states[name][version.number] = ("AVAILABLE", "")

    async def _add(self, name: str, number: int, folder: Path) -> None:
        self._states[name][number] = ("LOADING", "")
        try:
            version = await asyncio.to_thread(self._load, name, number, folder)
        except Exception as error:  # whatever is wrong with this version, the others go on
            _log.error("version %d of model %s cannot be loaded: %s", number, name, error)
            self._states[name][number] = ("END", str(error))
            self._failed.add((name, number))
            return
        self._serve(name, version)
        _log.info("version %d of model %s is served", number, name)

    async def _remove(self, name: str, number: int) -> None:
        served = self._served[name].pop(number)  # new requests go to others from now on
        self._states[name][number] = ("UNLOADING", "")
        try:
            await asyncio.wait_for(served.end(), _PATIENCE)
        except TimeoutError:
            _log.warning("version %d of model %s was still answering after %d s", number, name, _PATIENCE)
        self._states[name][number] = ("END", "")
        _log.info("version %d of model %s is no longer served", number, name)


def load_warm(name: str, number: int, folder: Path) -> ModelVersion:
    """Loads a version, and answers its warm-up requests."""
    version = ModelVersion(name, number, folder)
    version.warm_up()
    return version
