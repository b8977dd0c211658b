"""Where a training runs: one device or several, one process or several, a TPU; and how a process is asked to end.

Import `make_strategy` from `strategy`, and `this_worker` from `multi_worker`; `workers` is usable before TensorFlow is loaded.

May import: keras_internals.
"""
