"""docs/serving.md says what there is."""

import re
from pathlib import Path

import pytest

import mm_keras
from mm_keras.serve.app import Server, make_app, make_batcher_of
from mm_keras.serve.models import Models, ModelSource
from mm_keras.serve.observing import Metrics
from mm_keras.serve.options import ServerOptions

PAGE = Path(mm_keras.__file__).parent.parent / "docs" / "serving.md"
TEXT = PAGE.read_text("utf-8") if PAGE.is_file() else ""
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)

pytestmark = pytest.mark.skipif(not TEXT, reason="mm_keras is installed without its source")


def test_message_for_grpc_is_one_that_tensorflow_serving_reads():
    predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2")
    import tensorflow as tf

    code = PYTHON[1].partition("stub = ")[0].replace(", prediction_service_pb2_grpc", "")
    names = {}
    exec(code, names)  # it is the project's own
    sent = predict_pb2.PredictRequest.FromString(names["request"].SerializeToString())
    assert (sent.model_spec.name, sent.model_spec.signature_name) == ("quickstart", "title")
    assert tf.make_ndarray(sent.inputs["title"]).tolist() == [b"Solid oak"]


def test_routes_that_the_page_names_exist():
    options, metrics = ServerOptions(), Metrics()
    models = Models([ModelSource("m", Path("m"))], make_batcher_of(options, metrics))
    observed = make_app(Server(models, options, metrics))
    paths = {route.path for route in observed._app.routes}
    assert {
        "/classify",
        "/metrics",
        "/docs",
        "/openapi.json",
        "/v1/models/{model}:predict",
        "/v2/models/{model}/infer",
    } <= paths
