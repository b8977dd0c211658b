"""Train, evaluate and ship Keras models that classify images that come with text."""

import os

__version__ = "0.1.0"

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up chatter; 0 brings it back


def __getattr__(name: str):
    """Loads the classifier when it is first asked for: it brings TensorFlow, which the commands load in their own way."""
    if name != "MultimodalClassifier":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mm_keras.estimator.classifier import MultimodalClassifier

    return MultimodalClassifier
