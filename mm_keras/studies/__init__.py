"""The published studies that this project reproduces: one module a study, and what they share.

`study` says what a study is made of and runs its steps, which are ordinary commands; `drawn` draws the data of the miniatures;
`relevance` scores captions against their classes. What is general (experts, few shots, agreement, late fusion, sweeps) is in
the toolkit and only used from here.

May import: features, input_names, runs, objectives, model, data, tf_text_model, config, sweep, tfrecords_tools.sources,
tfrecords_tools.packing.
"""
