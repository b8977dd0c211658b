"""The routes of the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.middleware.gzip import GZipMiddleware

import mm_keras
from mm_keras.serve import classify, open_inference, tf_serving
from mm_keras.serve.batching import Batcher
from mm_keras.serve.errors import RequestError
from mm_keras.serve.limits import LimitedBody, check_texts
from mm_keras.serve.models import Models, Served
from mm_keras.serve.observing import Metrics, Observed
from mm_keras.serve.options import ServerOptions
from mm_keras.serve.signatures import STRING
from mm_keras.serve.tensor_json import is_b64, parse_object, to_array

_MODEL = r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?"
_PREDICTION = re.compile(_MODEL + r":(classify|regress|predict)", re.IGNORECASE)
_STATUS = re.compile(r"/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?(/metadata)?", re.IGNORECASE)
_PAGES = Path(__file__).with_name("pages")


class Json(JSONResponse):
    """JSON with TensorFlow Serving's tokens for what is no number: NaN, Infinity."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


class Server:
    """What the routes share.

    Args:
        models: what is served.
        options: limits.
        metrics: what is counted.
    """

    def __init__(self, models: Models, options: ServerOptions, metrics: Metrics):
        self.models, self.options, self.metrics = models, options, metrics

    async def ask(self, served: Served, signature: str, inputs: dict, facts: dict) -> dict:
        """The outputs of a signature; RequestError above a limit, or when it takes too long."""
        check_texts(inputs, self.options.max_text)
        facts |= {"model": served.version.name, "version": served.version.number, "rows": tf_serving.rows_of(inputs)}
        try:
            return await asyncio.wait_for(served.ask(signature, inputs), self.options.timeout)
        except TimeoutError as error:
            raise RequestError(f"no answer within {self.options.timeout:g} s: try again later", "DEADLINE_EXCEEDED") from error

    @property
    def first(self) -> str:
        """The model that is meant where a request names none."""
        return next(iter(self.models.sources))


def make_batcher_of(options: ServerOptions, metrics: Metrics) -> Callable[[Callable], Batcher]:
    """`(function of batches) -> Batcher` with the limits of the options."""

    def make(run: Callable) -> Batcher:
        wait = options.batch_wait_ms / 1000
        return Batcher(run, options.max_batch, options.max_queue, wait, options.workers, metrics.batch_rows.observe)

    return make


def make_app(server: Server, add_pages: Callable[[FastAPI, Server], None] | None = None) -> Callable:
    """The application of all routes; `add_pages` adds those of the demo."""

    @contextlib.asynccontextmanager
    async def looking_for_versions(app: FastAPI):
        task = asyncio.create_task(_look_for_versions(server))
        yield
        task.cancel()

    app = FastAPI(
        title="mm_keras",
        version=mm_keras.__version__,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        lifespan=looking_for_versions,
        description="Models of images that come with text.",
    )
    _add_tf_serving(app, server)
    _add_open_inference(app, server)
    _add_classify(app, server)
    _add_metrics(app, server)
    if add_pages:
        add_pages(app, server)
    app.get("/docs", include_in_schema=False)(lambda: HTMLResponse((_PAGES / "docs.html").read_text("utf-8")))
    _describe(app, server)
    app.add_exception_handler(RequestError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_parameter)
    app.add_exception_handler(RecursionError, _refuse_nesting)
    app.add_exception_handler(Exception, _apologise)
    app.add_middleware(GZipMiddleware, minimum_size=1024)
    app.add_middleware(LimitedBody, max_bytes=int(server.options.max_body_mb * 2**20))
    return Observed(app, server.metrics)


async def _look_for_versions(server: Server) -> None:
    while True:
        await server.models.refresh()
        if not server.options.poll:
            return
        await asyncio.sleep(server.options.poll)


async def _refuse(request: Request, error: RequestError) -> Response:
    headers = {"Retry-After": "1"} if error.status in (429, 503) else {}
    return Json({"error": str(error)}, error.status, headers)


async def _refuse_parameter(request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    return Json({"error": f"{first['loc'][-1]}: {first['msg']}. Received: {str(first.get('input'))[:100]!r}"}, 400)


async def _refuse_nesting(request: Request, error: RecursionError) -> Response:
    return Json({"error": "the body is nested too deeply"}, 400)


async def _apologise(request: Request, error: Exception) -> Response:
    return Json({"error": f"{type(error).__name__}: {error}"[:500]}, 500)


def _add_tf_serving(app: FastAPI, server: Server) -> None:
    async def answer(request: Request) -> Response:
        """TensorFlow Serving's REST: see https://www.tensorflow.org/tfx/serving/api_rest."""
        path, facts = request.url.path, request.state.facts
        if request.method == "POST" and (match := _PREDICTION.fullmatch(path)):
            name, version, label, method = match.groups()
            facts["method"] = method = method.lower()
            body = await request.body()
            served = server.models.find(name, int(version) if version else None, label)
            if method != "predict":
                tf_serving.refuse_examples(body, served.version.signatures, method)
            predict_request = tf_serving.read_predict(body, served.version.signatures)
            outputs = await server.ask(served, predict_request.signature, predict_request.inputs, facts)
            return Json(tf_serving.write_predict(outputs, predict_request.by_row))
        if request.method == "GET" and (match := _STATUS.fullmatch(path)):
            name, version, label, is_metadata = match.groups()
            facts["method"] = "metadata" if is_metadata else "status"
            if name is None:
                raise RequestError("Missing model name in request.")
            number = int(version) if version else None
            if is_metadata:
                model_version = server.models.find(name, number, label).version
                return Json(tf_serving.metadata(name, model_version.number, model_version.signatures))
            return Json(server.models.status(name, number, label))
        raise RequestError(f"Malformed request: {request.method} {path}")

    options = {"tags": ["TensorFlow Serving"], "response_class": Json}
    app.post("/v1/models/{model}:predict", summary="Ask a model", **options)(answer)
    app.get("/v1/models/{model}", summary="The states of a model's versions", **options)(answer)
    app.get("/v1/models/{model}/metadata", summary="What its signatures take and give", **options)(answer)
    methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"]
    for prefix in ("v1", "V1"):
        app.api_route(f"/{prefix}/{{rest:path}}", methods=methods, include_in_schema=False)(answer)


def _add_open_inference(app: FastAPI, server: Server) -> None:
    tags = {"tags": ["Open Inference Protocol"], "response_class": Json}

    @app.get("/v2", summary="The server", **tags)
    async def describe_server() -> Response:
        return Json({"name": "mm-keras", "version": mm_keras.__version__, "extensions": []})

    @app.get("/v2/health/live", summary="Whether the server runs", **tags)
    async def live() -> Response:
        return Json({"live": True})

    @app.get("/v2/health/ready", summary="Whether all models answer", **tags)
    async def ready() -> Response:
        return Json({"ready": server.models.ready}, 200 if server.models.ready else 503)

    async def describe(request: Request, model: str, version: int | None = None) -> Response:
        """The inputs and outputs of a model's default signature."""
        request.state.facts["method"] = "metadata"
        model_version = server.models.find(model, version).version
        return Json(open_inference.model_metadata(model, server.models.numbers(model), model_version.signatures))

    async def model_ready(model: str, version: int | None = None) -> Response:
        """Whether a model, or a version of it, answers."""
        server.models.find(model, version)
        return Json({"name": model, "ready": True})

    async def infer(request: Request, model: str, version: int | None = None) -> Response:
        """Asks a model."""
        request.state.facts["method"] = "infer"
        body = await request.body()
        served = server.models.find(model, version)
        infer_request = open_inference.read_infer(body, served.version.signatures)
        outputs = await server.ask(served, infer_request.signature, infer_request.inputs, request.state.facts)
        return Json(open_inference.write_infer(model, served.version.number, infer_request, outputs))

    for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        app.get(prefix, summary="What it takes and gives", **tags)(describe)
        app.get(f"{prefix}/ready", summary="Whether it answers", **tags)(model_ready)
        app.post(f"{prefix}/infer", summary="Ask a model", **tags)(infer)


def _add_classify(app: FastAPI, server: Server) -> None:
    @app.post("/classify", summary="The labels of a picture and its texts", tags=["For people"], response_class=Json)
    async def classify_one(request: Request, model: str | None = None, top: int = 5) -> Response:
        """A form with a file `image` and the text fields of the model by their names; or JSON of the same names, where the
        picture is {"b64": …}. What is left out counts as missing."""
        request.state.facts["method"] = "classify"
        if top < 1:
            raise RequestError(f"top must be at least 1. Received: {top}")
        fields = await read_example(request)
        served = server.models.find(model or server.first)
        inputs = classify.as_inputs(served.version, fields)
        outputs = await server.ask(served, tf_serving.DEFAULT_SIGNATURE, inputs, request.state.facts)
        return Json(classify.as_answer(served.version, outputs, top))


async def read_example(request: Request) -> dict[str, bytes]:
    """The fields of a form, or the members of a JSON object, as bytes by name."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        content = parse_object(await request.body())
        wrong = [name for name, value in content.items() if not (isinstance(value, str) or is_b64(value))]
        if wrong:
            raise RequestError(f'{wrong[0]!r} must be a text, or a picture as {{"b64": …}}')
        return {name: bytes(to_array(value, STRING)[()]) for name, value in content.items()}
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise RequestError("send a form (multipart/form-data), or JSON (application/json)")
    fields = {}
    try:
        async with request.form(max_files=8, max_fields=100, max_part_size=2**25) as form:
            for name, value in form.multi_items():
                if name in fields:
                    raise RequestError(f"{name!r} is given twice: ask for one example at a time")
                fields[name] = value.encode("utf-8", "replace") if isinstance(value, str) else await value.read()
    except RequestError:
        raise
    except Exception as error:  # the parser's errors are of many kinds
        raise RequestError(f"the form cannot be read: {getattr(error, 'detail', None) or error}") from error
    return fields


def _add_metrics(app: FastAPI, server: Server) -> None:
    async def metrics() -> Response:
        for name, rows in server.models.rows_waiting.items():
            server.metrics.rows_waiting.labels(name).set(rows)
            server.metrics.versions.labels(name).set(max(server.models.numbers(name), default=0))
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4")

    for path in ("/metrics", "/monitoring/prometheus/metrics"):
        app.get(path, summary="Counters for Prometheus", tags=["Operation"], response_class=Response)(metrics)


def _describe(app: FastAPI, server: Server) -> None:
    """The OpenAPI description, with the bodies that the routes read themselves."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        schema = json.loads(json.dumps(plain()))
        try:
            features = server.models.find(server.first).version.features
        except RequestError:
            features = None
        form = classify.describe_form(features)
        bodies = {
            "/classify": {"multipart/form-data": {"schema": form}},
            "/v1/models/{model}:predict": {"application/json": {"schema": {"type": "object"}}},
            "/v2/models/{model}/infer": {"application/json": {"schema": {"type": "object"}}},
        }
        for path, content in bodies.items():
            schema["paths"][path]["post"]["requestBody"] = {"content": content, "required": True}
        return schema

    app.openapi = openapi
