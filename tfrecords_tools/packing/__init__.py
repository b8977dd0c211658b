"""Source examples become a dataset folder: planning, encoding in worker processes or on Beam, staging, resuming.

Import `pack` and `PackOptions` from `pack`, `ImageOptions` from `images`.

May import: dataset, sources, progress.
"""
