"""What a run folder is, and what one does with a trained run: evaluate, predict, export, tune thresholds, add classes, fuse.

Import `RunFolder` from `run_folder` and each action from the module of its name; none of them needs the run's config.

May import: features, input_names, scripts, data, model, objectives, distribution, tf_text_model, keras_internals,
tfrecords_tools.packing, tfrecords_tools.sources.
"""
