"""What lies beside an export's versions and in its assets.extra, read as the servers read it."""

import json
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

from mm_keras.runs.serving_files import model_name, write_serving_files
from mm_keras.runs.warm_up import read_warm_up, write_warm_up

# What TensorFlow Serving reads batching.config and monitoring.config as: field -> (number, type).
MESSAGES = {
    "Batching": {
        "max_batch_size": (1, ".google.protobuf.Int64Value"),
        "batch_timeout_micros": (2, ".google.protobuf.Int64Value"),
        "max_enqueued_batches": (3, ".google.protobuf.Int64Value"),
        "allowed_batch_sizes": (6, None),
    },
    "Prometheus": {"enable": (1, "bool"), "path": (2, "string")},
    "Monitoring": {"prometheus_config": (1, ".test.Prometheus")},
}


def _parse(kind, text):
    file = descriptor_pb2.FileDescriptorProto(name=f"{kind}.proto", package="test", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    types = descriptor_pb2.FieldDescriptorProto
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, type_name) in fields.items():
            label = types.LABEL_REPEATED if type_name is None else types.LABEL_OPTIONAL
            of = {None: types.TYPE_INT64, "bool": types.TYPE_BOOL, "string": types.TYPE_STRING}.get(type_name)
            added = message.field.add(name=field, number=number, label=label, type=of or types.TYPE_MESSAGE)
            if of is None:
                added.type_name = type_name
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return text_format.Parse(text, message_factory.GetMessageClass(pool.FindMessageTypeByName(f"test.{kind}"))())


@pytest.fixture
def files(tmp_path):
    write_serving_files(tmp_path, "my-products")
    return {path.name: path for path in tmp_path.iterdir()}


def test_names_are_fit_for_urls_and_configs(tmp_path):
    assert model_name(tmp_path / "My products (2)") == "My-products-2"
    assert model_name(tmp_path / "标题") == "model"


def test_models_config_names_the_model(files):
    model_server_config_pb2 = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    config = text_format.Parse(files["models.config"].read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("my-products", "/models/my-products", "tensorflow")


def test_batching_and_monitoring_configs_are_text_protos(files):
    batching = _parse("Batching", files["batching.config"].read_text())
    sizes = list(batching.allowed_batch_sizes)
    assert sizes == sorted(set(sizes)) and sizes[-1] == batching.max_batch_size.value
    monitoring = _parse("Monitoring", files["monitoring.config"].read_text())
    assert monitoring.prometheus_config.path == "/monitoring/prometheus/metrics"


def test_manifests_are_yaml_and_the_script_is_shell(files):
    deployment, service = yaml.safe_load_all(files["kubernetes.yaml"].read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert "--model_config_file=/models/my-products/models.config" in container["args"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    kserve = yaml.safe_load(files["kserve.yaml"].read_text())
    assert kserve["spec"]["predictor"]["model"]["storageUri"] == "pvc://my-products-models/my-products"
    assert subprocess.run(["sh", "-n", files["docker.sh"]], check=False).returncode == 0
    assert files["docker.sh"].stat().st_mode & 0o100


def test_a_file_that_was_changed_stays(files):
    files["models.config"].write_text("# mine")
    write_serving_files(files["models.config"].parent, "my-products")
    assert files["models.config"].read_text() == "# mine"


def test_warm_up_requests_are_prediction_logs(tmp_path):
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    requests = [("serving_default", {"title": [b"a" * 300, b""], "image": [b"\xff", b""]}), ("tensors", {"x": np.eye(2)})]
    write_warm_up(tmp_path, "products", requests)
    (file,) = tmp_path.iterdir()
    assert file.name == "tf_serving_warmup_requests"
    logs = [prediction_log_pb2.PredictionLog.FromString(data.numpy()) for data in tf.data.TFRecordDataset(str(file))]
    asked = [log.predict_log.request for log in logs]
    assert [(request.model_spec.name, request.model_spec.signature_name) for request in asked] == [
        ("products", "serving_default"),
        ("products", "tensors"),
    ]
    assert tf.make_ndarray(asked[0].inputs["title"]).tolist() == [b"a" * 300, b""]
    np.testing.assert_array_equal(tf.make_ndarray(asked[1].inputs["x"]), np.eye(2))
    read = read_warm_up(file)
    assert [signature for signature, _ in read] == ["serving_default", "tensors"]
    assert read[0][1]["image"].tolist() == [b"\xff", b""]


def test_extras_of_an_export(trained_run, tmp_path):
    from mm_keras.runs.export import export

    run = shutil.copytree(trained_run / "baselines" / "title", tmp_path / "run")
    (run / "report").mkdir(exist_ok=True)
    (run / "report" / "MODEL_CARD.md").write_text("# what a user has to know")
    extra = export(run) / "assets.extra"
    assert (extra / "MODEL_CARD.md").read_text() == "# what a user has to know"
    labels = (extra / "labels.txt").read_text().splitlines()
    assert len(labels) == 20
    assert json.loads((extra / "operations.json").read_text()) == {"tensorflow": tf.__version__, "other_operations": []}
    served = tf.saved_model.load(str(extra.parent)).signatures
    (instance,) = json.loads((extra / "sample_request.json").read_text())["instances"]
    answer = served["serving_default"](**{key: tf.constant([value]) for key, value in instance.items()})
    assert answer["labels"].numpy()[0][0].decode() in labels
    warm_up = read_warm_up(extra / "tf_serving_warmup_requests")
    assert {signature for signature, _ in warm_up} == set(served)
    assert {len(inputs["title"]) for signature, inputs in warm_up if signature == "serving_default"} == {1, 8}
    for signature, inputs in warm_up:
        served[signature](**{key: tf.constant(value) for key, value in inputs.items()})
