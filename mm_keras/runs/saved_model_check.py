"""Run as a script in a fresh interpreter: asks a SavedModel with nothing but TensorFlow, as a server would.

Its first argument is the file to write, and any others are modules that register operations. From standard input it reads

    {"saved_model": …, "requests": [{"signature": …, "inputs": {name: {"dtype": …, "shape": …, "data": …}}}]}

where "data" is a list of base64 strings of a string tensor, and base64 bytes of any other. It writes the outputs into the
file, an .npz with arrays "<number of the request>/<output>", and prints as JSON which operations of the model TensorFlow itself
lacks.
"""

import base64
import importlib
import json
import sys
from pathlib import Path


def main() -> None:
    import numpy as np
    import tensorflow as tf

    request = json.load(sys.stdin)
    foreign_operations = find_foreign_operations(Path(request["saved_model"], "saved_model.pb"))
    for module in sys.argv[2:]:
        importlib.import_module(module)
    signatures = tf.saved_model.load(request["saved_model"]).signatures
    answers = {}
    for number, question in enumerate(request["requests"]):
        inputs = {name: decode(tf, np, **value) for name, value in question["inputs"].items()}
        for name, value in signatures[question["signature"]](**inputs).items():
            array = value.numpy()
            answers[f"{number}/{name}"] = array.astype("S") if array.dtype == object else array
    foreign = [name for name in ("mm_keras", "tfrecords_tools", "keras_hub") if name in sys.modules]
    if foreign:
        raise RuntimeError(f"the check must run without {foreign[0]}")
    np.savez(sys.argv[1], **answers)
    json.dump(foreign_operations, sys.stdout)


def decode(tf, np, dtype, shape, data):
    if dtype == "string":
        return tf.reshape(tf.constant([base64.b64decode(value) for value in data], tf.string), shape)
    return tf.constant(np.frombuffer(base64.b64decode(data), dtype).reshape(shape))


def find_foreign_operations(path: Path) -> list[str]:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
    from tensorflow.python.framework import op_def_registry

    graph = SavedModel.FromString(path.read_bytes()).meta_graphs[0].graph_def
    functions = {function.signature.name for function in graph.library.function}
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    used = {node.op for node in nodes} - functions
    return sorted(name for name in used if op_def_registry.get(name) is None)


if __name__ == "__main__":
    main()
