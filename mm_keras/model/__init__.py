"""The models, in pure Keras that runs on any backend: towers, encoders, tuning DNNs, fusions, heads and their weights.

Import the `build_*` functions from their modules; `registry` lists every layer that a saved model may name.

May import: features, keras_internals.
"""
