"""Packs source examples into a dataset folder: plans shards, encodes records in worker processes or on Beam, and resumes.

Import `pack` and `PackOptions` from `pack`, `ImageOptions` from `images`.

May import: dataset, sources, progress.
"""
