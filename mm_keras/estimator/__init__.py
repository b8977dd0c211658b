"""Classifiers of one's own tables: a scikit-learn estimator, and the config that a table and a preset amount to.

Import `MultimodalClassifier` from `mm_keras`; the command line takes `make_config` from here.

May import: anything of mm_keras but cli and sweep.
"""
