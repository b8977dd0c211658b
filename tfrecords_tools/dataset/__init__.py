"""What a dataset folder is: schema, shards, index, labels, splits, dataset.json, and its descriptions for other programs.

Import `DatasetInfo` from `info`, records from `shards` and `schema`; nothing here needs TensorFlow.

May import: progress.
"""
