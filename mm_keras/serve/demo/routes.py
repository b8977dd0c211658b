"""The routes of the demo."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

from mm_keras.features import IMAGE, safe_name
from mm_keras.input_names import column_name
from mm_keras.runs.export_assets import EXTRA
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.serving import DEFAULT, EMBED
from mm_keras.runs.warm_up import WARM_UP_FILE, read_warm_up
from mm_keras.serve.app import Json, Server, read_example
from mm_keras.serve.classify import as_inputs, input_names
from mm_keras.serve.demo.explain import encode_picture, explain_inputs, explain_regions, explain_words, open_picture
from mm_keras.serve.demo.neighbours import Neighbours
from mm_keras.serve.demo.new_classes import NewClasses
from mm_keras.serve.errors import RequestError
from mm_keras.serve.models import Served
from mm_keras.serve.signatures import STRING
from mm_keras.serve.tensor_json import is_b64, parse_object, to_array

_PAGE = Path(__file__).parent.with_name("pages") / "demo.html"
_THUMBNAIL = 240
_MOST_PICTURES = 16  # of a new class
_HEADERS = {  # the page may load nothing from elsewhere, and send nothing there
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self' data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def add_demo(app: FastAPI, server: Server) -> None:
    """Adds the page and what it asks for."""
    demo = Demo(server)
    app.get("/", include_in_schema=False)(lambda: HTMLResponse(_PAGE.read_text("utf-8"), headers=_HEADERS))

    @app.get("/demo/model", include_in_schema=False)
    async def model() -> Json:
        try:
            served = demo.served()
        except RequestError as error:
            if error.code != "UNAVAILABLE":
                raise
            return Json({"loading": True})
        return Json(await asyncio.to_thread(demo.describe, served))

    @app.post("/demo/explain/{part}", include_in_schema=False)
    async def explain(request: Request, part: str) -> Json:
        request.state.facts["method"] = f"explain-{part}"[:30]
        return Json(await demo.explain(part, await read_example(request), request.state.facts))

    @app.post("/demo/classes", include_in_schema=False)
    async def add_class(request: Request) -> Json:
        content = parse_object(await request.body())
        texts = [str(content.get(name, "")) for name in ("label", "text")]
        return Json(await demo.add_class(*texts, _pictures(content.get("pictures", [])), request.state.facts))


class Demo:
    """What the page asks for, of the server's first model."""

    def __init__(self, server: Server):
        self._server = server
        source = server.models.sources[server.first]
        self._run = RunFolder(source.run) if source.run else None
        self._classes = NewClasses(self._run) if self._run and NewClasses.are_possible(self._run) else None
        self._neighbours: Neighbours | None = None
        self._without_neighbours = "" if self._run else "the run folder is not known: start the demo with it"

    def served(self) -> Served:
        """The version that answers now; RequestError if it was not exported by this project."""
        served = self._server.models.find(self._server.first)
        if served.version.features is None:
            raise RequestError("the demo is for models that `mm-keras export` wrote")
        return served

    def describe(self, served: Served) -> dict[str, Any]:
        """What the page shows before anything is asked."""
        version = served.version
        self._begin_neighbours(served)
        return {
            "model": version.name,
            "version": version.number,
            "num_labels": len(version.features.labels),
            "multi_label": version.features.multi_label,
            "inputs": [
                {"name": name, "key": safe_name(name), "title": column_name(name), "is_image": name == IMAGE}
                for name in version.features.modalities
            ],
            "samples": [_shown(inputs) for inputs in _samples(version.folder)],
            "can_add_classes": self._classes is not None,
            "has_neighbours": self._neighbours is not None,
        }

    async def explain(self, part: str, given: dict[str, bytes], facts: dict) -> dict[str, Any]:
        """One of the explanations of an example."""
        served = self.served()
        version = served.version
        names = input_names(version)
        example = dict.fromkeys(map(safe_name, version.features.modalities), b"")
        example |= {names[name]: value for name, value in given.items() if name in names}
        if not any(value.strip() for value in example.values()):
            raise RequestError("the example has no input")

        async def ask(examples) -> np.ndarray:
            number = len(version.features.labels)
            scores = np.full((len(examples), number), 1 / number, np.float32)
            rows = [row for row, inputs in enumerate(examples) if any(value.strip() for value in inputs.values())]
            for start in range(0, len(rows), 16):  # so that others are answered in between
                places = rows[start : start + 16]
                outputs = await self._server.ask(served, DEFAULT, _columns([examples[row] for row in places]), facts)
                if wrong := next(filter(None, outputs["error"]), b""):
                    raise RequestError(wrong.decode())
                scores[places] = outputs["scores"]
            return scores

        several = version.features.multi_label
        try:
            if part == "inputs":
                return await explain_inputs(ask, example, version.features.labels, several)
            if part == "words":
                return await explain_words(ask, example, several)
            if part == "regions":
                return await explain_regions(ask, example, several) if example.get(IMAGE) else {}
        except ValueError as error:
            raise RequestError(str(error)) from error
        if part == "neighbours":
            return await self._find_neighbours(served, given, facts)
        raise RequestError(f"there is no explanation {part!r}: inputs, words, regions, neighbours", "NOT_FOUND")

    async def add_class(self, label: str, text: str, pictures: Sequence[bytes], facts: dict) -> dict[str, Any]:
        """Adds a class, by its text or by pictures of it, which takes part in the answers from now on."""
        if self._classes is None:
            raise RequestError("this model cannot take new classes: it has no class-embedding head, or its run is not known")
        served = self.served()
        fused = await self._embed(served, pictures, facts) if pictures else None
        try:
            version = await asyncio.to_thread(self._classes.add, label, text, fused, served.version)
        except ValueError as error:
            raise RequestError(str(error)) from error
        self._server.models.put(served.version.name, version)
        return {"labels": len(version.features.labels), "added": self._classes.added, "version": version.number}

    async def _embed(self, served: Served, pictures: Sequence[bytes], facts: dict) -> np.ndarray:
        """The fused embeddings of pictures alone, float32 [N, D]."""
        examples = [as_inputs(served.version, {IMAGE: picture}) for picture in pictures]
        columns = {name: np.concatenate([example[name] for example in examples]) for name in examples[0]}
        outputs = await self._server.ask(served, EMBED, columns, facts)
        if wrong := next(filter(None, outputs["error"]), b""):
            raise RequestError(wrong.decode())
        return outputs["fused"]

    def _begin_neighbours(self, served: Served) -> None:
        if self._neighbours is None and not self._without_neighbours:
            try:
                if EMBED not in served.version.signatures:
                    raise ValueError("a late fusion has no embedding")
                self._neighbours = Neighbours(served.version, self._run)
            except (OSError, ValueError) as error:
                self._without_neighbours = str(error)

    async def _find_neighbours(self, served: Served, given: dict[str, bytes], facts: dict) -> dict[str, Any]:
        if self._neighbours is None:
            return {"why": self._without_neighbours or "not begun"}
        if self._neighbours.failed:
            return {"why": self._neighbours.failed}
        if not self._neighbours.ready:
            return {"done": self._neighbours.done, "total": self._neighbours.total}
        outputs = await self._server.ask(served, EMBED, as_inputs(served.version, given), facts)
        neighbours = self._neighbours.find(outputs["fused"][0])
        shown = [{"id": known.id, "labels": known.labels, "similarity": round(cosine, 4)} for known, cosine in neighbours]
        inputs = await asyncio.to_thread(lambda: [_shown(self._neighbours.inputs_of(known)) for known, _ in neighbours])
        return {"neighbours": [entry | content for entry, content in zip(shown, inputs, strict=True)]}


def _pictures(values: Any) -> list[bytes]:
    if not isinstance(values, list) or len(values) > _MOST_PICTURES or not all(map(is_b64, values)):
        raise RequestError(f'"pictures" must be a list of at most {_MOST_PICTURES} pictures, each as {{"b64": …}}')
    return [bytes(to_array(value, STRING)[()]) for value in values]


def _columns(examples) -> dict[str, np.ndarray]:
    columns = {}
    for name in examples[0]:
        columns[name] = np.empty(len(examples), object)
        columns[name][:] = [example[name] for example in examples]
    return columns


def _shown(inputs: dict[str, bytes]) -> dict[str, Any]:
    """Inputs for the page: the picture, small, as a data URL, and the texts by their keys."""
    shown: dict[str, Any] = {
        "texts": {name: value.decode("utf-8", "replace") for name, value in inputs.items() if name != IMAGE}
    }
    if inputs.get(IMAGE):
        try:
            small = encode_picture(open_picture(inputs[IMAGE], _THUMBNAIL), "JPEG", quality=88)
            shown["image"] = f"data:image/jpeg;base64,{base64.b64encode(small).decode()}"
        except ValueError:
            pass
    return shown


def _samples(folder: Path) -> list[dict[str, bytes]]:
    """The examples of the first batch among the warm-up requests."""
    path = folder / EXTRA / WARM_UP_FILE
    for signature, inputs in read_warm_up(path) if path.is_file() else ():
        if signature == DEFAULT:
            rows = range(min(6, len(next(iter(inputs.values())))))
            examples = [{name: bytes(values[row]) for name, values in inputs.items()} for row in rows]
            return [example for example in examples if any(example.values())]
    return []
