"""One training, from a dataset folder to the weights that are kept: the loop, checkpoints, optimizers, precision, progress.

Import `train` from `train`; the other modules are its parts.

May import: features, data, model, objectives, distribution, runs, solving, tf_text_model, keras_internals.
"""
