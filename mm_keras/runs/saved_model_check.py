"""Run as a script in a fresh interpreter: asks a SavedModel with nothing but TensorFlow, as a server would.

Reads {"saved_model", "inputs": {name: [base64, …]}} from standard input and saves the probabilities, float32
[B, num_labels], where its first argument says. Others are modules that register ops.
"""

import base64
import importlib
import json
import sys


def main() -> None:
    import numpy as np
    import tensorflow as tf

    for module in sys.argv[2:]:
        importlib.import_module(module)
    request = json.load(sys.stdin)
    served = tf.saved_model.load(request["saved_model"]).signatures["serving_default"]
    inputs = {name: tf.constant([base64.b64decode(value) for value in values]) for name, values in request["inputs"].items()}
    probabilities = served(**inputs)["probabilities"].numpy()
    foreign = [name for name in ("mm_keras", "tfrecords_tools", "keras_hub") if name in sys.modules]
    if foreign:
        raise RuntimeError(f"the check must run without {foreign[0]}")
    np.save(sys.argv[1], probabilities)


if __name__ == "__main__":
    main()
