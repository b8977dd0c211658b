"""Solves the head of a model whose encoders are frozen, in seconds: candidates, folds, ensembles, calibration. No TensorFlow.

Import `solve` from `solve` and `Rows` from `rows`.

May import: features, model.
"""
