"""Small models behind a server in this process."""

import contextlib
import time

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from starlette.testclient import TestClient

from mm_keras.serve.app import Server, make_app, make_batcher_of
from mm_keras.serve.models import Models, ModelSource
from mm_keras.serve.observing import Metrics
from mm_keras.serve.options import ServerOptions


class Half(tf.Module):
    """The model of `golden_requests`."""

    def __init__(self, offset):
        super().__init__()
        self.offset = tf.Variable(float(offset))

    def save(self, folder):
        signatures = {
            "serving_default": tf.function(lambda x: {"y": x / 2 + self.offset}),
            "words": tf.function(
                lambda name, times: {
                    "upper": tf.strings.upper(name, "utf-8"),
                    "total": times * 2,
                    "copy_bytes": name,
                }
            ),
            "pairs": tf.function(lambda pair: {"sum": tf.reduce_sum(pair, axis=1)}),
        }
        specs = {
            "serving_default": {"x": tf.TensorSpec([None], tf.float32, name="x")},
            "words": {
                "name": tf.TensorSpec([None], tf.string, name="name"),
                "times": tf.TensorSpec([None], tf.int64, name="times"),
            },
            "pairs": {"pair": tf.TensorSpec([None, 2], tf.float32, name="pair")},
        }
        concrete = {name: function.get_concrete_function(**specs[name]) for name, function in signatures.items()}
        tf.saved_model.save(self, str(folder), signatures=concrete)


@pytest.fixture(scope="session")
def half(tmp_path_factory):
    """The folder of the model `half`: versions 1 and 3."""
    folder = tmp_path_factory.mktemp("served") / "half"
    for version, offset in ((1, 2), (3, 3)):
        Half(offset).save(folder / str(version))
    return folder


@pytest.fixture(scope="session")
def exported(tmp_path_factory, make_spec, build_small_model, encode_image):
    """The folder of versions of a model that sees a picture and a "Review Text", with random weights; and its features."""
    from mm_keras.runs.export_assets import EXTRA, write_assets
    from mm_keras.runs.serving import ServingModule

    features = make_spec(image=(16, 16), fields=("Review Text",))
    model = build_small_model(features)
    for weight in model.get_layer("head").weights:
        weight.assign(np.random.default_rng(1).normal(size=weight.shape))
    module = ServingModule(model, features)
    folder = tmp_path_factory.mktemp("served") / "reviews"
    tf.saved_model.save(module, str(folder / "1"), signatures=module.signatures())
    (folder / "1" / EXTRA).mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), "uint8")
    raw = {"image": [encode_image(each) for each in pixels], "review_text_42d93221": [b"oak mug", b"steel", b"the blue mug"]}
    write_assets(folder / "1" / EXTRA, "reviews", features, raw, ["serving_default"])
    return folder, features, raw


@pytest.fixture(scope="session")
def start():
    """A context manager: sources (and options, pages) -> a client of a server that is ready."""

    @contextlib.contextmanager
    def starting(*sources, pages=None, **options):
        options, metrics = ServerOptions(poll=0, **options), Metrics()
        server = Server(Models(sources, make_batcher_of(options, metrics)), options, metrics)
        with TestClient(make_app(server, pages), raise_server_exceptions=False) as client:
            while not server.models.ready and client.get("/v2/health/ready").status_code != 200:
                time.sleep(0.02)
            yield client

    return starting


@pytest.fixture(scope="session")
def server(start, half, exported):
    """A client of a server of both models, for reading."""
    labelled = ModelSource("half", half, (1, 3), {"stable": 1})
    with start(labelled, ModelSource("reviews", exported[0])) as client:
        yield client
