"""What training minimises and what it is measured by: losses and metrics, in pure Keras that runs on any backend.

Import `make_loss` and its siblings from `losses`, `make_metrics` and `evaluate_logits` from `metrics`.

May import: keras_internals.
"""
