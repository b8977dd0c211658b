"""Files beside the versions of an export: what TensorFlow Serving, Docker, Kubernetes and KServe are started with."""

from __future__ import annotations

import re
from pathlib import Path

BATCH_SIZES = (1, 4, 16, 64)
SERVING_IMAGE = "tensorflow/serving:latest"

_MODELS = """model_config_list {{
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
    model_version_policy {{ latest {{ num_versions: 2 }} }}
  }}
}}
"""
_BATCHING = """max_batch_size {{ value: {largest} }}
batch_timeout_micros {{ value: 1000 }}
max_enqueued_batches {{ value: 100 }}
{sizes}
"""
_MONITORING = """prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }
"""
_DOCKER = """#!/bin/sh
# Serves this folder's versions with TensorFlow Serving: REST on port 8501, gRPC on port 8500.
cd "$(dirname "$0")" || exit 1
exec docker run --rm --publish 8501:8501 --publish 8500:8500 \\
  --mount "type=bind,source=$PWD,target=/models/{name},readonly" \\
  {image} \\
  --model_config_file=/models/{name}/models.config \\
  --enable_batching --batching_parameters_file=/models/{name}/batching.config \\
  --monitoring_config_file=/models/{name}/monitoring.config
"""
_KUBERNETES = """# kubectl apply -f kubernetes.yaml, where the claim "{resource}-models" holds this folder as {name}/.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {resource}
spec:
  replicas: 2
  selector:
    matchLabels: {{app: {resource}}}
  template:
    metadata:
      labels: {{app: {resource}}}
    spec:
      containers:
        - name: serving
          image: {image}
          args:
            - --model_config_file=/models/{name}/models.config
            - --enable_batching
            - --batching_parameters_file=/models/{name}/batching.config
            - --monitoring_config_file=/models/{name}/monitoring.config
            - --rest_api_port=8501
          ports:
            - {{name: grpc, containerPort: 8500}}
            - {{name: rest, containerPort: 8501}}
          readinessProbe:
            httpGet: {{path: /v1/models/{name}, port: 8501}}
          resources:
            requests: {{cpu: "1", memory: 1Gi}}
          volumeMounts:
            - {{name: models, mountPath: /models, readOnly: true}}
      volumes:
        - name: models
          persistentVolumeClaim: {{claimName: {resource}-models}}
---
apiVersion: v1
kind: Service
metadata:
  name: {resource}
spec:
  selector: {{app: {resource}}}
  ports:
    - {{name: grpc, port: 8500}}
    - {{name: rest, port: 8501}}
"""
_KSERVE = """# kubectl apply -f kserve.yaml, where the claim "{resource}-models" holds this folder as {name}/.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {resource}
spec:
  predictor:
    model:
      modelFormat: {{name: tensorflow}}
      storageUri: pvc://{resource}-models/{name}
      resources:
        requests: {{cpu: "1", memory: 1Gi}}
"""


def model_name(run_folder: Path) -> str:
    """The name under which a run is served: its folder's, with "-" for characters that URLs and config files would escape.

    Example:
        >>> model_name(Path("runs/My products (2)"))
        'My-products-2'
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", run_folder.resolve().name).strip("-.") or "model"


def write_serving_files(folder: Path, name: str) -> None:
    """Writes the files into the folder of the versions, where servers ignore them.

    A file that is there already stays as it is: people change them.

    Args:
        folder: the base path of the model: the folder whose subfolders are its versions.
        name: the model's name, as `model_name` gives it.
    """
    resource = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50] or "model"
    if not resource[0].isalpha():
        resource = f"model-{resource}"
    values = {"name": name, "resource": resource, "image": SERVING_IMAGE}
    sizes = "\n".join(f"allowed_batch_sizes: {size}" for size in BATCH_SIZES)
    contents = {
        "models.config": _MODELS.format(**values),
        "batching.config": _BATCHING.format(largest=BATCH_SIZES[-1], sizes=sizes),
        "monitoring.config": _MONITORING,
        "docker.sh": _DOCKER.format(**values),
        "kubernetes.yaml": _KUBERNETES.format(**values),
        "kserve.yaml": _KSERVE.format(**values),
    }
    for file, content in contents.items():
        path = folder / file
        if not path.exists():  # these files have no checksums
            path.write_text(content, encoding="utf-8")
            path.chmod(0o755 if path.suffix == ".sh" else 0o644)
