"""Where a training runs (on one device, on several, in several processes, on a TPU), and how a process is asked to end.

Import `make_strategy` from `strategy`, and `this_worker` from `multi_worker`; `workers` does not load TensorFlow.

May import: keras_internals.
"""
