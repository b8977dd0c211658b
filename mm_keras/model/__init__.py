"""The models, in pure Keras that runs on any backend: towers, encoders, tuning DNNs, fusions, heads and their weights.

Import the `build_*` functions from their modules. A saved model is loaded by `mm_keras.runs.load_model`, which imports every
module of this folder first, so that Keras knows its layers.

May import: features, downloads, keras_internals.
"""
