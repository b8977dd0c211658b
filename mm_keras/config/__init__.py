"""Gin configs, resolved once into plain calls: read, checked as a whole, and turned into functions with their values bound.

Import `load_config` and `find_config` from `load`. Nothing outside of this folder knows of gin, and after `load_config` nothing
of it is needed.

May import: data, experiment, model, objectives, packed, report, runs, tf_text_model, training.
"""
