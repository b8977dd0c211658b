"""Classifiers of one's own tables: a scikit-learn estimator, and the config that a table and a preset amount to.

`MultimodalClassifier` is imported from here, and `make_config` by the command line. It may import all of `mm_keras` but
`cli` and `sweep`.
"""
